"""JSON, JSON lines and CSV, written whole or not at all."""

import csv
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from os import PathLike
from pathlib import Path
from typing import Any

from plstm_graph.io.files import TABBED, atomic_write, check_target, kind, write_text


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


def nan_for_none(value: float | None) -> float:
    """What stood for NaN, which JSON does not have, is NaN again."""
    return float("nan") if value is None else value


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
