"""Passes of a model as CUDA graphs: all kernels of a training step, forward and backward, started in two calls.

A step on some hundred molecules is a thousand kernels of a few microseconds, each of which takes the host longer to
start than the GPU to run. A CUDA graph starts them at once, on tensors that always lie in the same places: so batches
are filled up to one size (``data/filling.py``) and copied there.
"""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from plstm_graph.data.examples import Arrays
from plstm_graph.errors import PLSTMGraphError, ShapeError, first_line
from plstm_graph.line_dag import LineDAG
from plstm_graph.nn.counted import counted
from plstm_graph.transforms import line_dag


class Captured:
    """A model in training whose passes over filled batches are CUDA graphs, recorded at the first such batch.

    The numbers are those of the model itself, within rounding. Parameters get their gradients as ever, but the backward
    pass writes them where it wrote the last ones: ``zero_grad(set_to_none=True)``, the default, comes before each. The
    output, too, lies where the next one will. What was recorded stays: autocast, dropout, which weights are trained,
    and the device and dtype of the model.

    Args:
        model: maps a batch of G graphs to [G, outputs] and asks the GPU for nothing; in training, on one GPU.
            ``GraphModel`` does so on backend ``triton`` with a local GINEConv, ResGatedGraphConv, GatedEdges or none.

    Raises:
        ShapeError: filled batches of other sizes than the first one's.

    Example (on a GPU)::

        packed = PackedGraphs.from_data_list(graphs).to("cuda").with_filler(512)
        captured = Captured(model)
        for part in torch.randperm(len(packed)).split(512):
            batch = packed.batch(part, filled=True)
            output = captured(batch)
            optimizer.zero_grad()
            loss(output, batch.y[: len(output)]).backward()
            optimizer.step()
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._run: Callable[..., Tensor] | None = None
        self._made_for: tuple[torch.Size, torch.dtype, torch.device] | None = None
        self._inputs: dict[torch.dtype, list[Tensor]] = {}

    def __call__(self, batch: Batch | Arrays) -> Tensor:
        """Output of a filled batch without its filler, [graphs, outputs]; of any other as the model gives it.

        Batches of arrays (images) need no filler: those of the first one's shape and dtype are captured."""
        if isinstance(batch, Arrays):
            return self._of_arrays(batch)
        if not batch.get("filled"):
            return self.model(batch)
        if not self.model.training:
            return self.model(batch)[: batch.examples]
        if "line_dag" in batch:  # here, since a recorded pass no longer asks whether the two belong together
            line_dag(batch)
        if self._run is None:
            self._run = self._capture(batch)
        here = _tensors(batch)
        if _shapes(here) != _shapes(self._inputs):
            raise ShapeError(
                "a filled batch of another size than the first: each with_filler() needs a Captured of its own"
            )
        for dtype, tensors in here.items():  # one kernel each
            torch._foreach_copy_(self._inputs[dtype], tensors)
        output: Tensor = self._run()
        return output if len(output) == batch.examples else output[: batch.examples]

    def _of_arrays(self, batch: Arrays) -> Tensor:
        if not self.model.training:
            return self.model(batch)
        if self._run is None:
            self._run = self._recorded(_OfArrays(self.model, batch.y), (batch.x.clone(),), batch.x.device)
            self._made_for = _kind(batch.x)
        run: Callable[..., Tensor] = self._run
        if _kind(batch.x) == self._made_for:
            return run(batch.x)
        with torch.compiler.set_stance("force_eager"):  # compiled code of another shape would take a minute to make
            return self.model(batch)

    def _capture(self, batch: Batch) -> Callable[[], Tensor]:
        batch = _changed(batch, Tensor.clone)
        self._inputs = _tensors(batch)
        passes = _Passes(self.model, batch)
        run = self._recorded(passes, (), batch.batch.device)
        passes.let_go()
        return run

    def _recorded(self, passes: nn.Module, inputs: tuple[Tensor, ...], device: torch.device) -> Callable[..., Tensor]:
        """The graph, recorded after three passes that leave no trace: neither in buffers nor in random numbers."""
        kind = device.type
        before = [buffer.clone() for buffer in self.model.buffers()]
        with (
            torch.random.fork_rng([device] if kind == "cuda" else []),
            torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False),
        ):
            run: Any = torch.cuda.make_graphed_callables(passes, inputs, allow_unused_input=True)
        with torch.no_grad():
            for buffer, old in zip(self.model.buffers(), before, strict=True):
                buffer.copy_(old)
        return run


