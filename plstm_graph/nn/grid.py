"""Layers of regular grids: PLSTMImage in two dimensions, PLSTMChain in one."""

import torch
from torch import Tensor

from plstm_graph.errors import ConfigError
from plstm_graph.grid import (
    CHAIN_FORMS,
    FORMS,
    ChainGates,
    GridGates,
    chain,
    d_gates,
    general_gates,
    image,
    p_code_gates,
    p_gates,
)
from plstm_graph.grid.dispatch import check_form
from plstm_graph.grid.gates import D_LEFT, GENERAL, P, check_mode
from plstm_graph.nn.gridded import GridLayer

P_CODE = "P-code"
P_MODES = {P: p_gates, P_CODE: p_code_gates}


class PLSTMImage(GridLayer):
    r"""The pLSTM layer for images: every pixel reads every other one along grid paths in four directions.

    .. math::
        a_{i,j+1} = t^{RR} a_{ij} + t^{RD} b_{ij} + s^R k_{ij} \otimes v_{ij}, \quad
        b_{i+1,j} = t^{DR} a_{ij} + t^{DD} b_{ij} + s^D k_{ij} \otimes v_{ij}, \quad
        y_{ij} = q_{ij}^\top (m^R a_{ij} + m^D b_{ij})

    and the same on the flipped image for the directions left-down, right-up and left-up, each with gates of its own;
    the four outputs and :math:`d_{ij} (q_{ij} \cdot k_{ij}) v_{ij}` are added. Queries, keys and values are linear maps
    of the features. Source :math:`s`, mark :math:`m` and direct :math:`d` are sigmoids, transitions tanh(5 ·) of linear
    maps. Each head is RMS-normalised, then heads are concatenated or averaged.

    Args:
        in_channels: width of the features; -1 to read it off the first input.
        out_channels: V, width of a head.
        heads: H.
        concat: concatenate the heads (H · V outputs) or average them (V outputs).
        mode: ``"P"`` (propagation: transitions :math:`\gamma \bigl[\begin{smallmatrix}\alpha & \alpha \\ 1-\alpha &
            1-\alpha\end{smallmatrix}\bigr]`, eq. 10), ``"D"`` (distribution: one of the two turns is closed;
            ``"D-left"``, which it stands for, or ``"D-right"``, see :class:`GridGates`) or ``"general"`` (four free
            transitions, normalised as eq. 9). ``"P-code"`` is P mode as the authors' code has it, for comparison, see
            :func:`plstm_graph.grid.p_code_gates`.
        key_channels: K, width of queries and keys; default ``out_channels``.
        bias: biases of the projections and of the output (gates always have theirs).
        form: see :func:`plstm_graph.grid.image`.
        states: J, states of an edge; from 2 on transitions are J x J matrices of norm at most 1 (state tracking, B.5).
        transition: ``"tanh"``, or ``"saturating"`` for one that can be exactly 1 and sources that can be 0 (as in
            :class:`PLSTMConv`).
        gate_inputs: what gates read: ``"all"`` channels; ``"slices"``, each direction and head channels of its own, as
            in the paper's vision models (see :class:`GateSlices`); or ``"none"``: they are biases alone.

    Shapes:
        - **input:** [B, Y, X, in_channels], any height and width
        - **output:** [B, Y, X, H · out_channels], or [B, Y, X, out_channels] without ``concat``

    Raises:
        ConfigError: an unknown mode, form or transition.
        ShapeError: features of another shape.

    Reference: Pöppel et al. 2025, "pLSTM: parallelizable Linear Source Transition Mark networks", eqs 5, 6 and 10,
    appendix B. Unlike the authors' code P mode has its decay.

    Example:
        >>> layer = PLSTMImage(16, 8, heads=4, mode="D")
        >>> layer(torch.randn(2, 5, 7, 16)).shape
        torch.Size([2, 5, 7, 32])
    """

    directions = 4

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        mode: str = P,
        key_channels: int | None = None,
        bias: bool = True,
        form: str = "auto",
        states: int = 1,
        transition: str = "tanh",
        gate_inputs: str = "all",
    ) -> None:
        check_mode(mode, more=("D", P_CODE))
        mode = D_LEFT if mode == "D" else mode
        check_form(form, FORMS)
        kinds, matrices = (1, 1) if mode in P_MODES else (2, 4 if mode == GENERAL else 3)
        parts = {"source": kinds * states, "mark": kinds * states, "transition": matrices * states**2}
        parts |= {"angle": 1} if mode in P_MODES else {}
        super().__init__(
            in_channels, out_channels, heads, concat, key_channels, bias, states, transition, gate_inputs, parts
        )
        self.mode, self.form = mode, form
        self.sent: Tensor | None = None
        """For explanations: what each pixel sends in each direction is multiplied by this, [B, 4, Y, X]."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, Y, X, in_channels] -> [B, Y, X, H · out_channels]"""
        self._check(x, "Y, X")
        vectors, raw, direct = self._project(x)
        gates = self._gates(raw, direct)
        if self.sent is not None:
            sent = self.sent.unsqueeze(2)
            gates = gates._replace(source=gates.source * sent.view(*sent.shape, *[1] * (gates.source.dim() - 5)))
        return self._together(image(*vectors, gates, form=self.form))

    def _gates(self, raw: dict[str, Tensor], direct: Tensor) -> GridGates:
        kinds = 1 if self.mode in P_MODES else 2
        source, mark = self._sources_and_marks(raw, kinds)
        transitions = self._transitions(raw["transition"])
        if self.mode in P_MODES:
            return P_MODES[self.mode](source, raw["angle"].squeeze(-1).sigmoid(), transitions[0], mark, direct)
        if self.mode == GENERAL:
            return general_gates(source, torch.stack(transitions, 5).unflatten(5, (2, 2)), mark, direct)
        right, turn, down = transitions
        return d_gates(source, right, turn, down, mark, direct, self.mode)


