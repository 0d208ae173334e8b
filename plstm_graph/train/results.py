"""The folder of a run: what may be in it, what is written there, and under which versions."""

import csv
import importlib.metadata
import json
import math
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from plstm_graph.data.molecules import Rejected
from plstm_graph.errors import ConfigError
from plstm_graph.files import atomic_write, remove_stale
from plstm_graph.train.config import TrainConfig, differences, from_dict, read_toml, write_toml

CONFIG, METRICS = "config.toml", "metrics.json"
FILES = (CONFIG, METRICS, "metrics.csv", "curves.png", "parity.png", "roc.png", "rejected.csv")
CHECKPOINTS = ("best.ckpt", "last.ckpt")
PACKAGES = (
    *("plstm-graph", "torch", "torch-geometric", "torch-scatter", "pytorch-lightning", "torchmetrics", "numpy"),
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
        if not (resume or overwrite) and any(out.iterdir()):
            raise ConfigError(f"output folder {out} is not empty; give --resume, --overwrite or another --out")
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to output folder {out}: {error.strerror}; choose another --out") from error
    finally:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()


def open_folder(config: TrainConfig, *, resume: bool = False, rejected: Sequence[Rejected] = ()) -> Path | None:
    """Prepares the folder and stores the config in it; returns the checkpoint to resume from, if there is one.

    A run that was stopped before its first epoch ended has no checkpoint: resuming it starts it anew.
    """
    out = Path(str(config.out))
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    remove_stale(out)
    remove_stale(out / "checkpoints")
    if resume:
        return last_checkpoint(out)
    for path in [*(out / name for name in FILES), *(out / "checkpoints" / name for name in CHECKPOINTS)]:
        path.unlink(missing_ok=True)  # of an earlier run; nothing else in the folder is touched
    write_toml(config, out / CONFIG)
    if rejected:
        write_rows(out / "rejected.csv", ["row", "text", "reason"], rejected)
    return None


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
    last = Path(out) / "checkpoints" / "last.ckpt"
    return last if last.exists() else None


def write_json(path: str | PathLike[str], content: Mapping[str, Any]) -> None:
    """JSON without NaN (null instead), whole or not at all."""
    with atomic_write(path) as temp:
        temp.write_text(json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_rows(path: str | PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file, whole or not at all."""
    with atomic_write(path) as temp, temp.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


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