class _OfArrays(nn.Module):
    """A model of one tensor."""

    def __init__(self, model: nn.Module, y: Tensor) -> None:
        super().__init__()
        self.model, self.y = model, y

    def forward(self, x: Tensor) -> Tensor:
        """[n, outputs]"""
        return self.model(Arrays(x, self.y))


class _Passes(nn.Module):
    """A model on a filled batch, whatever its tensors hold."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.model, self.batch = model, batch
        self.output = torch.empty(0)

    def let_go(self) -> None:
        """Drop autograd's graph of the last pass, which ties parameters to the stream that it ran on."""
        self.output.detach_()

    def forward(self) -> Tensor:
        """[graphs, outputs]"""
        self.let_go()
        batch = _changed(self.batch, lambda tensor: tensor)  # what it makes of itself once must be made each time
        self.output = of_filled(self.model, batch).clone()
        return self.output


def of_filled(model: nn.Module, batch: Batch) -> Tensor:
    """Output of a model in training for a filled batch; nothing on the host depends on which graphs are in it.

    Returns:
        [graphs, outputs] without the filler. Rows from ``batch.own`` on are of graphs that fill it up and mean nothing.
    """
    most = batch.num_graphs - 1
    nodes = batch.batch < most
    graphs = torch.arange(most + 1, device=nodes.device) < batch.own
    with counted(model, nodes=nodes, columns=nodes[batch.edge_index[0]], graphs=graphs):
        return model(batch)[:most]


class NotRecorded(PLSTMGraphError):
    """What was to be a CUDA graph is not one."""


WARM = 3
"""Calls before a recording, in which libraries take the memory that they need."""


def recorded(parts: Sequence[Callable[[], None]], device: torch.device) -> list[Callable[[], None]]:
    """Functions as CUDA graphs, which do the same to the same tensors. They are called for it, one after the other.

    Args:
        parts: ask the GPU for nothing, and make what they leave behind in tensors that are there before.

    Raises:
        NotRecorded: one does ask, or sends something.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM):
            for part in parts:
                part()
    torch.cuda.current_stream(device).wait_stream(stream)
    found: list[Callable[[], None]] = []
    for part in parts:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may ask the GPU for what they like: NCCL's looks after its own work.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                part()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # PyTorch's random numbers would wait for ever for the end of this recording.
            torch.cuda.default_generators[stream.device.index].graphsafe_set_state(torch.Generator(device))
            raise NotRecorded(f"it cannot be recorded: {first_line(error)}") from error
        found.append(graph.replay)
    return found


def _kind(x: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return x.shape, x.dtype, x.device


def _tensors(batch: Batch) -> dict[torch.dtype, list[Tensor]]:
    """All tensors of a batch and of its line graph that are on its device, in an order of their own."""
    found: dict[torch.dtype, list[Tensor]] = {}

    def note(tensor: Tensor) -> Tensor:
        found.setdefault(tensor.dtype, []).append(tensor)
        return tensor

    _changed(batch, note)
    return found


def _shapes(tensors: dict[torch.dtype, list[Tensor]]) -> dict[torch.dtype, list[torch.Size]]:
    return {dtype: [tensor.shape for tensor in some] for dtype, some in tensors.items()}


def _changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """A batch with other tensors in place of those on its device."""
    device, other = batch.batch.device, copy(batch)

    def here(tensor: Tensor) -> Tensor:
        return change(tensor) if tensor.device == device else tensor

    for key, value in batch.to_dict().items():
        if isinstance(value, Tensor):
            other[key] = here(value)
        elif isinstance(value, LineDAG):
            other[key] = value.bare().apply(here)
    if "line_dag" in batch:
        other._store.line_dag.made_for(other.edge_index, other.get("rank"))
    return other
