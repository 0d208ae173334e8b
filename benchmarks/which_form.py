"""Which form of an image or a chain is the fastest where: a table from stored rows, and what ``auto`` takes there."""

import re
from typing import Any, NamedTuple

import torch
from plot import IN_HALF, hardware
from tables import latest, table

from plstm_graph.grid import CHAIN_FORMS, FORMS, MODES, ChainGates, GridGates, choose_chain_form, choose_form
from plstm_graph.grid.as_dag import faster
from plstm_graph.grid.compiled import unfit
from plstm_graph.grid.dispatch import COMPILED, COMPILED_CHAIN
from plstm_graph.grid.matrix import matrix_bytes

Row = dict[str, Any]
KINDS = {"images": ("grid", "grid-size"), "chains": ("chain",)}
"""What has forms, and the groups of its rows."""


class Measured(NamedTuple):
    """One case on one machine in one dtype.

    Attributes:
        machine: as titles have it.
        case: what was measured on.
        rows: of each form, by its name.
        taken: what ``auto`` takes of them.
    """

    machine: str
    case: str
    rows: dict[str, Row]
    taken: str

    @property
    def fastest(self) -> str:
        """The form with the least median."""
        return min(self.rows, key=lambda form: milliseconds(self.rows[form]))

    @property
    def behind(self) -> float:
        """How many times as long as the fastest what ``auto`` takes needs."""
        return milliseconds(self.rows[self.taken]) / milliseconds(self.rows[self.fastest])


def milliseconds(row: Row) -> float:
    """The median; on a CPU, which others may use at the same time, the least."""
    return float(row["min_ms" if row["machine"]["device"] == "cpu" else "median_ms"])


def measured(rows: list[Row], kind: str) -> list[Measured]:
    """The latest run of every case of images or of chains, by machine, mode and size; float32 before bfloat16."""
    forms = FORMS if kind == "images" else CHAIN_FORMS
    found: dict[tuple[str, str, bool], dict[str, Row]] = {}
    for row in latest([row for row in rows if row["group"] in KINDS[kind]]):
        form = row["name"].removesuffix(IN_HALF)
        if form in forms:
            found.setdefault((hardware(row), row["case"], form != row["name"]), {})[form] = row
    cases = [Measured(machine, case + IN_HALF * half, by, takes(by)) for (machine, case, half), by in found.items()]
    machines = list(dict.fromkeys(each.machine for each in cases))
    return sorted(cases, key=lambda each: (machines.index(each.machine), IN_HALF in each.case, *_order(each)))


def _order(each: Measured) -> tuple[int, int, int]:
    row = next(iter(each.rows.values()))
    mode = _mode(row)
    return MODES.index(mode) if mode else 0, row["sizes"]["N"], row["sizes"]["B"]


def _mode(row: Row) -> str:
    """Of an image; nothing of a chain."""
    return row["case"].rsplit(", ", 1)[-1] if row["group"] != "chain" else ""


def takes(rows: dict[str, Row]) -> str:
    """The form that ``auto`` takes for a case, of those with a row: the others cannot run there."""
    row = next(iter(rows.values()))
    device = "cpu" if row["machine"]["device"] == "cpu" else "cuda"
    b, h, n, keys, values = (row["sizes"][name] for name in "BHNKV")
    chain = row["group"] == "chain"
    size = [n] if chain else [int(side) for side in re.findall(r"(\d+) x (\d+),", row["case"])[-1]]
    query, value = (torch.empty(b, h, *size, width, device="meta") for width in (keys, values))
    gate, gates = torch.empty(b, h, *size, device="meta"), torch.empty(b, 4, h, *size, device="meta")
    given = ChainGates(*4 * [gate]) if chain else GridGates(gates, gates, gates, gate, _mode(row))
    compiled = (COMPILED_CHAIN if chain else COMPILED)[device]
    able = [form for form in compiled if form in rows and unfit(form, query, value, given, unasked=True) is None]
    first = able[0] if able else None
    if isinstance(given, ChainGates):
        return choose_chain_form(n, first)
    edges = device == "cpu" and "propagate" in rows and faster(n, keys * values)
    return choose_form(device, n, matrix_bytes(given), given.mode, first, edges)


def forms_table(rows: list[Row], kind: str) -> str:
    """A table for each machine: time and extra memory of each form, the fastest in bold."""
    cases = measured(rows, kind)
    parts = []
    for machine in dict.fromkeys(each.machine for each in cases):
        own = [each for each in cases if each.machine == machine]
        names = [
            form for form in (FORMS if kind == "images" else CHAIN_FORMS) if any(form in each.rows for each in own)
        ]
        heads = [f"{kind}, on {machine}", "`auto` takes", *(f"`{name}`" for name in names)]
        lines = [heads, ["---", "---", *["---:"] * len(names)]]
        lines += [[each.case, f"`{each.taken}`", *(_cell(each, name) for name in names)] for each in own]
        parts.append(table(lines))
    return "\n\n".join(parts) or "No rows yet."


def _cell(each: Measured, name: str) -> str:
    if name not in each.rows:
        return ""
    row = each.rows[name]
    time = f"{milliseconds(row):.3g} ms"
    time = f"**{time}**" if name == each.fastest else time
    return f"{time}, {row['extra_mib']:,.0f} MiB" if "extra_mib" in row else time
