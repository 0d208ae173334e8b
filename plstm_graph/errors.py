"""Errors a caller may want to catch. Every message says what must hold, what came, and the likely fix."""

from collections.abc import Iterable
from difflib import get_close_matches


class PLSTMGraphError(Exception):
    """Base of all errors this package raises on purpose."""


class CycleError(PLSTMGraphError, ValueError):
    """The edges were declared to be a DAG (``order="given"``) but contain a directed cycle, which the message names."""


class ShapeError(PLSTMGraphError, ValueError):
    """A tensor does not have the shape, dtype, device or value range that its neighbours imply."""


class BackendUnavailable(PLSTMGraphError, RuntimeError):
    """A backend was asked for by name and cannot run here; the message says why and what to use instead."""


class DataError(PLSTMGraphError, ValueError):
    """A data set, file or molecule cannot be used as asked."""


class ConfigError(PLSTMGraphError, ValueError):
    """An option or a combination of options is not valid."""


class TargetError(PLSTMGraphError, OSError):
    """A file cannot be written where it was to go, or would take the place of something that is no file."""


class CheckpointError(PLSTMGraphError, ValueError):
    """A checkpoint is missing, truncated or from something else."""


class Diverged(PLSTMGraphError, RuntimeError):
    """A training's loss is not finite any more; what was stored before is untouched."""


class OutOfMemory(PLSTMGraphError, RuntimeError):
    """A batch does not fit into memory; the message names a size to try."""


MANY = 20


def listed(names: Iterable[object]) -> str:
    """Names for a message: at most :data:`MANY` of them, long ones cut short, and how many more there are."""
    texts = [text if len(text) <= 60 else f"{text[:59]}…" for text in map(str, names)]
    return ", ".join(texts[:MANY]) + (f" and {len(texts) - MANY} more" if len(texts) > MANY else "")


def unknown(kind: str, name: object, choices: Iterable[object]) -> str:
    """Message for a name that is not among ``choices``: the closest one, and all unless they are too many to read."""
    names = [str(choice) for choice in choices]
    close = get_close_matches(str(name), names, n=1)
    if close and len(names) > MANY:
        return f"unknown {kind} {name!r}; did you mean {close[0]!r}?"
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}; choose one of {listed(names)}{hint}"


def missing_extra(package: str, extra: str) -> str:
    """Message for an optional package that is not installed."""
    return f"{package} is not installed; pip install 'plstm-graph[{extra}]'"
