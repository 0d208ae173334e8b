"""Canonical ranks: an order of a graph's nodes that does not depend on how they are numbered."""

import logging

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from plstm_graph.errors import DataError
from plstm_graph.orient import positions

log = logging.getLogger(__name__)


def canonical_rank(data: Data) -> Tensor:
    """The rank of every atom of a molecule by rdkit, of other nodes by Weisfeiler-Lehman colours, [N].

    Raises:
        DataError: ``data.smiles`` has another number of atoms than the graph has nodes.
    """
    reason = "no molecule"
    if "smiles" in data:
        from plstm_graph.data.molecules import canonical_rank as from_smiles
        from plstm_graph.data.smiles import UnreadableSMILES

        try:
            rank = from_smiles(data.smiles)
        except UnreadableSMILES as error:  # stored graphs of molecules that this version of rdkit refuses
            reason = str(error)
        else:
            if len(rank) != data.num_nodes:
                raise DataError(f"{data.smiles!r} has {len(rank)} atoms, but the graph has {data.num_nodes} nodes")
            return rank
    log.info("canonical order by Weisfeiler-Lehman colours, then degree: %s", reason)
    return weisfeiler_lehman_rank(data)


def weisfeiler_lehman_rank(data: Data) -> Tensor:
    """Rank by refined colours (degree, node features and neighbourhoods), then node, [N].

    Directions and multiplicities of the stored columns play no part, nor do self-loops.
    """
    num_nodes, edge_index = data.num_nodes, data.edge_index.cpu()
    if not num_nodes:
        return edge_index.new_zeros(0)
    src, dst = to_undirected(edge_index[:, edge_index[0] != edge_index[1]], num_nodes=num_nodes)
    degrees = torch.bincount(dst, minlength=num_nodes)
    features = [] if data.get("x") is None else [data.x.detach().cpu().reshape(num_nodes, -1).double()]
    start = torch.cat([*features, degrees.unsqueeze(1).double()], 1)
    color = torch.unique(start, dim=0, return_inverse=True)[1]
    first = degrees.cumsum(0) - degrees
    for _ in range(num_nodes):
        # A row of a node's own colour and its neighbours', sorted: equal rows mean equal neighbourhoods.
        by_node = torch.argsort(dst * num_nodes + color[src])
        place = torch.arange(dst.numel(), device="cpu") - first[dst[by_node]] + 1
        rows = degrees.new_full((num_nodes, int(degrees.max()) + 1), -num_nodes)
        rows[:, 0] = color
        rows[dst[by_node], place] = -color[src[by_node]]
        refined = torch.unique(rows, dim=0, return_inverse=True)[1]
        if int(refined.max()) == int(color.max()):
            break
        color = refined
    return positions(color, torch.zeros_like(color))
