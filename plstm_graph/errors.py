"""Errors a caller may want to catch. Every message says what must hold, what came, and the likely fix."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches

_REASONS = {
    errno.ENOENT: "it is not there; check the path",
    errno.EISDIR: "it is a folder, and a file belongs there; give another path, or move it away",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EACCES: "there is no permission; check who owns it, or give another path",
    errno.EPERM: "it may not be changed; give another path",
    errno.EROFS: "the disk is read-only; give another path",
    errno.EPIPE: "who read from it has ended",
    errno.ENOSPC: "the disk is full; free some room, what was there before is kept",
    errno.EDQUOT: "the disk quota is used up; free some room, what was there before is kept",
}


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


class TimeUp(PLSTMGraphError, RuntimeError):
    """A training stopped after the minutes it was given; its last checkpoint is the last finished epoch."""


class OutOfMemory(PLSTMGraphError, RuntimeError):
    """A batch does not fit into memory; the message names a size to try."""


MANY = 20


def check_kind(name: str, given: object, kind: type, how: str) -> None:
    """Raise ShapeError unless an argument is of its kind; ``how`` says where one comes from."""
    if not isinstance(given, kind):
        raise ShapeError(f"{name} must be a {kind.__name__}, got {type(given).__name__}; {how}")


def listed(names: Iterable[object]) -> str:
    """Names for a message: at most :data:`MANY` of them, long ones cut short, and how many more there are."""
    texts = [text if len(text) <= 60 else f"{text[:59]}…" for text in map(str, names)]
    return ", ".join(texts[:MANY]) + (f" and {len(texts) - MANY} more" if len(texts) > MANY else "")


def count(number: int, what: str) -> str:
    """``1 graph``, ``2,000 graphs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def rounded(value: float, places: int = 4, beside: float | None = None) -> str:
    """A score with so many decimals; three figures where these leave less than one: an error in mol/l is not 0.

    Args:
        value: to be written.
        places: decimals.
        beside: the number whose digits it shares, as a deviation those of its mean; by default its own.
    """
    size = abs(value if beside is None else beside)
    return f"{value:.3g}" if 0 < size < 10 ** (1 - places) else f"{value:.{places}f}"


def unknown(kind: str, name: object, choices: Iterable[object]) -> str:
    """Message for a name that is not among ``choices``: the closest one, and all unless they are too many to read."""
    names = [str(choice) for choice in choices]
    close = get_close_matches(str(name), names, n=1)
    if close and len(names) > MANY:
        return f"unknown {kind} {name!r}; did you mean {close[0]!r}?"
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}; choose one of {listed(names)}{hint}"


def said(error: BaseException) -> str:
    """The message of an error on one line; of one of the operating system, which path it was about and what to do."""
    number, path = getattr(error, "errno", None), getattr(error, "filename", None)
    if not isinstance(error, PLSTMGraphError) and number in _REASONS and path is not None:
        return f"cannot use {path}: {_REASONS[number]}"
    if isinstance(error, BrokenPipeError):
        return "a process that works for this one has ended"
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """The first line of what another library says; the kind of error where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def missing_extra(package: str, extra: str) -> str:
    """Message for an optional package that is not installed."""
    return f"{package} is not installed; pip install 'plstm-graph[{extra}]'"
