"""The folder of a run: what may be in it, and how it is opened, cleared and resumed."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from plstm_graph.errors import ConfigError
from plstm_graph.io.files import remove_stale
from plstm_graph.io.json_csv import write_rows
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
