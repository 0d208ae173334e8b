"""Tasks: what is asked of every example of a data set. A source gives examples, a task asks, a model answers.

A new kind of task is a subclass of :class:`Task` and an entry in :data:`TASKS`; the command line finds it where an
installed package has an entry point of its name in the group ``plstm_graph.tasks`` that leads to the class.
"""

from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any, get_args, get_origin, get_type_hints

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.tasks.base import LEVELS, Task, Unlabelled
from plstm_graph.tasks.classes import Binary, Multiclass, yes_or_no
from plstm_graph.tasks.metrics import METRICS, MISSING, Metric, score
from plstm_graph.tasks.quantities import LARGEST, LOSSES, Ranking, Regression
from plstm_graph.tasks.tokens import Tokens

TASKS: dict[str, type[Task]] = {
    kind.name: kind for kind in (Regression, Ranking, Binary, Multiclass, Tokens, Unlabelled)
}
"""Kinds of tasks by name."""


def task_of(name: str) -> type[Task]:
    """The kind called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        TASKS.update({point.name: point.load() for point in entry_points(group="plstm_graph.tasks", name=name)})
    if name not in TASKS:
        raise ConfigError(unknown("task", name, TASKS))
    return TASKS[name]


def restore(stored: Mapping[str, Any]) -> Task:
    """The task that :meth:`Task.plain` describes.

    Raises:
        ConfigError: it describes none: a name, field or value that is not known.
    """
    kind = task_of(str(stored.get("name")))
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in stored.items() if key != "name"
    }
    values = {item.name: item.default for item in fields(kind) if item.metadata.get("later")} | values
    hints = {field.name: get_type_hints(kind)[field.name] for field in fields(kind)}
    wrong = sorted(map(str, hints.keys() ^ values.keys()))
    wrong += [key for key, hint in hints.items() if key in values and not _is(values[key], hint)]
    if wrong:
        raise ConfigError(f"task {kind.name!r} is described wrongly ({', '.join(wrong)})")
    return kind(**values)


def _is(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type of a field: of one type, or a tuple of it."""
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(type(item) is get_args(hint)[0] for item in value)
    return type(value) is hint


__all__ = [
    "LARGEST",
    "LEVELS",
    "LOSSES",
    "METRICS",
    "MISSING",
    "TASKS",
    "Binary",
    "Metric",
    "Multiclass",
    "Ranking",
    "Regression",
    "Task",
    "Tokens",
    "Unlabelled",
    "restore",
    "score",
    "task_of",
    "yes_or_no",
]
