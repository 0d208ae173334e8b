"""Markdown tables from stored rows."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]


def speed_table(rows: list[Row], group: str) -> str:
    """The latest run of every case, devices apart. ``vs``: how many times as fast as that, by medians."""
    found = latest([row for row in rows if row["group"] == group])
    devices = list(dict.fromkeys(row["machine"]["device"] for row in found))
    parts = [_on_device(device, [row for row in found if row["machine"]["device"] == device]) for device in devices]
    return "\n\n".join(parts) or "No rows yet."


def latest(rows: list[Row]) -> list[Row]:
    """Rows of the latest run of each case on each device, small cases first. One that timed nothing beside ours comes
    only where no other did."""
    names = defaultdict(set)
    for row in rows:
        names[row["machine"]["device"], row["case"], row["run"]].add(row["name"])
    runs: dict[tuple[str, str], str] = {}
    for (device, case, run), found in names.items():
        if len(found) > 1 or len(names[device, case, runs.get((device, case), run)]) == 1:
            runs[device, case] = run
    kept = [row for row in rows if row["run"] == runs[row["machine"]["device"], row["case"]]]
    return sorted(kept, key=lambda row: row["sizes"].get("E", 0))


def _on_device(device: str, rows: list[Row]) -> str:
    columns = [column for column in SPEED if column.always or any(column.has(row) for row in rows)]
    others = list(dict.fromkeys(other for row in rows for other in row.get("ratios", {})))
    heads = ["what", *(column.head for column in columns), *(f"vs {other}" for other in others)]
    goals = any(_targets(row) for row in rows)
    heads += ["target"] * goals
    rule = ["---"] + ["---:"] * (len(heads) - 1)
    parts, last = [f"On {device}:"], None
    for row in rows:
        if row["case"] != last:
            parts.append(f"{_case(row)}\n\n{table([heads, rule])}")
            last = row["case"]
        cells = [row["name"], *(column.cell(row) if column.has(row) else "" for column in columns)]
        cells += [_ratio(row.get("ratios", {}).get(other)) for other in others]
        cells += ["; ".join(f"{goal}: {'met' if met else 'missed'}" for goal, met in _targets(row).items())] * goals
        parts[-1] += "\n" + table([cells])
    return "\n\n".join([*parts, made_by(rows)])


class Column(NamedTuple):
    """A column of a speed table: what a row must have to fill it, and how."""

    head: str
    key: str
    cell: Callable[[Row], str]
    always: bool = False

    def has(self, row: Row) -> bool:
        return self.key in row


SPEED = (
    Column("median", "median_ms", lambda row: _time(row["median_ms"]), True),
    Column("quartiles", "q1_ms", lambda row: f"{_time(row['q1_ms'])} to {_time(row['q3_ms'])}", True),
    Column("parameters", "parameters", lambda row: f"{row['parameters']:,}"),
    Column("device", "device_ms", lambda row: _time(row["device_ms"])),
    Column("extra memory", "extra_mib", lambda row: f"{row['extra_mib']:,.0f} MiB"),
    Column("GPU busy", "busy", lambda row: f"{100 * row['busy']:.0f} %"),
    Column("x byte floor", "floor_ms", lambda row: _ratio(row["median_ms"] / row["floor_ms"])),
)


def _targets(row: Row) -> dict[str, bool]:
    """What the row should reach and whether it does; older rows have one at most."""
    return row.get("targets") or ({row["target"]: row["met"]} if "target" in row else {})


PACKAGES = ("python", "torch", "torch_geometric", "triton", "torch_scatter")


def suite_table(rows: list[Row]) -> str:
    """Runs of the tests on other machines or with other packages, latest first."""
    if not rows:
        return "No runs yet."
    heads = ["date", "device", "versions", "commit", "passed", "failed", "skipped", "minutes", "command"]
    lines = [heads, ["---"] * 4 + ["---:"] * 4 + ["---"]]
    for row in reversed(rows):
        versions = ", ".join(f"{name} {row['versions'][name]}" for name in PACKAGES if name in row["versions"])
        counts = [f"{row[name]:,}" for name in ("passed", "failed", "skipped")]
        where = [row["date"][:10], row["machine"]["device"], versions, (row["commit"] or "unknown")[:10]]
        command = f"`{row['command']}`" + (f"; {row['note']}" if "note" in row else "")
        lines.append([*where, *counts, f"{row['seconds'] / 60:.1f}", command])
    return table(lines)


def explanations_table(rows: list[Row]) -> str:
    """How well explanations find the atoms that a label counts."""
    heads = ["label counts", "model", "test R²", "molecules", "AUC"]
    heads += ["AUC of GNNExplainer, nodes", "its edges", "seconds each", "its seconds"]
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    for row in rows:
        auc, seconds = row["auc"], row["seconds_each"]
        scores = [f"{auc[name]:.4f}" for name in ("scores", "node mask", "edge mask")]
        times = [f"{seconds[name]:.2f}" for name in ("explain", "GNNExplainer")]
        lines.append([row["group"], row["model"], f"{row['test']['r2']:.4f}", str(row["explained"]), *scores, *times])
    return told(lines, rows)


def reliability_table(rows: list[Row]) -> str:
    """Runs that were killed or met, and inputs at random; a failure leaves no row."""
    lines = [["what", "how many", "minutes"], ["---", "---:", "---:"]]
    names = {
        "kill": ("kills", "kills, each resumed to the same bits"),
        "together": ("pairs", "pairs of runs started in one folder: one to the same bits, one told"),
        "answer": ("answers", "`plstm-graph train --splitt x` refused, median {cpu_seconds:.2f} CPU seconds"),
        "fuzz": ("cases", "random inputs without a traceback or a hang"),
    }
    for row in rows:
        count, text = names[row["what"]]
        text = text.format(**row)
        lines.append([text, f"{row[count]:,}", f"{row['seconds'] / 60:.1f}"])
    return told(lines, rows)


def predicting_table(rows: list[Row]) -> str:
    """The latest row: what it takes for one molecule, for a line, and for many."""
    if not rows:
        return "No rows yet."
    row = rows[-1]
    many = row["many"]
    lines = [["what", "seconds", "CPU seconds", "largest process, MiB"], ["---", "---:", "---:", "---:"]]
    for what, found in (
        ("importing torch and rdkit alone", row["floor"]),
        ("one molecule from the shell", row["one"]),
        (f"{many['molecules']:,} molecules, --jobs {many['jobs']}: {many['per_second']:,.0f} a second", many),
    ):
        lines.append([what, f"{found['seconds']:.2f}", f"{found['cpu_seconds']:.2f}", f"{found['peak_mib']:.0f}"])
    lines.append(["resident: start to first answer", f"{row['resident']['first_seconds']:.2f}", "", ""])
    lines.append(["resident: line to answer", f"{row['resident']['next_seconds']:.4f}", "", ""])
    load = f"Processes that wanted a core when it began and ended: {row['load'][0]:.1f}, {row['load'][1]:.1f}."
    return "\n\n".join([table(lines), load, made_by([row])])


def rounding_table(rows: list[Row]) -> str:
    """What bfloat16 costs a layer, by what is rounded to it."""
    heads = ["rounded to bfloat16", "mean", "largest", "median of the relative error, all outputs"]
    heads += ["of those below a tenth of the mean size", "off by more than a tenth"]
    lines = [heads, ["---", *["---:"] * 5]]
    for row in rows[-1:]:
        for what, found in row["rounded"].items():
            sizes = [f"{found['mean']:.4f}", f"{found['largest']:.2f}"]
            shares = [f"{found[name]:.1%}" for name in ("relative", "relative_small", "off_by_a_tenth")]
            lines.append([what, *sizes, *shares])
    return told(lines, rows[-1:])


def blends_table(rows: list[Row]) -> str:
    """Blends of finished runs, means over seeds."""
    names = list(dict.fromkeys(row["blend"] for row in rows))
    lines = [["blend", "data", "members", "valid", "test", "std", "seeds"], ["---"] * 2 + ["---:"] * 5]
    for name in names:
        own = [row for row in rows if row["blend"] == name]
        valid, test = ([row[part][row["metric"]] for row in own] for part in ("valid", "test"))
        spread = f"{statistics.stdev(test):.4f}" if len(test) > 1 else "-"
        means = [f"{statistics.fmean(values):.4f}" for values in (valid, test)]
        lines.append([name, own[0]["data"], str(len(own[0]["members"])), *means, spread, str(len(own))])
    return told(lines, rows, "No runs yet.")


def devices_table(rows: list[Row]) -> str:
    """What several devices are worth, and whether they train as one does."""
    lines = [["what", "data", "devices", "result"], ["---", "---", "---:", "---"]]
    for row in rows:
        what, data = row["what"], row["data"]
        if what == "curve":
            text = "losses of {} epochs at most {:.0e} from those of one"
            lines += [["same batches", data, n, text.format(row["epochs"], x)] for n, x in row["apart"].items()]
        elif what == "strike":
            text = f"one killed, resumed: scores {row['apart']:.0e} from the undisturbed run's"
            lines.append(["a process dies", data, "2", text])
        elif what == "throughput":
            for case in row["cases"]:
                text = f"{case['per_second']:,.0f} examples a second, efficiency {case['efficiency']:.2f}"
                how = ", captured" * bool(row.get("captured"))
                lines.append([f"batches of {case['batch_size']} each{how}", data, str(case["devices"]), text])
        else:
            lines.append(["seeds side by side", data, str(row["seeds"]), f"{row['ratio']:.2f} × the time of one"])
    return told(lines, rows)


def data_table(rows: list[Row]) -> str:
    """What of a training step goes into getting its batch."""
    heads = ["data", "how", "graphs a batch", "batch", "step", "share of the time for data"]
    lines = [heads, ["---"] * 2 + ["---:"] * 4]
    for row in rows:
        times = (f"{row['batch_ms']:.2f} ms", f"{row['step_ms']:.2f} ms", f"{100 * row['share']:.1f} %")
        lines.append([row["data"], row["name"], str(row["batch_size"]), *times])
    return told(lines, rows)


def tracking_table(rows: list[Row]) -> str:
    """How often the state of a chain is told right, by what is tracked and J: mean over seeds, least and most."""
    found: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["things"], row["states"]].append(row)
    lengths = list(rows[0]["right"]) if rows else []
    heads = ["tokens", "J", *(f"{int(length):,} tokens" for length in lengths), "by chance", "seeds", "seconds a run"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for (things, states), own in sorted(found.items()):
        right = [[row["right"][length] for row in own] for length in lengths]
        shares = [f"{statistics.fmean(some):.3f} ({min(some):.3f} to {max(some):.3f})" for some in right]
        seconds = statistics.median(row["seconds"] for row in own)
        chance = 1 / math.factorial(things)
        lines.append([f"S{things}", str(states), *shares, f"{chance:.3f}", str(len(own)), f"{seconds:.0f}"])
    return told(lines, rows)


def which_epoch_table(rows: list[Row]) -> str:
    """What the first and the last of the best epochs score on test: means over runs."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["entry"]].append(row)
    heads = ["model", "runs", "best epochs", "first of them", "test, first", "test, last", "test, end of training"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for entry, own in found.items():
        means = {
            name: statistics.fmean(row[name] for row in own) for name in ("equal", "epoch", "first", "last", "end")
        }
        counts = [f"{means[name]:.1f}" for name in ("equal", "epoch")]
        lines.append([entry, str(len(own)), *counts, *(f"{means[name]:.4f}" for name in ("first", "last", "end"))])
    return told(lines, rows)


def reach_table(rows: list[Row]) -> str:
    """How far blocks read, by order."""
    heads = ["data", "order", "levels", "1 block", "2 blocks", "4 blocks"]
    lines = [heads, ["---"] * 2 + ["---:"] * 4]
    for row in rows:
        shares = (f"{100 * row[f'blocks_{blocks}']:.0f} %" for blocks in (1, 2, 4))
        levels = "-" if row["order"] == "one hop" else f"{row['levels']:.1f}"
        lines.append([row["data"], row["order"], levels, *shares])
    return told(lines, rows)


def notes_table(rows: list[Row]) -> str:
    """Changes for speed in the order they were made, with what was expected of each."""
    heads = ["date", "change", "case", "predicted", "before", "after", "what was learnt"]
    lines = [heads, ["---"] * 3 + ["---:"] * 3 + ["---"]]
    names = ("date", "change", "case", "predicted", "before", "after", "learnt")
    return table([*lines, *([row[name] for name in names] for row in rows)])


def trials_table(rows: list[Row], data: str) -> str:
    """Settings tried while choosing, by their mean validation metric; only what differs between them is named."""
    groups: dict[str, list[Row]] = {}
    chosen = [row for row in rows if row["data"] == data]
    settings = [{**row["model"], "epochs": row["epochs"]} for row in chosen]
    varied = sorted(key for key in settings[0] if len({str(setting[key]) for setting in settings}) > 1)
    for row, setting in zip(chosen, settings, strict=True):
        name = ", ".join(f"{key} {setting[key]}" for key in varied if not _unused(setting, key))
        groups.setdefault(name, []).append(row)
    lines = [["setting", "parameters", "valid", "test", "runs"], ["---"] + ["---:"] * 4]
    for name, found in sorted(groups.items(), key=lambda item: -statistics.fmean(r["valid"] for r in item[1])):
        means = [f"{statistics.fmean(row[part] for row in found):.4f}" for part in ("valid", "test")]
        lines.append([name, f"{found[0]['params']:,}", *means, str(len(found))])
    return table(lines)


def _unused(setting: Row, key: str) -> bool:
    """Whether a model without pLSTM layers does not look at this setting."""
    return setting["model"] != "plstm" and key in ("local", "heads", "modes", "order")


def _case(row: Row) -> str:
    sizes = ", ".join(f"{name} = {value:,}" for name, value in row["sizes"].items())
    text = f"**{row['case']}**; {sizes}"
    if "build_ms" in row:
        text += f"; LineDAG built in {_time(row['build_ms'])}"
    if "floor_bytes" in row:
        text += f"; byte floor {row['floor_bytes'] / 2**20:.2f} MiB, {row['floor_count']}"
    return text


def made_by(rows: list[Row]) -> str:
    """Machine, versions and commit, once for each combination."""
    lines = set()
    for row in rows:
        commit = (row["commit"] or "unknown")[:10] + (" with local changes" if row["dirty"] else "")
        machine, versions = row["machine"], row["versions"]
        hardware = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
        packages = f"torch {versions.get('torch')}, torch-geometric {versions.get('torch_geometric')}"
        packages += f", triton {versions['triton']}" if "triton" in versions else ""
        text = (
            f"{row['date'][:10]}, commit {commit}; {hardware}, {machine['cores']} cores, {machine['threads']} threads"
        )
        lines.add(f"- {text}; {packages}: `{row['command']}`")
    return "\n".join(sorted(lines))


def _time(ms: float) -> str:
    return f"{ms / 1e3:.2f} s" if ms >= 1e3 else f"{ms:.3g} ms" if ms < 100 else f"{ms:.0f} ms"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def told(lines: Iterable[Sequence[str]], rows: list[Row], none: str = "No rows yet.") -> str:
    """A table, and below it where its rows were made; ``none`` where there are no rows."""
    return f"{table(lines)}\n\n{made_by(rows)}" if rows else none


def table(lines: Iterable[Sequence[str]]) -> str:
    """Markdown of rows of cells, the first two being heads and rules."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
