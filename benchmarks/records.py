"""Rows of results: one JSON line each, with where, when and on what it was measured."""

import importlib.metadata
import io
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import torch

from plstm_graph.errors import PLSTMGraphError
from plstm_graph.io.files import atomic_write
from plstm_graph.io.json_csv import append_line as append
from plstm_graph.io.json_csv import read_lines as read
from plstm_graph.train.machine import machine
from plstm_graph.train.provenance import now, versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CONFIGS = ROOT / "benchmarks" / "configs"
# What a result depends on. Rows and READMEs change by recording itself, so they do not make a checkout dirty.
CODE = ("plstm_graph", "benchmarks", "pyproject.toml", ":(exclude)benchmarks/results", ":(exclude)*.md")


def guarded(main: Callable[..., int]) -> Callable[..., int]:
    """The ``main`` of a script, whose errors that a user can mend become a line on stderr and exit code 1."""

    @wraps(main)
    def run(*arguments: Any) -> int:
        try:
            return main(*arguments)
        except (PLSTMGraphError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return run


@lru_cache(maxsize=1)
def commit() -> tuple[str | None, bool]:
    """Commit of this checkout and whether its code differs from it; (None, False) outside a checkout."""
    try:
        head = _git("rev-parse", "HEAD").strip()
        return head, bool(_git("status", "--porcelain", "--", *CODE).strip())
    except (OSError, subprocess.SubprocessError):
        return None, False


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout


def command(arguments: Sequence[str] | None = None) -> str:
    """The command line as others would type it: from the top of the checkout, and DATA for the folder of --root."""
    words = list(sys.argv if arguments is None else arguments)
    for i, word in enumerate(words):
        if word.startswith("--root="):
            words[i] = "--root=DATA"
        elif i and words[i - 1] == "--root":
            words[i] = "DATA"
        elif Path(word).is_absolute():
            path = Path(word).resolve()
            words[i] = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    return shlex.join(["python", *words])


def _gpu_versions() -> dict[str, str]:
    found = {"cuda": torch.version.cuda or "none"}
    with suppress(importlib.metadata.PackageNotFoundError):
        found["triton"] = importlib.metadata.version("triton")
    return found


def provenance(device: str = "cpu", given: str | None = None) -> dict[str, Any]:
    """What every row ends with. Call it once the number of threads is set.

    Args:
        device: of what was measured.
        given: the commit of these files, for where git cannot tell (a copy without its history).
    """
    head, dirty = (given, False) if given else commit()
    return {
        "date": now(),
        "machine": machine(device),
        "versions": versions() | (_gpu_versions() if device.startswith("cuda") else {}),
        "commit": head,
        "dirty": dirty,
        "command": command(),
    }


def merge(source: Path, target: Path) -> int:
    """Adds the rows of one file that another does not have, and returns how many."""
    known = read(target)
    new = [row for row in read(source) if row not in known]
    for row in new:
        append(target, row)
    return len(new)


def save_figure(figure: Any, path: Path) -> bool:
    """Writes a figure as PNG, unless the file has these bytes already; says whether it did."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    if path.exists() and path.read_bytes() == content.getvalue():
        return False
    with atomic_write(path) as temp:
        temp.write_bytes(content.getvalue())
    return True
