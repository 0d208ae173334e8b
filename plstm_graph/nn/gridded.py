"""What layers of images and of sequences have in common: projections, gates as the paper begins them, norm and bias."""

import torch
from torch import Tensor, nn

from plstm_graph.errors import ConfigError, ShapeError, unknown
from plstm_graph.gates import activate_source, activate_transition, check_transition, initial_gate_bias
from plstm_graph.grid.tracking import bounded
from plstm_graph.nn.checked import check_dtype, width_read
from plstm_graph.nn.dropin import check_widths
from plstm_graph.nn.linear import NodeLinear
from plstm_graph.nn.norm import NORM_EPS, MultiHeadRMSNorm

# Pöppel et al. 2025, table 5 and appendix E: a transition is tanh(5 · 1) = .9999 at first.
TRANSITION_SCALE = 5.0
TRANSITION_BIAS = 1.0
ANGLE_BIAS = (-2.0, 2.0)
"""First and last head's bias of the share that goes to the right."""
ANGLE_SCALE = 0.5
"""What the mean product of an angle's weights and the channels is multiplied by, where gates read slices."""
GATE_INPUTS = ("all", "slices", "none")


class GridLayer(nn.Module):
    """Queries, keys, values and terms of the gates as one product; norm of each head, heads together, bias."""

    directions: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int,
        concat: bool,
        key_channels: int | None,
        bias: bool,
        states: int,
        transition: str,
        gate_inputs: str,
        parts: dict[str, int],
    ) -> None:
        """``parts``: how many numbers of each kind of gate there are, for each direction and head."""
        keys = out_channels if key_channels is None else key_channels
        check_widths(heads=heads, out_channels=out_channels, key_channels=keys, states=states)
        check_transition(transition)
        if gate_inputs not in GATE_INPUTS:
            raise ConfigError(unknown("gate inputs", gate_inputs, GATE_INPUTS))
        super().__init__()
        self.in_channels, self.out_channels, self.heads, self.concat = in_channels, out_channels, heads, concat
        self.states, self.transition, self.parts = states, transition, parts
        self.key_channels = keys
        self.terms = sum(parts.values())
        # One direct term a head, whatever the directions.
        gates = heads * (self.directions * self.terms + 1) if gate_inputs == "all" else 0
        self.lin = NodeLinear(in_channels, heads * (2 * self.key_channels + out_channels), gates, bias)
        self.slices = GateSlices(in_channels, self.directions, heads, parts) if gate_inputs == "slices" else None
        self.gate_bias = nn.Parameter(torch.empty(self.directions, heads, self.terms))
        self.direct_bias = nn.Parameter(torch.empty(heads))
        # Dividing queries by √K and normalising the outputs is normalising with a K times larger eps.
        self.norm = MultiHeadRMSNorm(heads, out_channels, eps=NORM_EPS * self.key_channels)
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels * (heads if concat else 1)))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Projections as in PLSTMConv, gates from the paper's table 5."""
        self.lin.reset_parameters()
        self.norm.reset_parameters()
        if self.slices is not None:
            self.slices.reset_parameters()
        with torch.no_grad():
            biases = dict(zip(self.parts, self.gate_bias.split(list(self.parts.values()), -1), strict=True))
            start = initial_gate_bias(self.heads, self.transition)
            if self.transition == "tanh":
                start[1] = TRANSITION_BIAS
            source, transition, mark, direct = start.unsqueeze(-1)
            biases["source"].copy_(source.expand_as(biases["source"]))
            biases["mark"].copy_(mark.expand_as(biases["mark"]))
            biases["transition"].zero_()  # rotations begin as none
            values = biases["transition"].unflatten(-1, (-1, self.states**2))[..., : self.states]
            values.copy_(transition.unsqueeze(-1).expand_as(values))
            self.direct_bias.copy_(direct.squeeze(-1))
            if "angle" in biases:
                low, high = ANGLE_BIAS
                spread = torch.linspace(low, high, self.heads) if self.heads > 1 else torch.zeros(1)
                biases["angle"].copy_(spread.unsqueeze(-1).expand_as(biases["angle"]))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _project(self, x: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Tensor], Tensor]:
        """Queries, keys and values [B, H, .., width]; raw gates [B, directions, H, .., numbers]; direct [B, H, ..]."""
        projected, terms = self.lin(x)
        widths = [self.key_channels, self.key_channels, self.out_channels]
        query, key, value = projected.unflatten(-1, (self.heads, -1)).movedim(-2, 1).split(widths, -1)
        read = terms.split([terms.size(-1) - self.heads, self.heads], -1) if terms.size(-1) else (None, None)
        terms, direct = (read[0] if self.slices is None else self.slices(x)), read[1]
        raw, direct = _biased(terms, self.gate_bias, x), _biased(direct, self.direct_bias, x)
        parts = raw.movedim(-3, 1).movedim(-2, 2).split(list(self.parts.values()), -1)
        direct = direct.sigmoid().movedim(-1, 1)
        return (query, key, value), dict(zip(self.parts, parts, strict=True)), direct

    def _transitions(self, raw: Tensor) -> list[Tensor]:
        """Each transition of a place: [.., many · J²] -> [..] each, or [.., J, J]."""
        j = self.states
        each = raw.unflatten(-1, (-1, j * j))
        scale = TRANSITION_SCALE if self.transition == "tanh" else 1.0
        values = activate_transition(scale * each[..., :j], self.transition)
        if j == 1:
            return list(values.squeeze(-1).unbind(-1))
        left, right = each[..., j:].chunk(2, -1)
        return list(bounded(values, left, right).unbind(-3))

    def _sources_and_marks(self, raw: dict[str, Tensor], kinds: int = 1) -> list[Tensor]:
        """[.., kinds · J] each -> [.., kinds, J] each, axes of length 1 left out."""
        found = []
        for gate in (activate_source(raw["source"], self.transition), raw["mark"].sigmoid()):
            gate = gate.unflatten(-1, (kinds, self.states)) if kinds > 1 else gate
            found.append(gate if self.states > 1 else gate.squeeze(-1))
        return found

    def _together(self, y: Tensor) -> Tensor:
        """[B, H, .., V] -> [B, .., H · V], or [B, .., V] without ``concat``."""
        out = self.norm(y.movedim(1, -2))
        out = out.flatten(-2) if self.concat else out.mean(-2)
        return out if self.bias is None else out + self.bias

    def _check(self, x: Tensor, places: str) -> None:
        axes, channels = 2 + len(places.split()), width_read(self.lin, self.in_channels)
        if not isinstance(x, Tensor):
            raise ShapeError(f"x must be a tensor [B, {places}, {channels}], got {type(x).__name__}")
        if x.dim() != axes or x.size(-1) != channels != -1 or not x.is_floating_point():
            wanted = f"floating point, [B, {places}, {channels}]"
            raise ShapeError(f"x must be {wanted}, got {x.dtype}, {list(x.shape)}; channels stand last")
        check_dtype("x", x, self.lin)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"


