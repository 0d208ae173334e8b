"""How far blocks read: a chain, whose numbers can be counted by hand."""

import pytest
import reach
import records
import torch
from torch_geometric.data import Data

from plstm_graph.errors import PLSTMGraphError


def test_a_chain() -> None:
    """In order one block reads all of it; a middle that comes first cuts it, and the next block mends that."""
    columns = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    chain = Data(edge_index=torch.cat([columns, columns.flip(0)], 1), num_nodes=5)
    row = reach.row([chain, chain], "index")
    assert row == {"order": "index", "molecules": 2, "levels": 4.0, "blocks_1": 1.0, "blocks_2": 1.0, "blocks_4": 1.0}
    hops = reach.row([chain], reach.ONE_HOP)
    assert (hops["blocks_1"], hops["blocks_2"], hops["blocks_4"]) == (8 / 20, 14 / 20, 1.0)
    renamed = torch.tensor([1, 3, 0, 4, 2])  # 2 - 4 - 0 - 3 - 1 along the chain: 0 is lower than both neighbours
    cut = reach.row([Data(edge_index=renamed[chain.edge_index], num_nodes=5)], "index")
    assert cut["blocks_1"] < 1 == cut["blocks_4"]


def test_rows(tmp_path, capsys) -> None:
    assert reach.main(["nav17", "--molecules", "3", "--out", str(tmp_path / "rows.jsonl")]) == 0
    rows = records.read(tmp_path / "rows.jsonl")
    assert [row["order"] for row in rows] == [*reach.ORDERS, reach.ONE_HOP]
    assert all(0 < row["blocks_1"] <= row["blocks_2"] <= row["blocks_4"] <= 1 for row in rows)
    assert reach.main(["no-such-set"]) == 1
    assert "unknown data set" in capsys.readouterr().err
    with pytest.raises(PLSTMGraphError):
        reach.load_graphs("no-such-set")
