"""Cost against size, a curve for each backend or form, from stored rows."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tables import latest

from plstm_graph.io.files import atomic_write

FAMILY = "molecules of 20 to 30 atoms"
# Colours that the colour-blind can tell apart (Okabe and Ito), and a marker for each.
STYLES = {
    "reference": ("#000000", "o"),
    "scatter": ("#E69F00", "s"),
    "scatter_recompute": ("#56B4E9", "^"),
    "dense": ("#009E73", "D"),
    "numba": ("#D55E00", "v"),
    "triton": ("#0072B2", "P"),
}
OTHER = ("#CC79A7", "X")
FORMS = {  # colours of forms of images
    "log": ("#E69F00", "s"),
    "rows": ("#56B4E9", "^"),
    "closed": ("#009E73", "D"),
    "tiles": ("#000000", "o"),
    "general operator": ("#CC79A7", "X"),
    "sdpa": ("#7F7F7F", "*"),
}
FLOOR = "byte floor"

Row = dict[str, Any]
Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""Points by panel and by curve."""


def draw(rows: list[Row], path: Path, picture: str = "operator") -> bool:
    """Writes one of PICTURES, if there is something to draw and it is not what the file has already; says whether."""
    make, label = PICTURES[picture]
    devices = make(rows)
    if not devices:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(devices) + 2.2, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(devices), sharey=True, squeeze=False)[0]
    shown = {}
    for axis, (device, found) in zip(axes, devices.items(), strict=True):
        for name, points in found.items():
            color, marker = (STYLES | FORMS).get(name, OTHER)
            style = {"color": color, "marker": marker, "ms": 6, "lw": 1.6}
            style = {"color": "#7F7F7F", "ls": "--", "lw": 1.4} if name == FLOOR else style
            (shown[name],) = axis.loglog(*zip(*points, strict=True), **style)
        axis.set_title("CPU" if device == "cpu" else device, fontsize=10)
        axis.set_xlabel(label)
        axis.grid(True, which="major", color="#DDDDDD", lw=0.6)
        axis.tick_params(which="minor", length=2)
        axis.xaxis.set_minor_formatter("")  # powers of ten alone: others would run into each other
    axes[0].set_ylabel("forward and backward pass, median (ms)")
    order = [name for name in (*STYLES, *FORMS, *shown) if name in shown]
    order = list(dict.fromkeys([name for name in order if name != FLOOR] + [FLOOR] * (FLOOR in shown)))
    figure.legend([shown[name] for name in order], order, loc="outside right upper", frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    if path.exists() and path.read_bytes() == content.getvalue():
        return False
    with atomic_write(path) as temp:
        temp.write_bytes(content.getvalue())
    return True


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
        device = found.setdefault(row["machine"]["device"], {})
        device.setdefault(row["name"], {})[row["sizes"]["N"]] = row["median_ms"]
        device.setdefault(FLOOR, {})[row["sizes"]["N"]] = row["floor_ms"]
    return {device: {name: sorted(points.items()) for name, points in by.items()} for device, by in found.items()}


def grid_curves(rows: list[Row]) -> Curves:
    """Pixels of an image and milliseconds, by device and mode and by form; as many pixels in all at every size."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in latest([row for row in rows if row["group"] == "grid-size"]):
        panel = found.setdefault(f"{row['machine']['device']}, {row['case'].rsplit(', ', 1)[-1]}", {})
        panel.setdefault(row["name"], {})[row["sizes"]["N"]] = row["median_ms"]
    return {panel: {name: sorted(points.items()) for name, points in by.items()} for panel, by in found.items()}


PICTURES: dict[str, tuple[Callable[[list[Row]], Curves], str]] = {
    "operator": (curves, "atoms in the batch"),
    "grid": (grid_curves, "pixels of an image"),
}
"""What may be drawn: its points, and what stands below."""
