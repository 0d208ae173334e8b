"""The folder of a run: what may be in it, what is written there, and under which versions."""

import csv
import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain, count
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plstm_graph.errors import ConfigError
from plstm_graph.io.files import TABBED, atomic_write, check_target, kind, remove_stale, write_text
from plstm_graph.train.config import TrainConfig, differences, from_dict, read_toml, write_toml
from plstm_graph.train.owner import is_owner_file

if TYPE_CHECKING:
    from plstm_graph.data.molecules import Rejected

CONFIG, SCORES, HISTORY, PREDICTIONS = "config.toml", "metrics.json", "metrics.csv", "predictions.csv"
REJECTED, PAGE, PATCHES = "rejected.csv", "report.html", "patches.png"
START, CARD, PROFILE = "start.json", "card.md", "profile.txt"
PICTURES = ("curves.png", "parity.png", "roc.png", PATCHES)
FILES = (CONFIG, SCORES, HISTORY, PREDICTIONS, *PICTURES, REJECTED, PAGE, START, CARD, PROFILE)
CHECKPOINTS = "checkpoints"
BEST, LAST = f"{CHECKPOINTS}/best.ckpt", f"{CHECKPOINTS}/last.ckpt"
RUN_ROWS, SUMMARY, SERIES = "runs.jsonl", "summary.json", "series.toml"  # of a series, beside the folders of its runs
SERIES_FILES = (RUN_ROWS, SUMMARY, SERIES)
PACKAGES = (
    *("plstm-graph", "torch", "torch-geometric", "torch-scatter", "pytorch-lightning", "numpy"),
    *("rdkit", "ogb"),
)


def check_folder(config: TrainConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """Whether this run may write to its output folder, found out before anything that takes time; leaves no trace.

    Raises:
        ConfigError: the folder has something in it already; holds a run with other options; cannot be written.
    """
    out = Path(str(config.out))
    if resume and overwrite:
        raise ConfigError("--resume continues a run and --overwrite replaces it: give one of them")
    if resume:
        differing = differences(config, stored_config(out))
        if differing:
            raise ConfigError(
                f"the run in {out} has other options: {'; '.join(differing)}; give the same, or another --out"
            )
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (resume or overwrite) and not all(map(is_owner_file, out.iterdir())):
            raise ConfigError(f"output folder {out} is not empty; give --resume, --overwrite or another --out")
        if taken := next((name for name in FILES if (out / name).is_dir()), None):
            raise ConfigError(f"{out / taken} is a folder where a file of the run belongs; move it away")
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to output folder {out}: {error.strerror}; choose another --out") from error
    finally:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()


def open_folder(
    config: TrainConfig, begin: Callable[[Path], None], *, resume: bool = False, rejected: "Sequence[Rejected]" = ()
) -> Path | None:
    """Prepares the folder and stores the config in it; returns the checkpoint to resume from, if there is one.

    A run that was stopped before its first epoch ended has no checkpoint: resuming it starts it anew. ``begin``
    stores what else the run begins with.
    """
    out = Path(str(config.out))
    (out / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    remove_stale(out)
    remove_stale(out / CHECKPOINTS)
    if resume:
        return last_checkpoint(out)
    clear(out)
    if rejected:
        named = any(any(row[3:]) for row in rejected)
        names, rows = ["row", "text", "reason", "id"], ((*row[:3], *row[3 : 3 + named]) for row in rejected)
        write_rows(out / REJECTED, names[: 3 + named], rows)
    begin(out)
    write_toml(config, out / CONFIG)  # last: with it, the run can be resumed
    return None


def clear(out: Path) -> None:
    """Remove what an earlier run or series left; nothing else in the folder is touched, nor the runs of the series."""
    for name in (*FILES, *SERIES_FILES, BEST, LAST):
        (out / name).unlink(missing_ok=True)


def stored_config(out: str | Path) -> TrainConfig:
    """The config of the run in folder ``out``.

    Raises:
        ConfigError: there is no run.
    """
    path = Path(out) / CONFIG
    if not path.is_file():
        raise ConfigError(f"nothing to resume in {out}: it holds no {CONFIG}; leave out --resume to start a run")
    return from_dict(read_toml(path))


def last_checkpoint(out: str | Path) -> Path | None:
    """The last finished epoch of the run in ``out``, or None before its first one."""
    last = Path(out) / LAST
    return last if last.exists() else None


def write_json(path: str | PathLike[str], content: Mapping[str, Any]) -> None:
    """JSON without NaN (null instead), whole or not at all."""
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | PathLike[str]) -> Any:
    """Content of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def append_line(path: str | PathLike[str], row: Mapping[str, Any]) -> None:
    """Adds one line, whole and on disk when this returns; after a line that a kill cut short it starts a new one."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(_finite(row), ensure_ascii=False) + "\n").encode()
    with open(path, "a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else b"\n" + line
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())


def write_lines(path: str | PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A row a line, whole or not at all."""
    write_text(path, "".join(json.dumps(_finite(row), ensure_ascii=False) + "\n" for row in rows))


def read_lines(path: str | PathLike[str]) -> list[dict[str, Any]]:
    """Rows of a file, none if there is no file; a line that is not JSON is named on stderr and left out."""
    rows, path = [], Path(path)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path.name}, line {number} is cut short or not JSON; left out", file=sys.stderr)
    return rows


def number(value: float | None) -> float:
    """What stood for NaN, which JSON does not have, is NaN again."""
    return float("nan") if value is None else value


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_rows(
    path: str | PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]], *, durable: bool = True
) -> None:
    """A CSV file, whole or not at all; with tabs if its name ends in ``.tsv``, packed if it ends in ``.gz``."""
    check_target(path, table=True)
    with atomic_write(path, durable=durable) as temp, temp.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t" if kind(path) in TABBED else ",")
        writer.writerow(header)
        writer.writerows(rows)


def apart(names: Iterable[str], taken: Sequence[str]) -> list[str]:
    """Names of columns with ``_predicted`` behind those that are ``taken``, or the name of another of them already; and
    ``_predicted_2`` and so on where that is, too."""
    found = list(taken)
    for name in names:
        other = f"{name.removesuffix('_predicted')}_predicted"
        tried = chain([name, other], (f"{other}_{number}" for number in count(2)))
        found.append(next(each for each in tried if each not in found))
    return found[len(taken) :]


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter and are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name.replace("-", "_")] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def commit() -> str | None:
    """Commit of the checkout this package runs from, with ``-dirty`` if files were changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
            ).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.strip() + ("-dirty" if changed.strip() else "")
