"""From a checkpoint to numbers: evaluate on a data set, predict for molecules."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.data.dataset import AnyDataset, GraphDataset
from plstm_graph.data.datasets import is_table, reads_smiles
from plstm_graph.data.descriptors import with_descriptors
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.examples import batches
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.molecules import FEATURISERS, Rejected, read_molecules
from plstm_graph.data.tables import Table
from plstm_graph.errors import CheckpointError, ConfigError, DataError, listed, unknown
from plstm_graph.io.waiting import told
from plstm_graph.models.ensemble import Ensemble
from plstm_graph.models.graph import GraphModel
from plstm_graph.models.vision import ImageModel
from plstm_graph.tasks import Task
from plstm_graph.train.checkpoint import Meta, locate, read, read_meta, restore_model
from plstm_graph.train.config import TrainConfig, override
from plstm_graph.train.data import Graphs, labels, load_data, moved, split_of
from plstm_graph.train.memory import memory_advice
from plstm_graph.train.module import Learner
from plstm_graph.train.results import write_rows
from plstm_graph.train.seen import part_to_score, same_source

UNLIKE = "unlike_training"
"""Column of what the training never had in a molecule."""
PARTS = ("train", "valid", "test", "all")
REASONS = 3
"""How many rejected rows the notes of an evaluation explain."""


@dataclass(frozen=True)
class Predictions:
    """One row per input row, in order.

    Attributes:
        smiles: the texts as given.
        columns: what the values are: targets in their own units, probabilities, or ``class`` and one column a class;
            behind them, for an ensemble, ``_std`` of each, the spread over its members.
        values: [rows, columns], NaN where the text is not a molecule.
        rejected: rows without a prediction, with the reason.
        unlike: of each row what the training never had, in words and empty where there is nothing; None where that is
            not known. See :class:`plstm_graph.train.domain.Domain`.
    """

    smiles: list[str]
    columns: list[str]
    values: Tensor
    rejected: list[Rejected]
    unlike: list[str] | None = None

    def write(self, path: str | PathLike[str], table: Table | None = None) -> None:
        """CSV with the columns of ``table``, the predicted ones, ``unlike_training`` and ``error``; empty where there
        is no prediction.

        A predicted column (or ``error``) whose name ``table`` has already ends in ``_predicted``.

        Args:
            path: of the file, written whole or not at all.
            table: the rows that ``smiles`` came from, in order; without one, a column ``smiles``.
        """
        given, rows = (table.columns, table.rows) if table else (("smiles",), [(text,) for text in self.smiles])
        reasons = {row.row - 1: row.reason for row in self.rejected}
        empty = [""] * len(self.columns)
        marks = [[]] * len(self.smiles) if self.unlike is None else [[mark] for mark in self.unlike]
        lines = (
            [*cells, *(empty if index in reasons else as_cells(self.columns, values)), *mark, reasons.get(index, "")]
            for index, (cells, values, mark) in enumerate(zip(rows, self.values.tolist(), marks, strict=True))
        )
        marked = [] if self.unlike is None else [UNLIKE]
        write_rows(path, _header(given, [*self.columns, *marked, "error"]), lines)


def _header(given: Sequence[str], added: Sequence[str]) -> list[str]:
    names = list(given)
    for name in added:
        while name in names:
            name += "_predicted"
        names.append(name)
    return names


def as_cells(columns: list[str], values: list[float]) -> list[str]:
    """Numbers of a row as they are written."""
    return [f"{int(v)}" if name == "class" else f"{v:.6g}" for name, v in zip(columns, values, strict=True)]


def restore(checkpoint: str | PathLike[str], device: str = "auto") -> tuple[Learner, Meta]:
    """The trained model of a checkpoint file (or the best one of a run's folder), ready to predict.

    Raises:
        CheckpointError: missing, truncated or foreign file.
        ConfigError: there is no such device here.
    """
    return restored(read(checkpoint), locate(checkpoint), device)


def restored(content: Mapping[str, Any], where: object, device: str = "auto") -> tuple[Learner, Meta]:
    """As :func:`restore`, of what a checkpoint holds; ``where`` is for errors."""
    meta = read_meta(content, where)
    learner = Learner(restore_model(content, meta, where), meta.asked, meta.plain())
    return learner.to(pick_device(device)).eval(), meta


def restore_for_molecules(checkpoint: str | PathLike[str], device: str = "auto") -> tuple[Learner, Meta]:
    """As :func:`restore`, for a model that reads SMILES.

    Raises:
        CheckpointError: also where it was trained on graphs of another kind, or answers for each node.
    """
    learner, meta = restore(checkpoint, device)
    check_reads_molecules(meta, checkpoint)
    return learner, meta


def check_reads_molecules(meta: Meta, checkpoint: object) -> None:
    """Raise CheckpointError for a model of graphs of another kind, or one that answers for each node."""
    if meta.featuriser not in FEATURISERS:
        raise CheckpointError(
            f"{checkpoint} was trained on {meta.train_config.data!r}, not on molecules given as SMILES; use evaluate"
        )
    if meta.asked.level != "graph":
        raise CheckpointError(f"{checkpoint} answers for each {meta.asked.level}, not for a molecule; use evaluate")


def network(learner: Learner, checkpoint: str | PathLike[str]) -> GraphModel:
    """The model of a restored learner, where what follows needs a network.

    Raises:
        CheckpointError: it is an ensemble, a network of images, or a forest of fingerprints.
    """
    if isinstance(learner.model, Ensemble):
        raise CheckpointError(f"{checkpoint} holds several networks; give one of them, in the folder members")
    if isinstance(learner.model, ImageModel):
        raise CheckpointError(f"{checkpoint} holds a network of images, not of graphs; use evaluate")
    if not isinstance(learner.model, GraphModel):
        raise CheckpointError(f"{checkpoint} holds a forest of fingerprints, no network; use predict or evaluate")
    return learner.model


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here: {reason}; auto takes what is there") from error


class Outputs(NamedTuple):
    """What a model says of graphs, on the CPU.

    Attributes:
        values: predictions in original units (probabilities for classes), float32 [graphs, outputs].
        spread: standard deviation of each over the members of an ensemble, [graphs, outputs]; that of quantities is as
            large as errors are on the validation part of the training. None without an ensemble.
    """

    values: Tensor
    spread: Tensor | None


@torch.inference_mode()
def outputs(learner: Learner, graphs: Graphs, batch_size: int = 256) -> Outputs:
    """Predictions for graphs that have their encodings, packed or not; every network runs once.

    Raises:
        OutOfMemory: a batch does not fit.
    """
    training = learner.training
    learner.eval()
    with memory_advice(batch_size):
        work = told(range(0, len(graphs), batch_size), f"scoring {len(graphs):,} graphs")
        parts = zip(work, batches(moved(graphs, learner.device), batch_size), strict=True)
        found = [_outputs(learner, batch.to(learner.device)) for _, batch in parts]
    learner.train(training)
    if not found:
        empty = torch.empty(0, learner.task.num_outputs)
        return Outputs(empty, empty if isinstance(learner.model, Ensemble) else None)
    spreads = [spread for _, spread in found if spread is not None]
    return Outputs(torch.cat([values for values, _ in found]), torch.cat(spreads) if spreads else None)


def _outputs(learner: Learner, batch: Any) -> Outputs:
    model = learner.model
    if not isinstance(model, Ensemble):
        return Outputs(learner(batch).cpu(), None)
    members = model.each(batch)
    spread = torch.stack([learner.readable(one) for one in members]).std(0) * model.factor
    return Outputs(learner.readable(model.together(members)).cpu(), spread.cpu())


def evaluate(
    checkpoint: str | PathLike[str],
    data: str | PathLike[str] | AnyDataset | None = None,
    *,
    part: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
    **options: Any,
) -> dict[str, Any]:
    """Metrics of a checkpoint on a part of a data set, split as in training unless told otherwise.

    Args:
        checkpoint: file, or folder of a run.
        data: name, path or data set; the one it was trained on when not given.
        part: "train", "valid", "test" or "all". When not given, "test" for the data, targets and split that it was
            trained on, told by their content and wherever they are, and "all" for others.
        batch_size: graphs at once.
        device: "auto", "cpu", "cuda", ...
        options: fields of TrainConfig that say what to load (``root``, ``targets``, ``smiles_column``, ``task``,
            ``descriptors``) and how to split it (``split``, ``split_seed``, ``fold``).

    Returns:
        Name of the ``data``, ``part`` and ``why`` this one, how many ``graphs`` were scored and rows ``rejected``,
        the metrics, ``by_target`` every metric of each of several targets (empty for one), and ``notes``, sentences on
        what a reader should know.

    Raises:
        CheckpointError, ConfigError, DataError: the checkpoint, an option or the data cannot be used.
    """
    if part is not None and part not in PARTS:
        raise ConfigError(unknown("part of the split", part, PARTS))
    learner, meta = restore(checkpoint, device)
    config = meta.train_config
    if data is not None and not isinstance(data, AnyDataset):
        data = fspath(data)
        config = _pointed_at(data, meta)
    own = {"featuriser": meta.featuriser if reads_smiles(config.data) else None}
    config = override(config, own | {key: value for key, value in options.items() if value is not None})
    dataset = data if isinstance(data, AnyDataset) else load_data(config, meta.spec)
    dataset = _in_order(dataset, meta)
    check_same_kind(dataset, meta.asked, meta.spec, meta.featuriser)
    why = "as asked"
    if part is None:
        part, why = part_to_score(config, meta, dataset, in_hand=isinstance(data, AnyDataset))
    chosen = range(len(dataset.examples)) if part == "all" else split_of(config, dataset)[part]
    graphs = dataset.encoded(meta.model_config, chosen)
    if not len(graphs):
        raise DataError(f"the {part} part of {dataset.name} is empty; give another --split-part")
    (values, spread), known = outputs(learner, graphs, batch_size), labels(graphs)
    found = learner.task.scores(values, known)
    found |= learner.task.calibration(values, known, spread)
    by_target = learner.task.by_target(values, known)
    counts = {"graphs": len(graphs), "rejected": len(dataset.rejected)}
    return {
        "data": dataset.name,
        "part": part,
        "why": why,
        **counts,
        **found,
        "by_target": by_target,
        "notes": _notes(dataset, meta),
    }


def _pointed_at(data: str, meta: Meta) -> TrainConfig:
    """The config of a checkpoint for other data, or for its own by another path."""
    file = is_table(data)
    if file and same_source(data, meta.train_config.data):
        return override(meta.train_config, {"data": data})
    own = {"targets": meta.asked.targets if file else (), "task": meta.asked.name if file else None}
    own |= {"split_column": None, "test_data": None}
    return override(meta.train_config, {"data": data, "smiles_column": None, **own})  # what has a name brings its own


def _in_order(dataset: AnyDataset, meta: Meta) -> AnyDataset:
    """With the targets of the training in its order, where they are the same: a file may have them in another one."""
    asked, trained = dataset.task.targets, meta.asked.targets
    if asked == trained or sorted(asked) != sorted(trained) or not isinstance(dataset, GraphDataset):
        return dataset
    graphs = [copy(graph) for graph in dataset.graphs]
    for graph in graphs:
        graph.y = graph.y[..., [asked.index(name) for name in trained]]
    return replace(dataset, graphs=graphs, task=replace(dataset.task, targets=trained))


def _notes(dataset: AnyDataset, meta: Meta) -> list[str]:
    notes, targets = [], dataset.task.targets
    if targets != meta.asked.targets:
        columns = ", ".join(map(repr, targets))
        kind = "column" if len(targets) == 1 else "columns"
        notes.append(f"scores {', '.join(meta.asked.targets)} against {kind} {columns}")
    if dataset.rejected:
        told = [f"row {row.row}: {' '.join(row.reason.split())}" for row in dataset.rejected[:REASONS]]
        told += ["..."] if len(dataset.rejected) > REASONS else []
        notes.append(f"{len(dataset.rejected)} rows rejected: {'; '.join(told)}")
    return notes


def check_same_kind(dataset: AnyDataset, task: Task, features: FeatureSpec, featuriser: str | None) -> None:
    """Raise DataError unless a model of this task and these features can be scored on a data set.

    Images may have another height and width.
    """
    columns, wanted = dataset.features.descriptor_names, features.descriptor_names
    if columns and wanted and columns != wanted:
        raise DataError(
            f"{dataset.name} has the descriptors {listed(columns)}, and the checkpoint reads {listed(wanted)}, in that "
            "order; give the name or path of the data, or with_descriptors the features of the training"
        )
    made = dataset.featuriser if dataset.featuriser and featuriser else featuriser  # None: not known
    asked, trained = (
        (each.name, each.level, each.num_outputs, asdict(_without_sizes(spec)), reader)
        for each, spec, reader in ((dataset.task, dataset.features, made), (task, features, featuriser))
    )
    if asked != trained:
        names = ("task", "level", "number of outputs", "features", "featuriser")
        differing = [
            f"{n} {new} instead of {old}" for n, new, old in zip(names, asked, trained, strict=True) if new != old
        ]
        raise DataError(f"{dataset.name} does not suit the model: {'; '.join(differing)}")


def _without_sizes(spec: FeatureSpec) -> FeatureSpec:
    return replace(spec, descriptor_names=(), image=spec.image[:1])


def as_trained(graphs: Sequence[Data], meta: Meta, kinds: Sequence[str] = ()) -> list[Data]:
    """Molecules with the descriptors of the training; ``kinds`` of them from other files, say, if given."""
    return with_descriptors(graphs, kinds or meta.train_config.descriptors, meta.spec)


def answers(
    learner: Learner,
    meta: Meta,
    smiles: Sequence[str],
    *,
    batch_size: int = 256,
    descriptors: Sequence[str] = (),
) -> Predictions:
    """Predictions by a model that :func:`restore_for_molecules` gave, all molecules as graphs at once.

    Arguments are those of :func:`plstm_graph.train.predict`.
    """
    assert meta.featuriser is not None
    read_rows, rejected = read_molecules(smiles, meta.featuriser)
    task = learner.task
    columns = task.columns
    if isinstance(learner.model, Ensemble):
        columns = [*columns, *(f"{name}_std" for name in task.outputs)]
    values = torch.full((len(smiles), len(columns)), torch.nan)
    domain, unlike = meta.domain, [""] * len(smiles)
    if read_rows:
        graphs = add_encodings(as_trained([graph for _, graph in read_rows], meta, descriptors), meta.model_config)
        found, spread = outputs(learner, graphs, batch_size)
        found = task.table(found)
        whole = found if spread is None else torch.cat([found, spread.to(found.dtype)], 1)
        values[torch.tensor([row - 1 for row, _ in read_rows])] = whole.to(values.dtype)
        for row, graph in read_rows:
            if domain:
                unlike[row - 1] = domain.unlike(graph, task.targets, values[row - 1, : len(task.targets)])
    return Predictions(list(smiles), columns, values, rejected, unlike if domain else None)


def embed(
    checkpoint: str | PathLike[str],
    smiles: Sequence[str],
    *,
    batch_size: int = 256,
    device: str = "auto",
    descriptors: Sequence[str] = (),
) -> Predictions:
    """Learned fingerprints of molecules: what the last layers of a network read, member by member of an ensemble.

    Arguments and errors are those of :func:`plstm_graph.train.predict`; a forest has none.
    """
    learner, meta = restore_for_molecules(checkpoint, device)
    return embeddings(learner, meta, smiles, batch_size=batch_size, descriptors=descriptors)


@torch.inference_mode()
def embeddings(
    learner: Learner,
    meta: Meta,
    smiles: Sequence[str],
    *,
    batch_size: int = 256,
    descriptors: Sequence[str] = (),
) -> Predictions:
    """As :func:`embed`, of a model that :func:`restore_for_molecules` gave."""
    members: Any = learner.model.members if isinstance(learner.model, Ensemble) else [learner.model]
    if not all(isinstance(member, GraphModel) for member in members):
        raise CheckpointError("a forest has no learned fingerprints: it reads those of Morgan; give a network")
    assert meta.featuriser is not None
    read_rows, rejected = read_molecules(smiles, meta.featuriser)
    graphs = add_encodings(as_trained([graph for _, graph in read_rows], meta, descriptors), meta.model_config)
    learner.eval()
    with memory_advice(batch_size):
        moved = (batch.to(learner.device) for batch in batches(graphs, batch_size))
        parts = [torch.cat([member.embed(batch).float() for member in members], -1).cpu() for batch in moved]
    names = [f"embedding_{k}" for k in range(sum(member.channels for member in members))]
    values = torch.full((len(smiles), len(names)), torch.nan)
    if parts:
        values[torch.tensor([row - 1 for row, _ in read_rows])] = torch.cat(parts)
    return Predictions(list(smiles), names, values, rejected)
