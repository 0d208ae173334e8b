"""The table of the README, from stored rows: the plain pLSTM of a benchmark, its variant that validation chose, and
of the other networks the best by test."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import records
from plan import read_plan, stored
from tables import Row, table

from plstm_graph.tasks.metrics import METRICS


class Line(NamedTuple):
    """A task, the page that tells it, the config, its entry that is the plain pLSTM, and of what the scores
    are: ``"test"``, one of several targets, or further data. Where names do not say so, which entries are pLSTM
    (``variants``) and which other networks (``others``)."""

    task: str
    page: str
    config: str
    plain: str
    part: str = "test"
    variants: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


class Found(NamedTuple):
    """Means of an entry over its runs; rivals that tell no validation have NaN."""

    name: str
    valid: float
    test: float
    runs: int


DAGS, ACCURACY, IMAGES = "benchmarks/dags.md", "benchmarks/accuracy.md", "docs/vision.md"
_ARROW = ("P and D", "P", "D", "no position"), ("ViT",)
LINES = (
    Line("value from 500 edges away on a line, trained on up to 50", DAGS, "transfer", "line: pLSTM (default)"),
    Line("the same on a ring with chords", DAGS, "transfer", "crossed ring: pLSTM (default)"),
    Line("eccentricity of every node", DAGS, "echo", "eccentricity: pLSTM"),
    Line("diameter of a graph", DAGS, "echo", "diameter: pLSTM"),
    Line("distance of every node from a source", DAGS, "echo", "distance: pLSTM"),
    Line("circuits: arrival time of every gate", DAGS, "circuits", "pLSTM", "arrival"),
    Line("circuits: signal probability of every gate", DAGS, "circuits", "pLSTM", "probability"),
    Line("neural architectures: accuracy (D-VAE)", DAGS, "dvae", "pLSTM"),
    Line("neural architectures: ranking (NAS-Bench-201, 5 %)", DAGS, "nasbench", "5 %: pLSTM"),
    Line("images: arrow pointing", IMAGES, "arrow", "P and D", "test", *_ARROW),
    Line("the same at twice the training size", IMAGES, "arrow", "P and D", "arrow-384", *_ARROW),
    *(
        Line(f"molecules: {name}", ACCURACY, "small_sets", f"{name}: pLSTM", others=("chemprop",))
        for name in ("nav17", "ESOL", "FreeSolv", "lipo", "BACE", "BBBP")
    ),
    *(
        Line(f"molecules: {name}", ACCURACY, "tudatasets", f"{name}: pLSTM beside GINE")
        for name in ("MUTAG", "NCI1", "PROTEINS", "PTC_FM")
    ),
    Line("molecules: ogbg-molhiv", ACCURACY, "leaderboard_molhiv", "pLSTM beside GINE"),
)


def headline(results: Path = records.RESULTS) -> str:
    """Markdown: means over runs, the best of a line in bold. Lines without another network are left out."""
    heads = ["task", "metric", "pLSTM", "its best variant", "best other network", "runs"]
    done = {name: _done(name, results) for name in {line.config for line in LINES}}
    rivals = records.read(results / "rivals.jsonl")
    lines = [heads, ["---"] * 2 + ["---:"] * 4]
    for line in LINES:
        metric, found = scores(line, done[line.config], rivals)
        plain = [each for each in found if each.name == line.plain.split(": ")[-1]]
        variants = [
            each for each in found if (each.name in line.variants if line.variants else each.name.startswith("pLSTM"))
        ]
        others = [each for each in found if (each.name in line.others if line.others else each not in variants)]
        if plain and others:
            sign = 1 if METRICS[metric].higher_is_better else -1
            variant = max(variants, key=lambda each: sign * each.valid)
            rival = max(others, key=lambda each: sign * each.test)
            cells = cells_of([plain[0], variant, rival], sign)
            lines.append([f"[{line.task}]({line.page})", f"{METRICS[metric].label} {'↑' if sign > 0 else '↓'}", *cells])
    return table(lines)


def _done(config: str, results: Path) -> list[tuple[str, Row]]:
    """Entry and row of every run of a config that is stored."""
    plan = read_plan(records.CONFIGS / f"{config}.toml")
    rows = stored(plan, results / f"{plan.name}.jsonl")
    return [(job.entry, rows[job.key]) for job in plan.jobs if job.key in rows]


def scores(line: Line, done: Sequence[tuple[str, Row]], rivals: Sequence[Row]) -> tuple[str, list[Found]]:
    """The metric of a line, and every entry that has run there, without the name of its set."""
    place = line.plain.rpartition(": ")[0]
    runs: dict[str, list[Row]] = defaultdict(list)
    for entry, row in done:
        where, _, name = entry.rpartition(": ")
        if where == place:
            runs[name].append(row)
    metric = next((own[0]["metric"] for own in runs.values()), "")
    found = []
    for name, own in runs.items():
        pairs = [pair(row, line.part, metric) for row in own]
        valid, test = (statistics.fmean(values) for values in zip(*pairs, strict=True))
        found.append(Found(name, valid, test, len(own)))
    others: dict[str, list[float]] = defaultdict(list)
    for row in rivals:
        if row["rival"] in line.others and row["set"] == place:
            others[row["rival"]].append(row["test"])
    found += [Found(name, math.nan, statistics.fmean(values), len(values)) for name, values in others.items()]
    return metric, found


def pair(row: Row, part: str, metric: str) -> tuple[float, float]:
    """What a run was chosen by, and its score."""
    if part in row.get("by_target", {}):
        return tuple(row["by_target"][part][which][metric] for which in ("valid", "test"))
    return row["valid"][metric], (row["test"] if part == "test" else row["also"][part])[metric]


def cells_of(shown: Sequence[Found], sign: int) -> list[str]:
    """Scores with the names of all but the first, and how many runs each has."""
    best = max(sign * each.test for each in shown)
    cells: list[str] = []
    for each in shown:
        number = f"**{each.test:#.3g}**" if sign * each.test == best else f"{each.test:#.3g}"
        cells.append(f"{number} ({each.name.removeprefix('pLSTM, ')})" if cells else number)
    if shown[1] is shown[0]:
        cells[1] = "the same"
    return [*cells, " / ".join(str(each.runs) for each in shown)]
