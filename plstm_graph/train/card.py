"""The model card of a run: what it was trained on, how good it is, and where it ends."""

from collections.abc import Mapping
from typing import Any

from plstm_graph.errors import count, rounded
from plstm_graph.tasks import METRICS


def card(found: Mapping[str, Any], model: str) -> str:
    """Markdown that says what ``metrics.json`` holds to someone who gets the model.

    Args:
        found: the content of ``metrics.json``.
        model: name of the architecture.
    """
    label = METRICS[found["metric"]].label
    counts = ", ".join(f"{count:,} {part}" for part, count in found["graphs"].items())
    lines = [
        f"# {found['data']}: {', '.join(found['targets']) or found['task']}",
        "",
        f"A model `{model}` ({found['task']}), {found['parameters']:,} parameters.",
        "",
        "## Data",
        "",
        f"{found['data']} (hash {found['data_hash']}), split {found['split']}: {counts}.",
        f"{count(found['rejected'], 'row')} rejected.",
        "",
        "## Scores",
        "",
        f"{label} on validation {_number(found['valid'][found['metric']])}, by which the epoch was chosen"
        + (f"; on the test part {_test(found)}." if found["test"] else "."),
        *_targets(found, label),
        "",
        "## Limits",
        "",
        "Whatever is unlike the training is answered as well, and worse: the test score holds for what is drawn as the",
        f"{found['split']} split draws it. Of molecules `predict` gives a spread where there is an ensemble.",
        *[f"No {part} label for: {', '.join(names)}." for part, names in found.get("unlabelled", {}).items()],
        "",
        "## Made with",
        "",
        ", ".join(f"{name} {version}" for name, version in found["versions"].items()) + ".",
        *(["", f"    {found['command']}"] if found.get("command") else []),
    ]
    return "\n".join(lines) + "\n"


def _test(found: Mapping[str, Any]) -> str:
    value, ends = _number(found["test"][found["metric"]]), found.get("test_interval")
    return f"{value} ({_number(ends['low'])} to {_number(ends['high'])}, 95 % by bootstrap)" if ends else value


def _targets(found: Mapping[str, Any], label: str) -> list[str]:
    scores = found.get("by_target", {})
    if not scores:
        return []
    rows = [
        f"| {name} | {_number(parts['valid'][found['metric']])} | {_number(parts['test'][found['metric']])} |"
        for name, parts in scores.items()
    ]
    return ["", f"| {label} | valid | test |", "| --- | ---: | ---: |", *rows]


def _number(value: float | None) -> str:
    return "not defined" if value is None or value != value else rounded(value, 3)
