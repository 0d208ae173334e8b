"""Fill tables of docs and benchmarks from rows, draw cost against size: ``benchmarks/report.py [--check]``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; NAME is a config of ``configs/``, a group of
``speed.py`` after ``speed-``, images or chains after ``forms-``, a data set after ``trials-``, one of the files of rows
that have a table of their own (``OTHERS``), or that of the README (``headline.py``). ``--merge FILE`` first takes over
rows that were recorded elsewhere.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import records
from boards import board, sets_board
from headline import headline
from plan import read_plan, stored
from plot import draw
from tables import (
    blends_table,
    data_table,
    devices_table,
    explanations_table,
    notes_table,
    predicting_table,
    reach_table,
    reliability_table,
    rounding_table,
    speed_table,
    suite_table,
    tracking_table,
    trials_table,
    which_epoch_table,
)
from which_form import KINDS, forms_table

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.io.files import write_text

PAGES = (
    records.ROOT / "README.md",
    records.ROOT / "docs" / "recipes.md",
    records.ROOT / "docs" / "vision.md",
    records.ROOT / "docs" / "backends.md",
    *sorted((records.ROOT / "benchmarks").glob("*.md")),
)
GROUPS = (
    "operator",
    "layer",
    "block",
    "step",
    "epoch",
    "line-dag",
    "cones",
    "circuit",
    "deep",
    "random",
    "grid",
    "chain",
)
OTHERS = {
    "blends": blends_table,
    "notes": notes_table,
    "gpu_suite": suite_table,
    "environments": suite_table,
    "data": data_table,
    "reach": reach_table,
    "tracking": tracking_table,
    "which_epoch": which_epoch_table,
    "explanations": explanations_table,
    "reliability": reliability_table,
    "predicting": predicting_table,
    "devices": devices_table,
    "rounding": rounding_table,
}
PLOTS = {
    "operator": ("speed", records.RESULTS / "cost_against_size.png"),
    "grid": ("speed", records.ROOT / "docs" / "grids_against_size.png"),
    "devices": ("devices", records.ROOT / "docs" / "devices.png"),
}
OPEN, CLOSE = re.compile(r"^<!-- table: (\S+) -->$"), "<!-- end -->"
COMMANDS = re.compile(r"(?:^- \d{4}-\d\d-\d\d, commit .*(?:\n|\Z)){3,}", re.MULTILINE)

Tables = Mapping[str, Callable[[], str]]


def tables(configs: Path = records.CONFIGS, results: Path = records.RESULTS) -> Tables:
    """Every table there is, by name; made when called."""

    def from_config(config: Path) -> str:
        plan = read_plan(config)
        rows = stored(plan, results / f"{plan.name}.jsonl")
        if config.stem == "small_sets":
            return sets_board(plan, rows, records.read(results / "rivals.jsonl"))
        return board(plan, rows)

    def speed(group: str) -> str:
        return speed_table(records.read(results / "speed.jsonl"), group)

    def forms(kind: str) -> str:
        return forms_table(records.read(results / "speed.jsonl"), kind)

    def trials(data: str) -> str:
        return trials_table(records.read(results / "trials.jsonl"), data)

    def other(name: str) -> str:
        return OTHERS[name](records.read(results / f"{name}.jsonl"))

    boards = {config.stem: partial(from_config, config) for config in sorted(configs.glob("*.toml"))}
    speeds = {f"speed-{group}": partial(speed, group) for group in GROUPS}
    return {
        **boards,
        **speeds,
        **{f"forms-{kind}": partial(forms, kind) for kind in KINDS},
        **{f"trials-{data}": partial(trials, data) for data in ("nav17", "MUTAG")},
        **{name: partial(other, name) for name in OTHERS},
        "headline": partial(headline, results),
    }


def fill(text: str, found: Tables) -> str:
    """``text`` with every table replaced by what the rows say now; filling twice changes nothing.

    Raises:
        ConfigError: a table of no such name, or without its end.
    """
    lines: list[str] = []
    inside: str | None = None
    for line in text.splitlines():
        start = OPEN.match(line)
        if inside and start:
            break
        if start:
            inside = start[1]
            if inside not in found:
                raise ConfigError(unknown("table", inside, found))
            lines += [line, "", COMMANDS.sub(_fold, found[inside]()), ""]
        elif line == CLOSE and inside:
            inside = None
        if not inside:
            lines.append(line)
    if inside:
        raise ConfigError(f"table {inside!r} has no end; put a line {CLOSE} after it")
    return "\n".join(lines) + "\n"


def _fold(commands: re.Match[str]) -> str:
    """The commands of a table behind a click: with many of them nobody sees the next table."""
    listed = commands[0].rstrip("\n")
    summary = f"<summary>{listed.count(chr(10)) + 1} commands that made these rows, with machine and versions</summary>"
    rest = commands[0][len(listed) :]
    return f'<details markdown="1">\n{summary}\n\n{listed}\n\n</details>{rest}'


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Writes the pages, or with ``--check`` says which of them are stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=list(PAGES))
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a table is stale")
    parser.add_argument("--results", type=Path, default=records.RESULTS)
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="rows for the file of that name in --results")
    options = parser.parse_args(arguments)
    stale = []
    for path in options.merge:
        print(f"{records.merge(path, options.results / path.name)} new rows from {path.name}")
    if not options.check and options.results == records.RESULTS:
        for picture, (rows, path) in PLOTS.items():
            draw(records.read(options.results / f"{rows}.jsonl"), path, picture)
    for path in options.files:
        text = path.read_text(encoding="utf-8")
        filled = fill(text, tables(results=options.results))
        if filled == text:
            continue
        stale.append(path.name)
        if not options.check:
            write_text(path, filled)
    print(f"{'stale' if options.check else 'written'}: {', '.join(stale)}" if stale else "all tables are current")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
