"""The operator by kernels, in one go and step by step."""

import hashlib
from functools import cache
from pathlib import Path

import torch
import triton
from torch import Tensor

from plstm_graph import launch
from plstm_graph.gates import Gates
from plstm_graph.launch import INTERPRETED
from plstm_graph.line_dag.plan import LargeNode, Plan
from plstm_graph.ops import selftest
from plstm_graph.ops.flat import GRADIENTS, Norm, Setting, places
from plstm_graph.ops.triton.call import Call, Ends, Layout
from plstm_graph.ops.triton.norm import backward_norm, forward_norm, norm_parts

TRIED = (9,)
"""Major compute capabilities that all tests have been run on; others get a short one on first use."""
OLDEST = 8
"""The first one whose tensor cores take the products of the kernels."""


def runs_here(device: torch.device) -> str | None:
    """Reason why the kernels cannot run for tensors on ``device``, or None."""
    if INTERPRETED and device.type == "cpu":
        return None
    return _why_not(device)


def tried_on(device: torch.device) -> bool:
    """Tell whether the kernels have been run on such a device, or pass a test of themselves there."""
    if INTERPRETED and device.type == "cpu":
        return True
    if device.type != "cuda":
        return False
    return _capability(device)[0] in TRIED or not selftest.failure("triton", device, lambda: _facts(device))


def _facts(device: torch.device) -> dict[str, str]:
    """All that decides how kernels run."""
    paths = Path(launch.__file__), *sorted(Path(__file__).parent.glob("*.py"))
    return {
        "device": torch.cuda.get_device_name(device),
        "capability": ".".join(map(str, _capability(device))),
        "driver": str(torch._C._cuda_getDriverVersion()),  # type: ignore[attr-defined]
        "torch": torch.__version__,
        "triton": triton.__version__,
        "kernels": hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest(),
    }


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@cache
def _why_not(device: torch.device) -> str | None:
    """Reason why the kernels cannot run on this GPU, or None."""
    if device.type == "cuda" and torch.version.hip is not None:
        return f"Triton's kernels are for NVIDIA GPUs, and this PyTorch is built for AMD's (ROCm {torch.version.hip})"
    if device.type != "cuda":
        return f"Triton's kernels are for NVIDIA GPUs, the tensors are on {device}"
    if tuple(int(x) for x in triton.__version__.split(".")[:2]) < (3, 3):
        return f"the kernels need Triton 3.3 or later (PyTorch 2.7), this is {triton.__version__}"
    major, minor = _capability(device)
    if major < OLDEST:
        return f"the kernels need compute capability {OLDEST}.0 or later (A100, RTX 30), {device} has {major}.{minor}"
    return None


def forward(query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool) -> tuple[Tensor, Call]:
    """Output of every node, [N, H, V] in the dtype of ``value``, and the call for the backward pass.

    Args:
        query, key: [N, H, K]; value: [N, H, V]. The last dimension is contiguous.
        gates: contiguous; float64 with float64 values, else float32 or half precision.
        plan: for ``served_classes(K, V)`` classes.
        reversed: read against the edges.
    """
    call = Call(Layout.apart(query, key, value), plan, reversed, gates.source)
    call.walk_along(gates)
    output = _room(plan, torch.empty(value.shape, dtype=value.dtype, device=value.device))
    call.attend((query, key, value), gates, output)
    return output, call


def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gates: Gates,
    plan: Plan,
    reversed: bool,
    grad: Tensor,
    call: Call | None = None,
) -> tuple[Tensor, ...]:
    """The seven gradients, of query, key and value strided as those are.

    Args:
        grad: of the output, contiguous.
        call: of the forward pass, which is used up. Without it, what it knows is found again: to the same bits.
    """
    if call is None:
        call = Call(Layout.apart(query, key, value), plan, reversed, gates.source)
        call.walk_along(gates)
    vectors = query, key, value
    d_vectors = tuple(_room(plan, _like(x)) for x in vectors)
    d_gates = Gates(*(_room(plan, torch.empty_like(gate)) for gate in gates))
    call.attend_back(vectors, gates, grad, d_vectors, d_gates)
    call.walk_back(gates, d_gates)
    return (*d_vectors, *d_gates)


