"""From stored node and edge features to vectors: categorical columns, floats, positions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn.encoding import PositionalEncoding
from torch_geometric.utils import degree

from plstm_graph.data.features import ATOM_SIZES, BOND_SIZES, RING_SIZES, FeatureSpec
from plstm_graph.errors import ConfigError, ShapeError


class CategoricalEncoder(nn.Module):
    """Sum of one embedding per column, held in a single table.

    Args:
        sizes: vocabulary size of each column.
        channels: width of the embedding.

    Shapes: [*, len(sizes)] int64 -> [*, channels]. Raises ShapeError on another number of columns.
    """

    starts: Tensor
    limits: Tensor

    def __init__(self, sizes: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.embedding = nn.Embedding(sum(self.sizes), channels)
        starts = torch.tensor((0, *self.sizes[:-1])).cumsum(0)
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("limits", torch.tensor(self.sizes), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scaled so that the sum over the columns has unit variance."""
        nn.init.normal_(self.embedding.weight, std=len(self.sizes) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[*, columns] -> [*, channels]"""
        if x.size(-1) != len(self.sizes):
            raise ShapeError(f"expected {len(self.sizes)} categorical columns, got {x.size(-1)}")
        if x.device.type == "cpu":  # on a GPU this would wait for it
            inside, text = ((x >= 0) & (x < self.limits)).all(), f"columns must be below {list(self.sizes)}"
            if torch.compiler.is_compiling():  # a graph cannot branch on data
                torch._assert_async(inside, f"a category lies outside its vocabulary; {text}")
            elif not bool(inside):
                raise ShapeError(f"a category lies outside its vocabulary; {text}")
        return self.embedding(x + self.starts).sum(-2)


class AtomEncoder(CategoricalEncoder):
    """OGB's nine atom features to a vector, [N, 9] -> [N, channels]."""

    def __init__(self, channels: int) -> None:
        super().__init__(ATOM_SIZES, channels)


class BondEncoder(CategoricalEncoder):
    """OGB's three bond features to a vector, [M, 3] -> [M, channels]."""

    def __init__(self, channels: int) -> None:
        super().__init__(BOND_SIZES, channels)


class DegreeEncoder(nn.Module):
    """Sinusoidal encoding of node degrees (the paper's choice on TUDatasets), [2, M] -> [N, channels]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoding = PositionalEncoding(channels)

    def forward(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Degrees counted over the stored columns."""
        return self.encoding(degree(edge_index[1], num_nodes))


class RWSEEncoder(nn.Module):
    """Random-walk return probabilities (RWSE, Dwivedi et al. 2022) to a vector, [N, steps] -> [N, channels].

    The probabilities come from PyG's ``AddRandomWalkPE`` as ``data.rwse``.
    """

    def __init__(self, steps: int, channels: int) -> None:
        super().__init__()
        # Steps that hardly vary in training (the third, without rings of three) must not be blown up: with the usual
        # eps a model of ESOL is 28 units off for oxirane. So probabilities grow by sqrt(10) at most.
        self.norm = nn.BatchNorm1d(steps, eps=0.1)
        self.lin = nn.Linear(steps, channels)

    def forward(self, rwse: Tensor) -> Tensor:
        """[N, steps] -> [N, channels]"""
        return self.lin(self.norm(rwse) if rwse.size(0) > 1 or not self.training else rwse)


class LapPEEncoder(nn.Module):
    """Eigenvectors of the Laplacian (Dwivedi et al. 2020) to a vector, [N, count] -> [N, channels].

    An eigenvector has no sign: in training each graph flips each of its own at random.
    """

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        self.lin = nn.Linear(count, channels)

    def forward(self, vectors: Tensor, batch: Tensor | None = None, num_graphs: int | None = None) -> Tensor:
        """[N, count] -> [N, channels]; ``batch`` [N] says which graph a node is of, one for all without it."""
        if self.training:
            size = (count_graphs(batch, num_graphs), vectors.size(1))
            signs = torch.randint(0, 2, size, device=vectors.device, dtype=vectors.dtype) * 2 - 1
            vectors = vectors * (signs if batch is None else signs.index_select(0, batch))
        return self.lin(vectors)


class DescriptorEncoder(nn.Module):
    """Descriptors of whole graphs, quantities of any size and counts, to a vector: [G, columns] -> [G, channels].

    Each column is moved by its median and divided by its spread, both of the training part (see :meth:`fit`), and cut
    at ±:data:`LIMIT`, so that no molecule unlike those of the training is far away; what is not known (NaN) is the
    median.

    Args:
        columns: of the descriptors.
        channels: width of the vector.
    """

    LIMIT = 5.0
    BLOCK = 2**23
    """Numbers whose quantiles are taken at once: torch takes up to 16 million."""
    middle: Tensor  # [columns]
    factor: Tensor  # [columns] one over the spread, 0 where a column says nothing

    def __init__(self, columns: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(columns))
        self.register_buffer("factor", torch.ones(columns))
        self.lin = nn.Linear(columns, channels)

    def fit(self, rows: Tensor) -> None:
        """Take median and spread of each column from rows [n, columns].

        The spread is that of the middle half, as a standard deviation. Where half of a column or more is one value, as
        with most counts, it is the largest distance from that: yes and no stay 1 and 0.
        """
        parts = [_middle_and_factor(part) for part in rows.split(max(1, self.BLOCK // max(1, len(rows))), 1)]
        middle, factor = (torch.cat(found) for found in zip(*parts, strict=True))
        self.middle.copy_(middle)
        self.factor.copy_(factor)

    def forward(self, rows: Tensor) -> Tensor:
        """[G, columns] -> [G, channels]"""
        if rows.size(-1) != len(self.middle):
            raise ShapeError(f"expected {len(self.middle)} descriptors, got {rows.size(-1)}")
        scaled = ((rows - self.middle) * self.factor).nan_to_num(0.0, self.LIMIT, -self.LIMIT)
        return self.lin(scaled.clamp(-self.LIMIT, self.LIMIT))


def _middle_and_factor(rows: Tensor) -> tuple[Tensor, Tensor]:
    low, middle, high = rows.nanquantile(torch.tensor([0.25, 0.5, 0.75]), 0)
    spread = (high - low) / 1.349  # of a normal distribution: its standard deviation
    farthest = (rows - middle).abs().nan_to_num(0.0).amax(0)
    spread = torch.where(spread > 0, spread, farthest)
    factor = torch.where((spread > 0) & spread.isfinite(), 1 / spread, 0.0)
    return middle.nan_to_num(0.0), factor


def count_graphs(batch: Tensor | None, num_graphs: int | None = None) -> int:
    """Number of graphs; without ``batch`` all nodes are one. Given it, a GPU need not be waited for."""
    if num_graphs is not None:
        return num_graphs
    return 1 if batch is None else int(batch.max()) + 1 if batch.numel() else 0


_FIRST = "apply plstm_graph.data.encodings.add_encodings to the data first"


class FeatureEncoder(nn.Module):
    """All node features, and all edge features, of a data set as one vector each.

    Args:
        features: what the data set stores.
        channels: width of both.
        rwse: number of random-walk steps in ``data.rwse`` (0: none).
        lap_pe: number of eigenvectors of the Laplacian in ``data.lap_pe`` (0: none).
        degrees: add the sinusoidal degree encoding.
        rings: read the rings of nodes and edges in ``data.ring_nodes`` and ``data.ring_edges``.
    """

    def __init__(
        self,
        features: FeatureSpec,
        channels: int,
        *,
        rwse: int = 0,
        lap_pe: int = 0,
        degrees: bool = False,
        rings: bool = False,
    ) -> None:
        super().__init__()
        for what, sizes, dim in (
            ("nodes", features.node_sizes, features.node_dim),
            ("edges", features.edge_sizes, features.edge_dim),
        ):
            if sizes and dim:
                raise ConfigError(
                    f"features of {what} are categories ({what[:-1]}_sizes) or numbers ({what[:-1]}_dim), not both; "
                    "give categories as one-hot numbers beside the others"
                )
        self.features = features
        self.node = _encoder(features.node_sizes, features.node_dim, channels)
        self.edge = _encoder(features.edge_sizes, features.edge_dim, channels)
        if self.node is None:
            raise ConfigError("a data set needs node features (a constant column will do)")
        self.rwse = RWSEEncoder(rwse, channels) if rwse else None
        self.lap_pe = LapPEEncoder(lap_pe, channels) if lap_pe else None
        self.degree = DegreeEncoder(channels) if degrees else None
        self.ring_nodes = CategoricalEncoder(RING_SIZES, channels) if rings else None
        self.ring_edges = CategoricalEncoder(RING_SIZES[:1], channels) if rings else None

    @property
    def has_edges(self) -> bool:
        """Whether there are edge features."""
        return self.edge is not None or self.ring_edges is not None

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None,
        rwse: Tensor | None,
        *,
        lap_pe: Tensor | None = None,
        rings: tuple[Tensor | None, Tensor | None] = (None, None),
        batch: Tensor | None = None,
        num_graphs: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Node vectors [N, channels] and edge vectors [M, channels] or None."""
        assert self.node is not None
        dtype = next(self.parameters()).dtype
        x, edge_attr, rwse, lap_pe = (_in_dtype(dtype, given) for given in (x, edge_attr, rwse, lap_pe))
        node = self.node(x)
        if self.rwse is not None:
            if rwse is None:
                raise ShapeError(f"the model was built with random-walk encodings: {_FIRST}")
            node = node + self.rwse(rwse)
        if self.lap_pe is not None:
            if lap_pe is None:
                raise ShapeError(f"the model was built with Laplacian eigenvectors: {_FIRST}")
            node = node + self.lap_pe(lap_pe, batch, num_graphs)
        if self.degree is not None:
            node = node + self.degree(edge_index, x.size(0))
        edge = self.edge(edge_attr) if self.edge is not None and edge_attr is not None else None
        if self.ring_nodes is not None and self.ring_edges is not None:
            of_nodes, of_edges = rings
            if of_nodes is None or of_edges is None:
                raise ShapeError(f"the model was built to read rings: {_FIRST}")
            node, ring = node + self.ring_nodes(of_nodes), self.ring_edges(of_edges.unsqueeze(-1))
            edge = ring if edge is None else edge + ring
        return node, edge


def _in_dtype(dtype: torch.dtype, x: Any) -> Any:
    """Quantities in the dtype of the weights that read them, which a run in float64 has; categories as they are."""
    return x.to(dtype) if x is not None and x.is_floating_point() else x


def _encoder(sizes: tuple[int, ...], dim: int, channels: int) -> nn.Module | None:
    if sizes:
        return CategoricalEncoder(sizes, channels)
    return nn.Linear(dim, channels) if dim else None
