"""Cost against depth: the graphs, what counts as memory, a row of each network, and the picture."""

import depth
import pytest
import records
import torch
from torch import nn


@pytest.mark.parametrize(("shape", "edges", "levels"), [("chain", 8, 8), ("tree", 8, None), ("grid", 12, 4)])
def test_graphs(shape, edges, levels):
    edge_index = depth.edges_of(shape, 9)
    assert edge_index.shape == (2, edges)
    assert (edge_index[0] < edge_index[1]).all()
    dag = depth.LineDAG.from_edge_index(edge_index, 9, order="given")
    assert depth.depth_of(dag) == (levels or dag.num_levels)


def test_memory_is_what_the_backward_pass_needs():
    x, lin = torch.randn(1024, 256, requires_grad=True), nn.Linear(256, 256, bias=False)
    assert depth.kept(lambda: lin(x)) == pytest.approx((1024 + 256) * 256 * 4 / 2**20)
    assert depth.kept(lambda: lin(x).tanh()) == pytest.approx((2048 + 256) * 256 * 4 / 2**20)


def test_rows_and_picture(tmp_path, capsys):
    out = tmp_path / "depth.jsonl"
    assert depth.main(["--shapes", "chain", "--nodes", "4", "--passes", "1", "--out", str(out), "--plot"]) == 0
    rows = records.read(out)
    assert [row["name"] for row in rows] == list(depth.STYLES)
    assert all(row["seconds"] > 0 and row["depth"] == 3 and row["kept_mib"] > 0 for row in rows)
    assert (tmp_path / "cost_against_depth.png").read_bytes()[:4] == b"\x89PNG"
    assert "written" in capsys.readouterr().out
    assert depth.measure("gine", "chain", 1000, 1) is None
