"""What is found in the folders of runs and series, without torch."""

import os
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from plstm_graph.errors import CheckpointError, ConfigError
from plstm_graph.io.files import expanded
from plstm_graph.train.config import TrainConfig, from_dict, read_toml
from plstm_graph.train.results import BEST, CONFIG, RUN_ROWS, SCORES, SERIES

SEARCH, SEARCH_CONFIG, TRIALS = "search", "search.toml", "trials.jsonl"
"""Folder of a search beside the run of what it found, what is searched, and a row a trial."""
INSTEAD = "give best.ckpt or the folder that train was given as --out"
BLENDED = "is a blend, with no network of its own; give its members"
_WHOLE = re.compile("[0-9]+")


def locate(path: str | os.PathLike[str]) -> Path:
    """The checkpoint file; for the folder of a run, its best one."""
    where = expanded(path)
    return where / BEST if where.is_dir() else where


def missing(path: str | os.PathLike[str]) -> str:
    """What to give instead of a path that led to no checkpoint."""
    folder, where, runs = Path(path), locate(path), runs_of(Path(path))
    if _is_blend(folder):
        return f"{folder} {BLENDED}"
    if not runs and not any((folder / name).is_file() for name in (RUN_ROWS, SERIES)):
        return f"cannot read checkpoint {where}: No such file or directory; {INSTEAD}"
    ready = next((run for run in runs if locate(run).is_file()), None)
    return f"{folder} is a series; " + (
        f"give one of its runs, for example {ready}" if ready else "none of its runs has a checkpoint yet"
    )


def runs_of(folder: Path) -> list[Path]:
    """The folders of a series, by fold and seed; those that an earlier one left beside them are none of it."""
    found = ((re.fullmatch(r"(?:fold-(\d+)_)?seed-(\d+)", path.name), path) for path in folder.glob("*seed-*/"))
    runs = {path: (int(match[1] or 0), int(match[2])) for match, path in found if match}
    if (folder / CONFIG).is_file() and not (folder / SERIES).is_file():
        return []
    asked = members_of(folder)
    return sorted((path for path in runs if asked is None or runs[path] in asked), key=lambda path: (runs[path], path))


def members_of(folder: Path) -> set[tuple[int, int]] | None:
    """Fold and seed of each run of the series in a folder; None where that is not stored."""
    series = read_toml(folder / SERIES).get("series") if (folder / SERIES).is_file() else None
    return None if series is None else set(product(series["folds"], series["seeds"]))


def check_checkpoint(path: str | os.PathLike[str]) -> None:
    """Raise CheckpointError unless ``path`` leads to a file."""
    if not locate(path).exists():
        raise CheckpointError(missing(path))


def check_run(folder: str | os.PathLike[str]) -> None:
    """Raise ConfigError unless it is the folder of a run or a series."""
    if not any((Path(folder) / name).is_file() for name in (CONFIG, SERIES)):
        none = f"is not the folder of a run: it holds no {CONFIG}; give what train was given as --out"
        raise ConfigError(f"{folder} {BLENDED if _is_blend(Path(folder)) else none}")


def _is_blend(folder: Path) -> bool:
    return (folder / SCORES).is_file() and not (folder / CONFIG).is_file()


def stored_series(out: str | Path) -> tuple[TrainConfig, dict[str, list[int]]] | None:
    """Config, and ``seeds`` and ``folds``, of the series in a folder, or None where there is none."""
    path = Path(out) / SERIES
    if not path.is_file():
        return None
    content = read_toml(path)
    series = content.pop("series")
    return from_dict(content), {name: series[name] for name in ("seeds", "folds")}


def stored_search(out: str | Path) -> tuple[TrainConfig, dict[str, Any]] | None:
    """Config of the search in a folder and what else it stores (see ``searching.plan.Plan``), or None where there is
    none."""
    path = Path(out) / SEARCH / SEARCH_CONFIG
    if not path.is_file():
        return None
    content = read_toml(path)
    own = content.pop("search")
    return replace(from_dict(content), out=str(out)), own


def numbers(text: str, name: str = "seeds") -> list[int]:
    """``"0-2,7"`` is 0, 1, 2, 7.

    Raises:
        ConfigError: anything else, or one number twice.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not all(map(_WHOLE.fullmatch, (first, last) if dash else (first,))):
            raise ConfigError(f"--{name} takes whole numbers and ranges, as 0-9 or 0,2,5-7 (got {text!r})")
        found += range(int(first), int(last if dash else first) + 1)
    if not found or len(set(found)) < len(found):
        raise ConfigError(f"--{name} must name each number once, ranges from low to high (got {text!r})")
    return found
