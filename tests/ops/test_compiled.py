"""The registered op: what PyTorch is told about it is what it does."""

import ast
from pathlib import Path

import pytest
import torch
from backends import HERE, every

import plstm_graph
from plstm_graph.line_dag.plan import served_classes
from plstm_graph.ops.compiled import HOMES
from plstm_graph.testing import DAGS, VIEWS, random_inputs

EVERY = every(*(place for place in HERE if place[0] in HOMES))
CASES = pytest.mark.parametrize(
    ("name", "view", "dtype"),
    [
        ("unlike graphs", "plain", torch.float64),
        ("unlike graphs", "pruned and reversed", torch.float32),
        ("no edge", "plain", torch.float32),
        ("no node", "reversed", torch.float32),
    ],
    ids=str,
)
LAYOUTS = pytest.mark.parametrize("strided", [False, True], ids=["compact", "slices"])


def arguments(backend: str, device: str, name: str, view: str, dtype: torch.dtype, strided: bool) -> tuple:
    """Of the op, vectors perhaps as slices of a projection."""
    dag = VIEWS[view](DAGS[name]()).to(device)
    query, key, value, gates = random_inputs(dag, dtype=dtype, device=device)
    if strided:
        rows = torch.cat([x.flatten(1) for x in (query, key, value)], 1)
        query, key, value = (x.unflatten(1, (2, -1)) for x in rows.split([6, 6, 8], 1))
    plan = dag.plan(served_classes(key.size(2), value.size(2)))
    return backend, dag.reversed, query, key, value, *gates, list(plan)


@LAYOUTS
@CASES
@EVERY
def test_registration(backend, device, name, view, dtype, strided):
    """No input is written to or returned, and the fake implementation makes tensors like the real one's."""
    given = arguments(backend, device, name, view, dtype, strided)
    grad = torch.randn_like(given[4], memory_format=torch.contiguous_format)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.plstm_graph.propagate.default, given, test_utils=checks)
    torch.library.opcheck(torch.ops.plstm_graph.propagate_backward.default, (*given, grad), test_utils=checks)


def bare(x):
    """The same without its numbers."""
    if isinstance(x, list):
        return [bare(table) for table in x]
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta") if isinstance(x, torch.Tensor) else x


@LAYOUTS
@CASES
@EVERY
def test_results_are_laid_out_as_promised(backend, device, name, view, dtype, strided):
    """The output is compact, gradients are strided as their inputs; on the meta device too, where nothing runs."""
    given = arguments(backend, device, name, view, dtype, strided)
    grad = torch.randn_like(given[4], memory_format=torch.contiguous_format)
    ops = torch.ops.plstm_graph
    real = [ops.propagate(*given), *ops.propagate_backward(*given, grad)]
    promised = [ops.propagate(*map(bare, given)), *ops.propagate_backward(*map(bare, (*given, grad)))]
    for result, fake, like in zip(real, promised, [given[4].contiguous(), *given[2:-1]], strict=True):
        assert result.device == like.device
        assert fake.is_meta
        for found in (result, fake):
            assert (found.shape, found.stride(), found.dtype) == (like.shape, like.stride(), like.dtype)


def test_no_signature_has_ten_positional_arguments():
    """But for kernels, whose arguments are those of a launch."""
    long = []
    for folder in ("ops", "line_dag"):
        for path in (Path(plstm_graph.__file__).parent / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef) and len(node.args.posonlyargs + node.args.args) > 9:
                    kernel = any("triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list)
                    long += [] if kernel else [f"{path.name}: {node.name}"]
    assert long == []
