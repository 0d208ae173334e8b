"""Layers that are called with the same ``edge_index`` share its line graph.

A line graph is handed out again only for the very numbers that it was built from: they are compared, all of them, each
time. No mark of a tensor is trusted (its version, its memory), since there is a way round each of them. On a GPU the
comparison waits for it, which takes some ten microseconds where building takes a millisecond.
"""

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plstm_graph.errors import ConfigError
from plstm_graph.line_dag.dag import LineDAG
from plstm_graph.line_dag.derived import to_keep
from plstm_graph.line_dag.pairs import on_the_host
from plstm_graph.orient import bare

_limit = 4


class _Kept(NamedTuple):
    """A line graph, and what it was built from: by what names, and the numbers of ``edge_index`` and ``batch``."""

    key: tuple[Any, ...]
    numbers: list[Tensor]
    dag: LineDAG
    owner: "weakref.ref[Any]"


_kept: dict[tuple[Any, ...], _Kept] = {}
"""By the number of its owner and its key, in the order of use."""


def share_line_graphs(limit: int) -> None:
    """How many line graphs layers keep for other layers that are called with the same ``edge_index``; 0: none.

    It begins with 4. Each is dropped together with the ``edge_index`` that it was built from, or when others have
    been used since; beside itself it takes a copy of that.

    Example:
        >>> share_line_graphs(0)  # every layer builds its own
        >>> share_line_graphs(4)
    """
    global _limit
    if limit < 0:
        raise ConfigError(f"the number of line graphs to keep must be 0 or more, got {limit}")
    _limit = limit
    _drop_old()


@on_the_host
@to_keep()
def shared(
    edge_index: Tensor,
    num_nodes: int,
    order: str | Tensor = "index",
    batch: Tensor | None = None,
    owner: Any = None,
) -> LineDAG:
    """The line graph of a graph, see :meth:`LineDAG.from_edge_index`, perhaps one that is there already.

    Args:
        edge_index, num_nodes, order, batch: as there.
        owner: what the line graph lives no longer than, if not ``edge_index`` itself.
    """
    owner = edge_index if owner is None else owner
    numbers = [bare(x) for x in (edge_index, batch) if x is not None]
    if not (_limit and isinstance(order, str) and all(map(_plain, numbers))):
        return LineDAG.from_edge_index(edge_index, num_nodes, order=order, batch=batch)
    key = (num_nodes, order, _stream(edge_index), *((x.shape, x.dtype, x.device) for x in numbers))
    for name in list(_kept):
        found = _kept.get(name)  # it may have gone meanwhile
        if found is not None and found.key == key and all(map(torch.equal, found.numbers, numbers)):
            _kept.pop(name, None)
            _kept[name] = found  # used last
            return found.dag
    dag = LineDAG.from_edge_index(edge_index, num_nodes, order=order, batch=batch)
    name = id(owner), *key
    copies = [x.detach().clone() for x in numbers]
    _kept.pop(name, None)
    _kept[name] = _Kept(key, copies, dag, weakref.ref(owner, lambda gone: _forget(name, gone)))
    _drop_old()
    return dag


def _plain(tensor: Any) -> bool:
    """Whether numbers can be read and compared here and now."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type in ("cpu", "cuda")
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and not torch.jit.is_tracing()
        and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def _stream(tensor: Tensor) -> int:
    """Kernels of another stream would not wait for those that built a line graph."""
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else 0


def _forget(name: tuple[Any, ...], owner: "weakref.ref[Any]") -> None:
    """Unless another one has come to have that number."""
    found = _kept.get(name)
    if found is not None and found.owner is owner:
        _kept.pop(name, None)


def _drop_old() -> None:
    names = list(_kept)
    for name in names[: max(len(names) - _limit, 0)]:
        _kept.pop(name, None)
