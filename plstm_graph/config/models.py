"""What shapes a model, as plain values: read and checked without torch."""

from dataclasses import dataclass
from typing import Any

from plstm_graph.errors import ConfigError, unknown

RENAMED = {"walks": "rwse", "eigenvectors": "lap_pe", "bonds": "edge_features", "bond_values": "edge_values"}
"""Fields by the name that earlier configs have: read where they are stored, refused where they are asked for."""
FINGERPRINTS = ("morgan", "morgan-features", "maccs", "atom-pairs", "torsions")
"""Of molecules, as rdkit makes them: Morgan's of atoms (ECFP) or of their roles (FCFP), MACCS keys, pairs of atoms with
their distance, topological torsions."""


def check_fingerprint(kind: str, counts: bool) -> None:
    """Raise ConfigError unless rdkit makes such a fingerprint."""
    if kind not in FINGERPRINTS:
        raise ConfigError(unknown("fingerprint", kind, FINGERPRINTS))
    if kind == "maccs" and counts:
        raise ConfigError("MACCS keys say whether, not how often; leave counts out, or choose another fingerprint")


@dataclass(frozen=True)
class AnyConfig:
    """What every model's config has; plain values, so that it fits a command line and a checkpoint.

    Args:
        model: name of the architecture, a key of :data:`plstm_graph.config.architectures.MODELS`.
    """

    model: str = ""

    def _check(self, lowest: dict[str, Any]) -> None:
        """Raise ConfigError unless each number is at least so much."""
        for name, low in lowest.items():
            if not getattr(self, name) >= low:  # nor NaN
                raise ConfigError(f"model.{name} must be at least {low} (got {getattr(self, name)})")


@dataclass(frozen=True)
class ForestConfig(AnyConfig):
    """A fingerprint and its random forest, see :mod:`plstm_graph.models.forest`.

    Args:
        trees: of each forest.
        fingerprint: one of :data:`FINGERPRINTS`.
        radius: of Morgan's; others have none.
        bits: of the fingerprint; the MACCS keys are 167.
        counts: how often each environment occurs, instead of whether it does.
        max_features: share of the bits among which a split chooses, above 0 and up to 1, as in scikit-learn; its usual
            ones when not given: the square root of their number for classes, all for quantities.
        min_samples_leaf: molecules that a leaf has at least.
        entropy: splits of classes lower the entropy, instead of Gini's impurity.

    Raises:
        ConfigError: a number out of range, a fingerprint that rdkit does not make.
    """

    model: str = "fingerprint"
    trees: int = 500
    radius: int = 2
    bits: int = 2048
    counts: bool = False
    fingerprint: str = "morgan"
    max_features: float | None = None
    min_samples_leaf: int = 1
    entropy: bool = False

    def __post_init__(self) -> None:
        self._check({"trees": 1, "bits": 1, "radius": 0, "min_samples_leaf": 1})
        check_fingerprint(self.fingerprint, self.counts)
        if self.max_features is not None and not 0 < self.max_features <= 1:
            raise ConfigError(f"model.max_features must be above 0 and at most 1 (got {self.max_features})")


@dataclass(frozen=True)
class VisionConfig(AnyConfig):
    """A network of images, see :mod:`plstm_graph.models.vision`.

    Args:
        model: ``"plstm-vision"``, ``"vit"``, ``"cnn"`` (reads width and layers alone) or ``"efficientnet"`` (reads
            nothing else).
        size: width and heads: ``"tiny"``, ``"small"`` or ``"base"``.
        width, heads: instead of those of the size; 0 for those.
        layers: blocks; of 0, a baseline, patches are read as they are.
        patch_size: side of a patch.
        position: of the patches: ``"learned"`` or ``"none"``.
        read_out: ``"corners"`` or ``"mean"`` over the patches.
        modes, chirality, p_mode: of the blocks of pLSTM, see :class:`plstm_graph.PLSTMVision`.
        gate_inputs, transition: of its layers, see :class:`plstm_graph.PLSTMImage`.

    Raises:
        ConfigError: a number out of range.
    """

    model: str = "plstm-vision"
    size: str = "tiny"
    width: int = 0
    heads: int = 0
    layers: int = 12
    patch_size: int = 16
    position: str = "learned"
    read_out: str = "corners"
    modes: str = "PD"
    chirality: str = "alternating"
    p_mode: str = "P"
    gate_inputs: str = "slices"
    transition: str = "tanh"

    def __post_init__(self) -> None:
        self._check({"width": 0, "heads": 0, "layers": 0, "patch_size": 1})


