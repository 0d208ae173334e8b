"""What a layer adds to the operator at both ends, where some graphs fit into tiles and others do not."""

import pytest
import torch
from batches import check_same, join, molecule, tame_inputs
from flat_gates import fold, joined
from torch import Tensor

pytest.importorskip("triton")

from plstm_graph import LineDAG
from plstm_graph.line_dag import plan
from plstm_graph.line_dag.plan import Host
from plstm_graph.ops.flat import GATES, Norm, Setting, unfold
from plstm_graph.ops.triton import operator
from plstm_graph.testing import DAGS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS, KEYS, VALUES = (8, 16, 16) if DEVICE == "cuda" else (2, 3, 4)
SMALL, LARGE = (range(2), range(2, 4))


def graphs() -> list[LineDAG]:
    """Two that fit into tiles, two that do not."""
    if DEVICE == "cuda":
        return [molecule(nodes, seed=nodes) for nodes in (20, 60, 700, 300)]
    return [DAGS[name]() for name in ("one edge", "diamond", "star", "complete")]


def ends(numbers: list[int], dtype: torch.dtype, bias: bool) -> list[dict[str, Tensor]]:
    """Rows of each of some graphs: output, that after the norm, and gradients of vectors and gates of nodes and edges.
    What goes in hangs on the graph and on nothing else."""
    dags, generator = graphs(), torch.Generator().manual_seed(0)
    weight, to_bias, shift = (
        torch.randn(*shape, generator=generator).to(DEVICE)
        for shape in ((HEADS, VALUES), (HEADS * VALUES,), (HEADS * (2 * KEYS + VALUES),))
    )
    norm = Norm(weight, to_bias if bias else None, 1e-5, True)
    dag = LineDAG.collate([dags[i] for i in numbers])
    inputs = join([tame_inputs(dags[i], HEADS, KEYS, VALUES, seed=i) for i in numbers])
    tables = dag.to(DEVICE).plan(plan.served_classes(KEYS, VALUES))
    served = tables.host[Host.GRAPHS]
    assert served[-1] == sum(i in LARGE for i in numbers)
    rows = joined(inputs).to(DEVICE, dtype)
    gates = fold([gate.float() for gate in inputs.gates], dag.plan(4), GATES).to(DEVICE)
    call = operator.walk_along(gates, VALUES, tables, Setting("triton", HEADS, KEYS, "P"))
    y, output = operator.attend(call, rows, shift if bias else None, gates, norm)
    grad = inputs.value.flip(1, 2).flatten(1).to(output)
    d_rows, d_gates, _ = operator.attend_back(call, rows, shift if bias else None, gates, y, grad, norm)
    operator.walk_back(call, gates, d_gates)
    source, _, mark, direct = unfold(d_gates, tables, HEADS)[0]
    by_node = {"y": y, "output": output, "d_rows": d_rows[:, : -8 * HEADS], "direct": direct}
    sizes = [dags[i].num_nodes for i in numbers], [dags[i].num_edges for i in numbers]
    split = {name: x.split(sizes[0]) for name, x in by_node.items()}
    split |= {name: x.split(sizes[1]) for name, x in (("source", source), ("mark", mark))}
    return [{name: parts[i] for name, parts in split.items()} for i in range(len(numbers))]


@pytest.mark.parametrize("form", ["mixed"], indirect=True)
@pytest.mark.parametrize(("dtype", "bias"), [(torch.float32, True), (torch.float16, False)], ids=str)
def test_a_graph_does_not_feel_its_batch(form, bias, dtype):
    """Bit for bit, alone and beside graphs of the other kind."""
    alone = [ends([i], dtype, bias)[0] for i in (*SMALL, *LARGE)]
    for numbers in ([0, 2, 1, 3], [3, 1]):
        for i, got in zip(numbers, ends(numbers, dtype, bias), strict=True):
            assert not any(x.isnan().any() for x in got.values())
            check_same(got, alone[i], f"graph {i} in {numbers}:")
