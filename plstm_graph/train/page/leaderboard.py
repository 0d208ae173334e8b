"""What a public leaderboard asks for, in one place."""

from collections.abc import Sequence
from typing import Any

from plstm_graph.errors import count
from plstm_graph.tasks import METRICS
from plstm_graph.train.machine import in_a_line
from plstm_graph.train.page.entries import Entry
from plstm_graph.train.page.parts import Section, Table, number, plus_minus, ranges

OGB_RUNS = 10


def leaderboard(finished: Sequence[Entry], metric: str) -> Section:
    """Test and validation with unbiased deviation, parameters, hardware, command and so on; and a line to copy."""
    label = METRICS[metric].label
    columns = [dict(_facts(entry, metric)) for entry in finished]
    section = Section("For a leaderboard")
    section.text.append(
        f"{label} as mean ± unbiased standard deviation over runs that differ in seed or fold alone, each at its best "
        "validation epoch."
    )
    few = [entry.name for entry in finished if len(entry.finished) < OGB_RUNS]
    if few and any(str(entry.metrics()[0].get("data", "")).startswith("ogb") for entry in finished):
        section.text.append(f"OGB asks for {OGB_RUNS} seeds (--seeds 0-9); fewer have: {', '.join(few)}.")
    if len(finished) == 1:
        section.facts = list(columns[0].items())
    else:
        rows = [[key, *(column[key] for column in columns)] for key in columns[0]]
        names = [entry.name for entry in finished]
        section.tables.append(Table(["asked for", *names], rows, text=range(1, len(names) + 1)))
    section.code = "\n".join(_line(column, label) for column in columns)
    return section


def _facts(entry: Entry, metric: str) -> list[tuple[str, str]]:
    first = entry.metrics()[0]
    seeds = sorted({int(each.get("seed") or 0) for each in entry.metrics()})
    named = f"seed{'s' if len(seeds) > 1 else ''} {ranges(seeds)}"
    dates = sorted({str(each["date"])[:10] for each in entry.metrics() if each.get("date")})
    return [
        ("method", _method(entry, first)),
        ("data", f"{first['data']}, {first.get('split') or 'own'} split"),
        ("test", plus_minus(entry.score("test", metric))),
        ("validation", plus_minus(entry.score("valid", metric))),
        ("runs", f"{count(len(entry.finished), 'run')}: {entry.repeats}, {named}"),
        ("parameters", number(first["parameters"] or None)),
        ("hardware", "; ".join(dict.fromkeys(in_a_line(each) for each in entry.metrics()))),
        ("date", " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "–"),
        ("external data", "none"),
        ("commit", str(first.get("commit") or "–")),
        ("command", entry.command or str(first.get("command") or "–")),
    ]


def _method(entry: Entry, first: dict[str, Any]) -> str:
    version = first.get("versions", {}).get("plstm_graph", "")
    return f"{entry.runs[0].options.get('model.model', '–')} (plstm_graph {version})".replace(" )", ")")


def _line(facts: dict[str, str], label: str) -> str:
    words = [
        facts["method"],
        facts["data"],
        f"test {label} {facts['test']}",
        f"valid {label} {facts['validation']}",
        facts["runs"],
        f"{facts['parameters']} parameters",
        facts["hardware"],
        f"external data: {facts['external data']}",
        facts["date"],
        f"commit {facts['commit'][:12]}",
        facts["command"],
    ]
    return " | ".join(words)