@dataclass(frozen=True)
class ModelConfig(AnyConfig):
    """Everything that shapes a network of graphs.

    Args:
        model: ``"plstm"`` or one of the baselines.
        width, layers, heads, norm, expansion, dropout: of the stack; ``heads`` where the layer has some. Of 0 layers,
            a baseline, every node is read alone; ``"gin"`` and ``"dmpnn"`` have one at least.
        modes, directions, transition, output_norm, open_gates, source_bias, order: as for :class:`plstm_graph.PLSTM`.
            With order ``"random"`` every epoch of a training draws orientations anew.
        local: local branch of pLSTM, a name in :data:`plstm_graph.nn.onehop.LOCALS`.
        output_gate: as for :class:`plstm_graph.PLSTM`.
        pooling: over the nodes of a graph, names in :data:`plstm_graph.models.graph.POOLINGS` joined by ``+``.
        jk: jumping knowledge: read the ``"last"`` block, or with ``"cat"`` all of them; some baselines refuse it.
        edge_readout: read the answer off the edges, too: a mean over them is joined to the pooling.
        rwse: steps of the random-walk encoding, 0 for none.
        lap_pe: eigenvectors of the Laplacian as encoding, 0 for none; their signs are flipped at random in training.
        degrees: add the sinusoidal degree encoding.
        rings: read the sizes of the smallest rings of nodes and edges.
        edge_features: read them.
        both_ways: networks that read edges as they are stored read each against its direction, too, and are told which
            is which: for native DAGs.
        edge_values: let edge features reach pLSTM's values, not only its gates.
        virtual_node: as for :class:`plstm_graph.PLSTM`; some baselines refuse it.
        head_layers: layers of the perceptron behind the pooling.
        head_norm: norm of its hidden layers, as ``norm``. Means of large graphs hardly differ, and a head that does not
            spread them (``"batch"``) learns slowly.
        backend: of the operator.
        test_orientations: with order ``"random"``, orientations over which a prediction is averaged.

    Raises:
        ConfigError: a number out of range.
    """

    model: str = "plstm"
    width: int = 64
    layers: int = 4
    heads: int = 8
    modes: str = "PD"
    directions: str = "both"
    transition: str = "tanh"
    output_norm: str = "rms"
    open_gates: bool = False
    source_bias: float | None = None
    local: str = "gine"
    norm: str = "batch"
    expansion: float = 2.0
    dropout: float = 0.2
    order: str = "canonical"
    output_gate: bool = False
    pooling: str = "mean"
    jk: str = "last"
    edge_readout: bool = False
    rwse: int = 16
    lap_pe: int = 0
    degrees: bool = False
    rings: bool = False
    edge_features: bool = True
    both_ways: bool = False
    edge_values: bool = True
    virtual_node: bool = False
    head_layers: int = 2
    head_norm: str = "none"
    backend: str = "auto"
    test_orientations: int = 4

    def __post_init__(self) -> None:
        lowest = dict.fromkeys(("width", "head_layers", "test_orientations"), 1)
        self._check(lowest | dict.fromkeys(("layers", "rwse", "lap_pe", "expansion"), 0))
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout must be at least 0 and below 1, which drops all (got {self.dropout})")
        if len(set(poolings := self.pooling.split("+"))) < len(poolings):
            raise ConfigError(f"model.pooling names one read-out twice (got {self.pooling!r})")
        if self.head_norm != "none" and self.head_layers < 2:
            raise ConfigError("model.head_norm is of hidden layers of the head, which head_layers=1 has not")
        if self.degrees and self.width % 2:
            raise ConfigError(f"model.degrees needs an even width (got {self.width})")
