"""What shapes a graph model, as plain values: read and checked without torch."""

from dataclasses import dataclass

from plstm_graph.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes a graph model; plain values, so that it fits a command line and a checkpoint.

    Args:
        model: a name in :data:`plstm_graph.nn.MODELS`: ``"plstm"`` or one of the baselines. ``"fingerprint"`` is no
            network: Morgan fingerprint and random forest, see ``plstm_graph.train.forest``.
        width, layers, heads, norm, expansion, dropout: of the stack; ``heads`` where the layer has some.
        modes, directions, transition, output_norm, open_gates, order: as for :class:`plstm_graph.PLSTM`. With order
            ``"random"`` every epoch of a training draws orientations anew.
        local: local branch of pLSTM, a name in :data:`plstm_graph.nn.baselines.LOCALS`.
        pooling: over the nodes of a graph, a name in :data:`plstm_graph.nn.model.POOLINGS`.
        walks: steps of the random-walk encoding, 0 for none.
        eigenvectors: of the Laplacian as encoding, 0 for none; their signs are flipped at random in training.
        degrees: add the sinusoidal degree encoding.
        bonds: read edge features.
        bond_values: let them reach pLSTM's values, not only its gates.
        virtual_node: as for :class:`plstm_graph.PLSTM`; some baselines refuse it.
        head_layers: layers of the perceptron behind the pooling.
        backend: of the operator.
        test_orientations: with order ``"random"``, orientations over which a prediction is averaged.
        trees, radius, bits, counts: of the fingerprint and its forest; counts say how often each environment occurs
            instead of whether it does.

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
    local: str = "gine"
    norm: str = "batch"
    expansion: float = 2.0
    dropout: float = 0.2
    order: str = "canonical"
    pooling: str = "mean"
    walks: int = 16
    eigenvectors: int = 0
    degrees: bool = False
    bonds: bool = True
    bond_values: bool = True
    virtual_node: bool = False
    head_layers: int = 2
    backend: str = "auto"
    test_orientations: int = 4
    trees: int = 500
    radius: int = 2
    bits: int = 2048
    counts: bool = False

    def __post_init__(self) -> None:
        lowest = dict.fromkeys(("width", "head_layers", "test_orientations", "trees", "bits"), 1)
        lowest |= dict.fromkeys(("layers", "walks", "eigenvectors", "expansion", "radius"), 0)
        for name, low in lowest.items():
            if not getattr(self, name) >= low:
                raise ConfigError(f"model.{name} must be at least {low} (got {getattr(self, name)})")
        if not 0 <= self.dropout <= 1:
            raise ConfigError(f"model.dropout must be from 0 to 1 (got {self.dropout})")
        if self.degrees and self.width % 2:
            raise ConfigError(f"model.degrees needs an even width (got {self.width})")
