"""GraphGym: importing this module registers the layer ``plstmconv`` and the network ``plstm``.

In a config, ``gnn.layer_type: plstmconv`` puts the layer into GraphGym's own stages, and ``model.type: plstm`` takes
the whole stack with GraphGym's encoders and heads. The options of both lie under ``plstm:``. Importing or reloading it
again changes nothing.
"""

from typing import Any

from torch import Tensor, nn

from plstm_graph.errors import missing_extra
from plstm_graph.nn import PLSTM, PLSTMConv

try:
    from yacs.config import CfgNode
except ModuleNotFoundError as error:
    raise ImportError(missing_extra("yacs", "graphgym")) from error

from torch_geometric.graphgym import register
from torch_geometric.graphgym.config import cfg
from torch_geometric.graphgym.models.gnn import FeatureEncoder
from torch_geometric.graphgym.models.layer import LayerConfig


def set_config(config: Any) -> None:
    """Adds ``plstm`` to a config, with defaults that are those of :class:`plstm_graph.PLSTM`."""
    options = {"heads": 4, "modes": "PD", "directions": "both", "local": "none", "norm": "batch", "order": "index"}
    config.plstm = CfgNode(options)


class PLSTMLayer(nn.Module):
    """:class:`plstm_graph.PLSTMConv` between GraphGym's norm, dropout and activation.

    It is of the first of ``cfg.plstm.modes`` and reads along the edges (against them if ``cfg.plstm.directions`` says
    so); where ``dim_out`` is no multiple of ``cfg.plstm.heads``, as in a last layer, it has one head. Edge features are
    for the network.
    """

    def __init__(self, layer_config: LayerConfig, **kwargs: Any) -> None:
        super().__init__()
        heads = cfg.plstm.heads if layer_config.dim_out % cfg.plstm.heads == 0 else 1
        self.model = PLSTMConv(
            *(layer_config.dim_in, layer_config.dim_out // heads, heads),
            mode=cfg.plstm.modes[0],
            reverse=cfg.plstm.directions == "against",
            order=cfg.plstm.order,
            bias=layer_config.has_bias,
        )

    def forward(self, batch: Any) -> Any:
        """Returns ``batch`` with another ``x``."""
        batch.x = self.model(batch.x, batch.edge_index)
        return batch


class PLSTMNetwork(nn.Module):
    """GraphGym's feature encoder, a :class:`plstm_graph.PLSTM`, and GraphGym's head.

    The stack has ``cfg.gnn.layers_mp`` blocks of width ``cfg.gnn.dim_inner``; it reads edge features where
    ``cfg.dataset.edge_encoder`` makes them.
    """

    def __init__(self, dim_in: int, dim_out: int, **kwargs: Any) -> None:
        super().__init__()
        width = cfg.gnn.dim_inner
        self.encoder = FeatureEncoder(dim_in)
        edge_dim = width if cfg.dataset.edge_encoder else None
        self.mp = PLSTM(
            *(self.encoder.dim_in, width, cfg.gnn.layers_mp),
            dropout=cfg.gnn.dropout,
            edge_dim=edge_dim,
            **cfg.plstm,
        )
        self.reads_edges = edge_dim is not None
        self.post_mp = register.head_dict[cfg.gnn.head](dim_in=width, dim_out=dim_out)

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Prediction and labels, as GraphGym's heads return them."""
        batch = self.encoder(batch)
        edge_attr = batch.edge_attr if self.reads_edges else None
        batch.x = self.mp(batch.x, batch.edge_index, edge_attr=edge_attr, batch=batch.batch)
        return self.post_mp(batch)


# Not by register_layer and its like: they raise KeyError when a module is reloaded.
register.config_dict["plstm"] = set_config
register.layer_dict["plstmconv"] = PLSTMLayer
register.network_dict["plstm"] = PLSTMNetwork
if "plstm" not in cfg:  # GraphGym has set its defaults by now
    set_config(cfg)
