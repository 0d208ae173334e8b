"""Whether a model of one data set can be scored on another."""

from plstm_graph.data.dataset import AnyDataset, Dataset
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import DataError, count, listed
from plstm_graph.tasks import Task


def classes_as(dataset: AnyDataset, task: Task) -> AnyDataset:
    """With classes numbered as a task does, by their names, where both have some.

    Raises:
        DataError: a class is unknown to the task.
    """
    names = task.class_names
    return dataset.numbered_by(names) if names and isinstance(dataset, Dataset) else dataset


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
    differing = []
    if len({(each.name, each.level, each.num_outputs) for each in (dataset.task, task)}) > 1:
        differing.append((_labels(dataset.task), _labels(task)))
    readers = {dataset.featuriser, featuriser} if dataset.featuriser and featuriser else set()  # None: not known
    looks = [spec.words for spec in (dataset.features, features)]
    if len(readers) > 1:
        looks = [
            f"{what} read by {reader}" for what, reader in zip(looks, (dataset.featuriser, featuriser), strict=True)
        ]
    if looks[0] != looks[1]:
        differing.append((looks[0], looks[1]))
    if differing:
        has, takes = (" and ".join(side) for side in zip(*differing, strict=True))
        raise DataError(
            f"{dataset.name} does not suit the model: it has {has}, and the model takes {takes}; give data like those "
            "of the training, or train on these"
        )


def _labels(task: Task) -> str:
    what = f"{task.num_outputs} classes" if task.exclusive else count(len(task.targets), "target")
    where = "" if task.level == "graph" else f", one a {task.level}"
    return f"labels of {what} ({task.name} of {listed(task.targets)}{where})"
