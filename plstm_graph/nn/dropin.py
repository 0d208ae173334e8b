"""What a layer or a stack cannot take over from the PyG class whose place it takes, refused by name."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any, NoReturn

from torch_geometric.nn import MessagePassing

from plstm_graph.errors import BackendUnavailable, ConfigError

WEIGHTS = "pass weights as edge_attr [M, 1], with edge_dim=1"

ONE_TYPE = (
    "several types of nodes become one graph by data.to_homogeneous(), with embeddings of node_type and edge_type"
)

LAYER = {
    "add_self_loops": "a node reads itself through the direct gate",
    "dropout": "there are no attention weights to drop; put nn.Dropout after the layer",
    "negative_slope": "there is no leaky ReLU",
    "fill_value": "no self-loops are added",
    "share_weights": "queries, keys and values have weights of their own",
    "residual": "PLSTMBlock has the residual connection",
    "flow": "reverse=True reads against the edges",
    "aggr": "what paths bring is added up",
}
"""Options of GATv2Conv and of any MessagePassing."""

LAYER_CALL = {
    "edge_weight": WEIGHTS,
    "size": "it reads one graph, with as many nodes as x has rows",
    "return_attention_weights": "there are none; see plstm_graph.models.explain",
}
"""Arguments with which PyG's layers are called; None is taken for not given."""

STACK = {
    "act": "a block's feed-forward layer has GELU",
    "act_first": "a block normalises first",
    "act_kwargs": "a block's feed-forward layer has GELU",
    "norm_kwargs": "norm is a name",
    "concat": "heads stand side by side",
    "add_self_loops": LAYER["add_self_loops"],
}
"""Options of BasicGNN."""

STACK_CALL = {
    "edge_weight": WEIGHTS,
    "num_sampled_nodes_per_hop": "a path may lead through all nodes, so none can be left out layer by layer",
    "num_sampled_edges_per_hop": "a path may lead through all nodes, so none can be left out layer by layer",
}
"""Arguments with which a BasicGNN is called; None is taken for not given."""


def refuse_options(name: str, given: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    """Raise ConfigError for keyword arguments of a constructor that has no such ones."""
    for option in given:
        raise ConfigError(f"{name} has no option {option!r}: {reasons.get(option, 'unknown keyword argument')}")


def refuse_arguments(name: str, given: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    """Raise ConfigError for keyword arguments of a call that takes no such ones, but for known ones that are None."""
    if not isinstance(given, dict):  # but what torch.fx has in place of one
        raise ConfigError(
            f"to_hetero, and what else uses torch.fx, cannot trace {name} itself: put it into a module of yours, for "
            f"edges within one type of nodes; {ONE_TYPE}"
        )
    for argument, value in given.items():
        if value is not None or argument not in reasons:
            raise ConfigError(f"{name} takes no {argument}: {reasons.get(argument, 'unknown keyword argument')}")


def check_inputs(name: str, in_channels: Any, edge_dim: Any) -> None:
    """Raise ConfigError unless nodes are of one kind, and both are widths, or -1 to read one off the first input."""
    if isinstance(in_channels, tuple | list):
        raise ConfigError(
            f"{name} reads one graph: in_channels must be an int, got {in_channels} (bipartite); {ONE_TYPE}"
        )
    for what, width in {"in_channels": in_channels, "edge_dim": edge_dim or 0}.items():
        if not isinstance(width, Integral) or width < -1:
            raise ConfigError(f"{what} must be a whole number, or -1 to read it off the first input, got {width!r}")


def check_widths(**widths: Any) -> None:
    """Raise ConfigError unless each of these is a whole number, and at least 1."""
    for name, width in widths.items():
        if not isinstance(width, Integral):
            raise ConfigError(f"{name} must be a whole number, got {width!r}")
        if width < 1:
            raise ConfigError(f"{name} must be at least 1, got {width}")


STEPS = ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
"""Steps of a MessagePassing that take hooks."""


class NoMessages(MessagePassing):
    """A MessagePassing that passes no messages: its steps and hooks on them are never called, so both are refused."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        for step in (*STEPS, "update", "edge_updater", "explain_message"):
            if getattr(cls, step) is not getattr(MessagePassing, step):
                raise ConfigError(
                    f"{cls.__name__} overrides {step}, which a layer of pLSTM never calls: it passes no messages; "
                    "override forward, or put a layer that passes some beside it (PLSTMBlock takes one as local)"
                )

    def _set_jittable_templates(self, raise_on_error: bool = False) -> None:
        """PyG writes and compiles the steps of a class with its first object, for which there is no use here."""

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script asks for first, of every module inside a model as well."""
        raise BackendUnavailable(
            f"torch.jit.script cannot compile {type(self).__name__}, which builds line graphs in Python; use "
            "torch.compile, or torch.export with a prepared dag (plstm-graph export, see docs/recipes.md)"
        )

    def _no_such_step(self, hook: Any) -> NoReturn:
        raise ConfigError(
            f"{type(self).__name__} passes no messages, so a hook on propagate, message, aggregate or edge_update is "
            "never called; use register_forward_hook or register_forward_pre_hook"
        )


for step in STEPS:
    for when in ("pre_hook", "hook"):
        setattr(NoMessages, f"register_{step}_forward_{when}", NoMessages._no_such_step)
