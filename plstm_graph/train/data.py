"""The data of a run: split, scaling of labels, and batches whose order is a pure function of seed and epoch."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import Batch

from plstm_graph.config.architectures import architecture
from plstm_graph.data.dataset import AnyDataset, GraphDataset
from plstm_graph.data.datasets import is_table, load
from plstm_graph.data.examples import batches, examples_of, lie_in_files
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.packed import PackedGraphs, PackedLoader
from plstm_graph.data.smiles_files import load_csv
from plstm_graph.data.stacked import values
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.io.waiting import named
from plstm_graph.orient import RANDOM
from plstm_graph.tasks import Task
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.placement import Graphs, fits, moved

log = logging.getLogger(__name__)


def load_data(config: TrainConfig, trained: FeatureSpec | None = None, task: Task | None = None) -> AnyDataset:
    """The data set a config names.

    Args:
        config: of a run.
        trained: features of a training whose descriptors it gets.
        task: of a training, in place of the one that ``config`` names.

    Raises:
        DataError, ConfigError: as :func:`plstm_graph.data.load`; or it has no labels.
    """
    dataset = load(
        config.data,
        root=config.root,
        targets=config.targets or None,
        smiles_column=config.smiles_column,
        task=config.task if task is None else task,
        featuriser=config.featuriser,
        descriptors=config.descriptors,
        trained=trained,
        split_column=config.split_column,
        censored=config.censored,
    )
    if not dataset.task.labelled:
        raise DataError(f"{dataset.name} has no labels to train on; it is there for depth and speed")
    return _with_test(dataset, config, trained) if config.test_data else dataset


def _with_test(dataset: AnyDataset, config: TrainConfig, trained: FeatureSpec | None) -> AnyDataset:
    """The data set with the molecules of ``config.test_data`` behind its own, to be tested on.

    Raises:
        ConfigError, DataError: the data are no table of molecules; the file or its columns cannot be used.
    """
    if not is_table(config.data) or not isinstance(dataset, GraphDataset):
        raise ConfigError(f"test_data is for tables of molecules; {dataset.name} has a test part of its own")
    assert dataset.featuriser is not None
    path, column = str(config.test_data), config.smiles_column
    test = load_csv(path, dataset.task.targets, column, dataset.task, dataset.featuriser)
    test = test.with_descriptors(config.descriptors, trained)
    rejected = [row._replace(reason=f"{row.reason} (of the test data)") for row in test.rejected]
    return replace(
        dataset,
        graphs=[*dataset.graphs, *test.graphs],
        rows=dataset.rows + test.rows,
        rejected=dataset.rejected + rejected,
        ids=dataset.ids + test.ids if dataset.ids and test.ids else [],
        held_out=len(test.graphs),
    )


def split_of(config: TrainConfig, dataset: AnyDataset) -> dict[str, list[int]]:
    """Indices of train, valid and test as a config asks for them."""
    seed = config.seed if config.split_seed is None else config.split_seed
    return dict(dataset.split(config.split, seed=seed, fold=config.fold, group_repeats=config.group_repeats))


class Repeats(NamedTuple):
    """How often molecules stand in a data set more than once, however they are spelled.

    Attributes:
        rows: graphs beyond the first of their molecule.
        molecules: that have more than one graph.
        contradicting: of these, how many have graphs with different labels.
        leaked: graphs of valid and test whose molecule stands in train, too.
    """

    rows: int
    molecules: int
    contradicting: int
    leaked: int


def repeats(dataset: AnyDataset, split: Mapping[str, Sequence[int]]) -> Repeats:
    """Counts repeats of a data set of molecules; all are 0 where the graphs are no molecules. NaN is no label."""
    owner = dataset.molecules() or range(len(dataset.examples))
    members: dict[int, list[int]] = {}
    for index, molecule in enumerate(owner):
        members.setdefault(molecule, []).append(index)
    several = [group for group in members.values() if len(group) > 1]
    graphs = dataset.graphs if isinstance(dataset, GraphDataset) and several else []
    task = dataset.task
    labels = [(y := task.exact(each)).double().where(task.known(y), torch.nan) for each in values(graphs, "y")]
    labelled = (torch.stack([labels[index].view(-1) for index in group]) for group in several)
    # Where all known labels of a target are equal, the highest is the lowest.
    spread = (y.nan_to_num(-torch.inf).amax(0) > y.nan_to_num(torch.inf).amin(0) for y in labelled)
    known = {owner[index] for index in split["train"]}
    leaked = sum(owner[index] in known for part in ("valid", "test") for index in split[part])
    rows = sum(map(len, several)) - len(several)
    return Repeats(rows, len(several), sum(bool(differs.any()) for differs in spread), leaked)


class EpochSampler(Sampler[int]):
    """A permutation drawn from ``(seed, epoch)`` alone, so that a resumed run sees what an uninterrupted one would.

    With several devices each takes its share of the same permutation, batch by batch the graphs that one device with
    larger batches would take. Where shares differ, the shorter ones end in a repetition. Lightning calls
    :meth:`set_epoch` (a usual hook of samplers).
    """

    def __init__(self, length: int, seed: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def padded(self) -> bool:
        """Whether the last index is one that another device has as well."""
        return (len(self) - 1) * self.world_size + self.rank >= self.length

    def __len__(self) -> int:
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        order = torch.randperm(self.length, generator=generator)
        return iter(order.repeat(self.world_size)[self.rank :: self.world_size][: len(self)].tolist())


def mixed_seed(seed: int, epoch: int) -> int:
    """One 63-bit number from two, such that neighbours share nothing (splitmix64)."""
    state = (seed * 0x9E3779B97F4A7C15 + epoch + 1) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    state = (state ^ state >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
    return (state ^ state >> 31) >> 1


def pack(graphs: Graphs, model: Any, device: torch.device) -> Graphs:
    """The graphs packed on a device, as a model reads them; the graphs themselves where they do not fit.

    Packing takes as long as batching all graphs once or twice, and makes every batch several times cheaper.
    """
    if not isinstance(graphs, Sequence):
        return moved(graphs, device)
    if not graphs or not fits(examples_of(graphs).nbytes, device):
        return graphs
    # Orders that change from epoch to epoch are oriented as they are batched.
    oriented = architecture(model.model).oriented and model.order != RANDOM
    order, prune = (model.order, "D" in model.modes) if oriented else (None, False)
    try:
        with named(f"packing {len(graphs):,} graphs"):
            packed = PackedGraphs.from_data_list(graphs, order=order, prune=prune, exclude_keys=["smiles"])
    except DataError as error:
        log.info("graphs are batched one by one: %s", error)
        return graphs
    return packed.to(device) if fits(packed.nbytes, device) else graphs


def train_loader(graphs: Graphs, batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1) -> PackedLoader:
    """Shuffled batches for training, the same whether packed or not; the loader draws no global random numbers."""
    sampler = EpochSampler(len(graphs), seed, rank=rank, world_size=world_size)
    return PackedLoader(examples_of(graphs), batch_size, sampler, filled=getattr(graphs, "capacity", None) is not None)


def at_once(device: torch.device) -> int:
    """How many training batches are validated at once. On a GPU a batch costs the host the same whatever its size, and
    without gradients so many take less memory than one in training."""
    return 4 if device.type == "cuda" else 1


class Collated:
    """Batches in order, made once and used in every epoch, but for those that are read from files each time. Lightning
    takes any iterable that has a length."""

    def __init__(self, graphs: Graphs, batch_size: int) -> None:
        self.graphs, self.batch_size = graphs, batch_size
        self.batches = None if lie_in_files(graphs) else list(batches(graphs, batch_size))

    def __len__(self) -> int:
        return -(-len(self.graphs) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return batches(self.graphs, self.batch_size) if self.batches is None else iter(self.batches)


def labels(graphs: Graphs, task: Task | None = None) -> Tensor:
    """Labels of examples, or of all their nodes, as their task has them, on the host; without ``task`` there must be
    some."""
    return examples_of(graphs).y.cpu() if len(graphs) or task is None else task.no_labels