class PLSTMChain(GridLayer):
    r"""The pLSTM layer for sequences: every token reads all tokens before it, in linear time.

    .. math::
        C_{n+1} = t_n C_n + s_n \, k_n \otimes v_n, \qquad y_n = m_n \, q_n^\top C_n + d_n \, (q_n \cdot k_n) \, v_n

    Queries, keys and values are linear maps of the features; source :math:`s`, mark :math:`m` and direct :math:`d` are
    sigmoids and the transition :math:`t` tanh(5 ·) of linear maps. Each head is RMS-normalised, then heads are
    concatenated or averaged.

    Args:
        in_channels: width of the features; -1 to read it off the first input.
        out_channels: V, width of a head.
        heads: H.
        concat: concatenate the heads (H · V outputs) or average them (V outputs).
        reverse: read from the last token to the first. One layer reads one direction; use two for both.
        key_channels: K, width of queries and keys; default ``out_channels``.
        bias: biases of the projections and of the output (gates always have theirs).
        form: see :func:`plstm_graph.grid.chain`.
        states: J, states of an edge; from 2 on transitions are J x J matrices of norm at most 1 (state tracking, B.5).
        transition: ``"tanh"``, or ``"saturating"`` for one that can be exactly 1 and sources that can be 0 (as in
            :class:`PLSTMConv`).
        gate_inputs: what gates read, as for :class:`PLSTMImage`.

    Shapes:
        - **input:** [B, n, in_channels], any length
        - **output:** [B, n, H · out_channels], or [B, n, out_channels] without ``concat``

    Raises:
        ConfigError: an unknown form or transition.
        ShapeError: features of another shape.

    Reference: Pöppel et al. 2025, "pLSTM: parallelizable Linear Source Transition Mark networks", section 2.

    Example:
        >>> layer = PLSTMChain(16, 8, heads=4)
        >>> x = torch.randn(2, 100, 16)
        >>> layer(x).shape
        torch.Size([2, 100, 32])
        >>> first, state = layer.step(x[:, :60])  # piece by piece, the same
        >>> rest, state = layer.step(x[:, 60:], state)
        >>> torch.allclose(torch.cat([first, rest], 1), layer(x), atol=1e-4)
        True
    """

    directions = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        reverse: bool = False,
        key_channels: int | None = None,
        bias: bool = True,
        form: str = "auto",
        states: int = 1,
        transition: str = "tanh",
        gate_inputs: str = "all",
    ) -> None:
        check_form(form, CHAIN_FORMS)
        parts = {"source": states, "mark": states, "transition": states**2}
        super().__init__(
            in_channels, out_channels, heads, concat, key_channels, bias, states, transition, gate_inputs, parts
        )
        self.reverse, self.form = reverse, form

    def forward(self, x: Tensor) -> Tensor:
        """[B, n, in_channels] -> [B, n, H · out_channels]"""
        x = x.flip(1) if self.reverse else x
        output, _ = self._run(x, None)
        return output.flip(1) if self.reverse else output

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next tokens, one or many: [B, n, in_channels] -> output [B, n, H · out_channels], and the state behind.

        Raises:
            ConfigError: the layer reads from the end.
        """
        if self.reverse:
            raise ConfigError("a layer with reverse=True begins with the last token: call it on whole sequences")
        return self._run(x, state)

    def _run(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        self._check(x, "n")
        vectors, raw, direct = self._project(x)
        raw = {name: each.squeeze(1) for name, each in raw.items()}  # one direction
        source, mark = self._sources_and_marks(raw)
        transition = self._transitions(raw["transition"])[0]
        gates = ChainGates(source, transition, mark, direct)
        output, state = chain(*vectors, gates, form=self.form, state=state)
        return self._together(output), state
