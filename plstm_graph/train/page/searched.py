"""What a page says of the search that found the options of a training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plstm_graph.draw import curves
from plstm_graph.errors import count
from plstm_graph.io.json_csv import read_lines
from plstm_graph.tasks import METRICS
from plstm_graph.train.folders import SEARCH, TRIALS
from plstm_graph.train.page.parts import Folded, Section, Table, figure, fixed, number
from plstm_graph.train.progress import lasted

TOP = 10


def searched(folder: Path) -> Section | None:
    """The trials beside a run or a series, or None where nothing was searched."""
    rows = read_lines(folder / SEARCH / TRIALS)
    if not rows:
        return None
    metric = METRICS[rows[0]["metric"]]
    states = Counter(row["state"] for row in rows)
    told = [f"{states[state]} {word}" for state, word in _WORDS.items() if states[state]]
    minutes = sum(row["seconds"] for row in rows) / 60
    section = Section(
        "Search",
        [
            f"{count(len(rows), 'trial')} in {lasted(minutes)}: {', '.join(told)}. They were judged by {metric.label} "
            "on the validation part alone, which flatters the best of many; the test part was not read."
        ],
    )
    known = [row for row in rows if row["valid"] is not None]
    complete = [row for row in known if row["state"] == "complete"]
    complete.sort(key=lambda row: row["valid"], reverse=metric.higher_is_better)
    if complete:
        best = complete[0]
        alt = (
            f"Valid {metric.label} of {len(known)} trials in their order, and the best so far: in the end "
            f"{fixed(best['valid'], 3)} of trial {best['trial']}"
        )
        words = {"label": metric.label, "higher": metric.higher_is_better}
        caption = "A triangle is a trial that is further behind than the axis goes."
        section.figures.append(figure(curves.trials, known, alt=alt, caption=caption, panels=True, **words))
        section.tables.append(_table(complete[:TOP], metric.label, f"The best {min(TOP, len(complete))}"))
    rest = [row for row in rows if row not in complete[:TOP]]
    if rest:
        section.folded.append(Folded("The other trials", tables=[_table(rest, metric.label, "", states=True)]))
    return section


_WORDS = {"complete": "complete", "pruned": "stopped early, behind the median of the others", "failed": "failed"}


def _table(rows: Sequence[Mapping[str, Any]], label: str, caption: str, *, states: bool = False) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row["values"]))
    head = ["trial", f"valid {label}", "epochs", "s", "parameters", *(name.removeprefix("model.") for name in names)]
    cells = [
        [
            str(row["trial"]),
            fixed(row["valid"]),
            str(row["epochs"]),
            f"{row['seconds']:.0f}",
            number(row["params"]),
            *(number(row["values"].get(name)) for name in names),
            *([row.get("reason") or row["state"]] if states else []),
        ]
        for row in rows
    ]
    return Table([*head, *(["how it ended"] if states else [])], cells, caption, text=[len(head)] if states else [])