def _room(plan: Plan, fresh: Tensor) -> Tensor:
    """A tensor that kernels are going to fill graph by graph: what belongs to no graph is zero."""
    return fresh.zero_() if plan.filled else fresh


def _like(x: Tensor) -> Tensor:
    """Room for a tensor of the same shape and strides; ``empty_like`` is faster, but closes gaps."""
    if x.is_contiguous():
        return torch.empty_like(x)
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


# The same step by step, for a layer as one: what needs nothing but gates apart from what needs vectors.


def walk_along(gates: Tensor, values: int, plan: Plan, setting: Setting) -> Call:
    """Do what of the forward pass needs nothing but gates, see :mod:`plstm_graph.ops.flat`."""
    call = Call(Layout.joined(setting.heads, setting.keys, values), plan, setting.reversed, gates)
    call.walk_along(call.gates(gates))
    return call


def attend(call: Call, joined: Tensor, lin_bias: Tensor | None, gates: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The rest of it: what the operator puts out, [N, H, V], and that after the norm. ``joined``: see Layout.joined.

    The kernels of attention do what stands at both ends, but where heads are averaged and at large graphs. What is done
    for a graph depends on the graph alone, whatever else is in its batch.
    """
    heads, _, values, _ = call.layout
    plan = call.plan
    y = _room(plan, torch.empty(joined.size(0), heads, values, dtype=joined.dtype, device=joined.device))
    vectors, four = call.layout.split(joined), call.gates(gates)
    if not norm.concat:
        if lin_bias is not None:
            joined.narrow(1, 0, lin_bias.numel()).add_(lin_bias)
        call.attend(vectors, four, y)
        return y, forward_norm(y, norm)
    output = _room(plan, torch.empty(y.size(0), heads * values, dtype=norm.dtype(y), device=y.device))
    large = call.large
    if large is not None and lin_bias is not None:  # the kernels for large graphs read ``joined`` as it is
        rows, width = large[:, LargeNode.NODE].long(), lin_bias.numel()
        joined[rows, :width] = (joined[rows, :width] + lin_bias).to(joined.dtype)
    call.attend(vectors, four, y, Ends(lin_bias, norm, output))
    if large is not None:
        forward_norm(y, norm, output, large)
    return y, output


def attend_back(
    call: Call, joined: Tensor, lin_bias: Tensor | None, gates: Tensor, y: Tensor, grad: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of ``joined`` but for the nodes' terms, the tensor for those of the gates, some of which are there, and
    parts of those of the norm, see :func:`backward_norm`."""
    plan = call.plan
    d_joined = _room(plan, torch.empty_like(joined))
    d_gates = _room(plan, gates.new_empty(places(plan, call.layout.heads)[GRADIENTS]))
    split = call.layout.split
    given, found = (split(joined), call.gates(gates)), (split(d_joined), call.gates(d_gates))
    d_y: Tensor | None = None
    if not norm.concat:
        d_y, parts = backward_norm(grad, y, norm)
        call.attend_back(*given, d_y, *found)
        return d_joined, d_gates, parts
    grad, large, rows = grad.contiguous(), call.large, call.sizes.programs_back
    more = 0 if large is None else norm_parts(large.size(0), *y.shape[1:])
    parts = gates.new_empty(rows + more, norm.weight.numel() * (1 if norm.bias is None else 2))
    if large is not None:
        d_y, _ = backward_norm(grad, y, norm, parts[rows:], large)
    call.attend_back(*given, d_y, *found, Ends(lin_bias, norm, grad, y, parts))
    return d_joined, d_gates, parts


def walk_back(call: Call, gates: Tensor, d_gates: Tensor) -> None:
    """The gradients of the gates that are not there yet."""
    call.walk_back(call.gates(gates), call.gates(d_gates))
