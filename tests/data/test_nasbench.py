"""NAS-Bench-201: cells as DAGs of operations, and draws of a split."""

import pytest
import torch

from plstm_graph.data import load
from plstm_graph.data.nasbench import INPUT, OPERATIONS, OUTPUT, read
from plstm_graph.errors import DataError

HEADER = "arch,cellstr,cifar10-test,cifar10-val\n"
CELL = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"


def test_a_cell(tmp_path):
    path = tmp_path / "nb201.csv"
    path.write_text(f"{HEADER}0,{CELL},69.55,63.4\n")
    (graph,) = read(path)
    names = ["avg_pool_3x3", "nor_conv_1x1", "skip_connect", "none", "nor_conv_3x3", "skip_connect"]
    assert graph.x.flatten().tolist() == [INPUT, *map(OPERATIONS.index, names), OUTPUT]
    # Operations (0,1) (0,2) (1,2) (0,3) (1,3) (2,3) are nodes 1 to 6.
    fed_by = {1: [0], 2: [0], 3: [1], 4: [0], 5: [1], 6: [2, 3], 7: [4, 5, 6]}
    found = {node: sorted(graph.edge_index[0, graph.edge_index[1] == node].tolist()) for node in fed_by}
    assert found == fed_by
    assert graph.y.tolist() == [[pytest.approx(69.55)]]


@pytest.mark.parametrize("row", ["0,|none~0|,1.0,2", f"0,{CELL.replace('none', 'max_pool')},1.0,2", f"0,{CELL},x,2"])
def test_rows_that_are_no_cells(tmp_path, row):
    path = tmp_path / "nb201.csv"
    path.write_text(f"{HEADER}{row}\n")
    with pytest.raises(DataError, match=r"nb201.csv, row 1: "):
        read(path)


def test_draws(shared_data):
    data = load("nasbench201-1", root=shared_data)
    first, again, other = data.split(seed=0), data.split(seed=0), data.split(seed=1)
    assert {part: len(chosen) for part, chosen in first.items()} == {"train": 78, "valid": 40, "test": 7772}
    assert first == again != other
    assert not set(first["train"]) & (set(first["valid"]) | set(first["test"]))
    # The smaller share of a draw is part of the larger one, and both are tested on the same.
    more = load("nasbench201-50", root=shared_data).split(seed=0)
    assert set(first["train"]) < set(more["train"])
    assert more["test"] == first["test"]
    assert data.task.name == "ranking"
    assert torch.cat([graph.y for graph in data.graphs]).max() < 100