class GateSlices(nn.Module):
    """Terms of the gates of Pöppel et al. 2025's vision layer: each direction and head reads a slice of its own.

    The angle alone reads all channels. All weights are zero at first: gates begin as their biases.

    Args:
        in_channels: width of the features, a multiple of directions times heads.
        directions, heads: of the layer.
        parts: how many numbers of each kind of gate there are, the angle the last of them.

    Shapes: [.., in_channels] -> [.., directions · heads · terms].
    """

    def __init__(self, in_channels: int, directions: int, heads: int, parts: dict[str, int]) -> None:
        super().__init__()
        gates = directions * heads
        if in_channels % gates or in_channels < 1:
            raise ConfigError(
                f"with gate_inputs='slices' in_channels (the width) must be a multiple of {gates}, {directions} "
                f"directions x {heads} heads, got {in_channels}; or let gates read all channels: gate_inputs='all'"
            )
        terms = sum(count for kind, count in parts.items() if kind != "angle")
        self.weight = nn.Parameter(torch.empty(gates, terms, in_channels // gates))
        self.angle: nn.Parameter | None = None
        if "angle" in parts:
            self.angle = nn.Parameter(torch.empty(gates, 1, in_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All zero."""
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """[.., in_channels] -> [.., directions · heads · terms], as one product."""
        gates, terms, _ = self.weight.shape
        apart = torch.eye(gates, dtype=self.weight.dtype, device=self.weight.device).view(gates, 1, gates, 1)
        weight = (self.weight.unsqueeze(2) * apart).view(gates, terms, -1)
        if self.angle is not None:
            weight = torch.cat([weight, self.angle * (ANGLE_SCALE / self.angle.size(-1))], 1)
        return nn.functional.linear(x, weight.flatten(0, 1))


def _biased(terms: Tensor | None, bias: Tensor, x: Tensor) -> Tensor:
    """Terms of the gates [.., n] and their bias (n numbers of any shape) as [.., *bias], in float32 at least."""
    if terms is None:
        return bias.expand(*x.shape[:-1], *bias.shape)
    terms = terms.float() if terms.dtype in (torch.float16, torch.bfloat16) else terms
    return terms.unflatten(-1, bias.shape) + bias
