"""The data of a run: split, scaling of labels, and batches whose order is a pure function of seed and epoch."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from plstm_graph.data.datasets import GraphDataset, load
from plstm_graph.errors import DataError
from plstm_graph.train.config import TrainConfig


def load_data(config: TrainConfig) -> GraphDataset:
    """The data set a config names."""
    return load(
        config.data,
        root=config.root,
        targets=config.targets or None,
        smiles_column=config.smiles_column,
        task=config.task,
    )


def split_of(config: TrainConfig, dataset: GraphDataset) -> dict[str, list[int]]:
    """Indices of train, valid and test as a config asks for them."""
    seed = config.seed if config.split_seed is None else config.split_seed
    return dict(dataset.split(config.split, seed=seed, fold=config.fold))


class EpochSampler(Sampler[int]):
    """A permutation drawn from ``(seed, epoch)`` alone, so that a resumed run sees what an uninterrupted one would.

    With several devices each takes its share of the same permutation, padded to equal length. Lightning calls
    :meth:`set_epoch` (a usual hook of samplers).
    """

    def __init__(self, length: int, seed: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        order = torch.randperm(self.length, generator=generator)
        return iter(order.repeat(2)[self.rank :: self.world_size][: len(self)].tolist())


def mixed_seed(seed: int, epoch: int) -> int:
    """One 63-bit number from two, such that neighbours share nothing (splitmix64)."""
    state = (seed * 0x9E3779B97F4A7C15 + epoch + 1) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    state = (state ^ state >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
    return (state ^ state >> 31) >> 1


def train_loader(
    graphs: Sequence[Data], batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Shuffled batches for training; the loader draws no global random numbers."""
    sampler = EpochSampler(len(graphs), seed, rank=rank, world_size=world_size)
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(list(graphs), batch_size=batch_size, sampler=sampler, num_workers=0, generator=generator)


def batches(graphs: Sequence[Data], batch_size: int) -> Iterator[Batch]:
    """Batches in order, for evaluation."""
    for start in range(0, len(graphs), batch_size):
        yield Batch.from_data_list(list(graphs[start : start + batch_size]))


class Collated:
    """Batches in order, collated once and used in every epoch. Lightning takes any iterable that has a length."""

    def __init__(self, graphs: Sequence[Data], batch_size: int) -> None:
        self.batches = list(batches(graphs, batch_size))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def labels(graphs: Sequence[Data]) -> Tensor:
    """[graphs, targets] floats with NaN where a label is missing, or [graphs] class numbers."""
    return torch.cat([graph.y for graph in graphs])


def scaling(target: Tensor, names: Sequence[str]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each target over its known labels.

    Args:
        target: [graphs, targets] labels of the training split, in original units.
        names: of the targets, for the error.

    Raises:
        DataError: a target without any label in the training split.
    """
    means, deviations = [], []
    for name, column in zip(names, target.double().T, strict=True):
        known = column[~column.isnan()]
        if not len(known):
            raise DataError(
                f"target {name!r} has no label in the training split; drop it, or use another split or seed"
            )
        spread = float(known.std(unbiased=False))
        means.append(float(known.mean()))
        deviations.append(spread if spread > 1e-12 * max(1.0, abs(means[-1])) else 1.0)
    return means, deviations
