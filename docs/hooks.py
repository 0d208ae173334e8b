"""What mkdocs does beside Markdown: tables from the package and from stored rows, and LaTeX as MathML (no script)."""

import html
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
STORED = re.compile(r"(<p)>\.\. math::(.*?)</p>|(:math:)<code>(.*?)</code>", re.DOTALL)  # formulas of docstrings
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):(<code>)~?")  # docstrings name things as Sphinx does


def on_config(config: Any) -> Any:
    """Pages of the navigation that are not written yet are left out of it."""
    config["nav"] = [_present(entry, Path(config["docs_dir"])) for entry in config["nav"]]
    return config


def _present(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    (title, content), *_ = entry.items()
    if isinstance(content, list):
        optional = ("recipes.md", "explain.md")
        content = [page for page in content if not (set(page.values()) & set(optional)) or _exists(page, folder)]
    return {title: content}


def _exists(page: dict[str, str], folder: Path) -> bool:
    return all((folder / name).exists() for name in page.values())


def on_page_markdown(markdown: str, **_: Any) -> str:
    return MARKER.sub(lambda found: GENERATED[found[1]](), markdown)


def on_page_content(content: str, **_: Any) -> str:
    content = FORMULA.sub(lambda found: _mathml(found[2], block=found[1] == "div"), content)
    content = STORED.sub(lambda found: _mathml(found[2] or found[4], block=bool(found[1])), content)
    return ROLE.sub(r"\1", content)


def _mathml(latex: str, *, block: bool) -> str:
    from latex2mathml.converter import convert

    return str(convert(html.unescape(latex).strip(), display="block" if block else "inline"))


def datasets() -> str:
    """The table of data sets, as ``plstm-graph datasets`` prints it."""
    from plstm_graph.data import DATASETS

    lines = ["| name | graphs | task | metric | split | licence | source |", "| --- | ---: " + "| --- " * 5 + "|"]
    for row in DATASETS.values():
        cells = (
            f"`{row.name}`",
            "-" if row.graphs is None else f"{row.graphs:,}",
            row.task,
            row.metric,
            row.split,
            row.licence,
            row.source,
        )
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def commands() -> str:
    """Every command that stands in a stored row, with how many rows it left, and when and where."""
    lines = []
    for path in sorted(RESULTS.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in rows:
            if row.get("command"):
                machine = row.get("machine", {})
                device = machine.get("device", "cpu")
                where = f"{machine.get('cpu', '–')}, {machine.get('cores', '–')} cores" if device == "cpu" else device
                found.setdefault((row["command"], str(row.get("commit"))[:10], where), []).append(row)
        if found:
            lines += [f"### {path.name}", ""]
        for (command, commit, where), of_it in found.items():
            last = max(str(row.get("date", "")) for row in of_it)[:10]
            rows_word = f"{len(of_it)} row{'' if len(of_it) == 1 else 's'}"
            lines += [f"{rows_word}, {last}, commit `{commit}`, {where}:", "", f"    {command}", ""]
    return "\n".join(lines)


GENERATED = {"datasets": datasets, "commands": commands}
