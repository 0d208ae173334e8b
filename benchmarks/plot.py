"""Cost against size, a curve for each backend or form, and speed against devices, from stored rows."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from records import save_figure
from tables import latest

FAMILY = "molecules of 20 to 30 atoms"
# Colours that the colour-blind can tell apart (Okabe and Ito; Tol's wine), and a marker for each.
STYLES = {
    "reference": ("#000000", "o"),
    "scatter": ("#E69F00", "s"),
    "scatter_recompute": ("#56B4E9", "^"),
    "dense": ("#009E73", "D"),
    "numba": ("#D55E00", "v"),
    "triton": ("#0072B2", "P"),
}
FORMS = {  # the same of what images are computed by
    "log": ("#E69F00", "s"),
    "rows": ("#56B4E9", "^"),
    "closed": ("#009E73", "D"),
    "tiles": ("#882255", "o"),
    "numba": ("#D55E00", "v"),
    "triton": ("#0072B2", "P"),
    "triton_tiles": ("#CC79A7", "X"),
    "propagate": ("#332288", "h"),
    "general operator": ("#7F7F7F", "p"),
    "sdpa": ("#000000", "*"),
}
STEPS = {"kernel by kernel": ("#0072B2", "o"), "captured": ("#D55E00", "s")}
OTHER = ("#CC79A7", "X")
FLOOR, IDEAL = "byte floor", "as many times one device"
IN_HALF = ", bfloat16"
"""Behind the name of a form: the same colour, dashed, the marker hollow."""
IN_A_ROW = 3
"""Panels; more stand two in a row."""
FEW = 4
"""Up to so many sizes each has a tick of its own."""

Row = dict[str, Any]
Styles = Mapping[str, tuple[str, str]]
Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""Points by panel and by curve."""


def draw(rows: list[Row], path: Path, picture: str = "operator") -> bool:
    """Writes one of PICTURES, if there is something to draw and it is not what the file has already; says whether."""
    make, styles, below, beside = PICTURES[picture]
    panels = make(rows)
    if not panels:
        return False
    from matplotlib.figure import Figure

    wide = len(panels) if len(panels) <= IN_A_ROW else 2
    high = -(-len(panels) // wide)
    figure = Figure(figsize=(4.2 * wide + 2.2, 0.4 + 3.8 * high), dpi=150, layout="constrained")
    grid = figure.subplots(high, wide, sharey="row", squeeze=False)
    shown = {}
    for axis, (title, found) in zip(grid.flat, panels.items(), strict=False):
        for name, points in found.items():
            (shown[name],) = axis.loglog(*zip(*points, strict=True), **style(name, styles))
        axis.set_title(title, fontsize=10)
        axis.grid(True, which="major", color="#DDDDDD", lw=0.6)
        axis.tick_params(which="minor", length=2)
        axis.xaxis.set_minor_formatter("")  # powers of ten alone: others would run into each other
        sizes = sorted({size for points in found.values() for size, _ in points})
        if len(sizes) <= FEW:
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    for axis in grid.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in grid[-1]:
        axis.set_xlabel(below)
    for axis in grid[:, 0]:
        axis.set_ylabel(beside)
    order = sorted(shown, key=lambda name: place(name, styles))
    figure.legend([shown[name] for name in order], order, loc="outside right upper", frameon=False)
    return save_figure(figure, path)


def style(name: str, styles: Styles) -> dict[str, Any]:
    """How the curve of a name is drawn."""
    if name in (FLOOR, IDEAL):
        return {"color": "#7F7F7F", "ls": "--", "lw": 1.4}
    color, marker = styles.get(name.removesuffix(IN_HALF), OTHER)
    half = {"ls": "--", "mfc": "white"} if name.endswith(IN_HALF) else {}
    return {"color": color, "marker": marker, "ms": 6, "lw": 1.6, **half}


def place(name: str, styles: Styles) -> tuple[int, str]:
    """Where a name stands in the legend: in the order of the styles, what has none behind them, the floor last."""
    kind = name.removesuffix(IN_HALF)
    return ([*styles, kind].index(kind) if name not in (FLOOR, IDEAL) else len(styles) + 1), name


def hardware(row: Row) -> str:
    """The machine of a row, as a title says it."""
    machine = row["machine"]
    if machine["device"] != "cpu":
        return str(machine["device"])
    return f"{machine['cpu'].replace('(R)', '')}, {machine['threads']} threads"


def curves(rows: list[Row]) -> Curves:
    """Atoms and milliseconds, by device (CPU first) and backend: float32, H = 8, K = V = 16."""
    chosen = [
        row
        for row in rows
        if row["group"] == "operator"
        and FAMILY in row["case"]
        and row.get("dtype", "float32") == "float32"
        and (row["sizes"].get("H"), row["sizes"].get("K")) == (8, 16)
    ]
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in sorted(latest(chosen), key=lambda row: (row["machine"]["device"] != "cpu", row["sizes"]["N"])):
        device = found.setdefault(hardware(row), {})
        device.setdefault(row["name"], {})[row["sizes"]["N"]] = row["median_ms"]
        device.setdefault(FLOOR, {})[row["sizes"]["N"]] = row["floor_ms"]
    return {device: {name: sorted(points.items()) for name, points in by.items()} for device, by in found.items()}


def grid_curves(rows: list[Row]) -> Curves:
    """Pixels of an image and milliseconds, by device and mode and by form; as many pixels in all at every size."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in latest([row for row in rows if row["group"] == "grid-size"]):
        panel = found.setdefault(f"{hardware(row)}; {row['case'].rsplit(', ', 1)[-1]}", {})
        panel.setdefault(row["name"], {})[row["sizes"]["N"]] = row["median_ms"]
    return {panel: {name: sorted(points.items()) for name, points in by.items()} for panel, by in found.items()}


def device_curves(rows: list[Row]) -> Curves:
    """Devices and examples a second, by data and batch and by how steps run: the last row of at least three counts."""
    found: Curves = {}
    for row in rows:
        cases = row.get("cases", ())
        if len(cases) < 3:
            continue
        each = [(case["devices"], case["per_second"]) for case in cases]
        panel = found.setdefault(
            f"{row['data'].removesuffix('.pt')}, {cases[0]['batch_size']} a device; {hardware(row)}", {}
        )
        panel["captured" if row.get("captured") else "kernel by kernel"] = each
        best = max(points[0][1] for name, points in panel.items() if name != IDEAL)
        panel[IDEAL] = [(devices, devices * best) for devices, _ in each]
    return found


TIME = "forward and backward pass, median (ms)"
PICTURES: dict[str, tuple[Callable[[list[Row]], Curves], Styles, str, str]] = {
    "operator": (curves, STYLES, "atoms in the batch", TIME),
    "grid": (grid_curves, FORMS, "pixels of an image", TIME),
    "devices": (device_curves, STEPS, "devices", "examples a second"),
}
"""What may be drawn: its points, its colours, and what stands below and beside."""
