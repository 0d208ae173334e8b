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
CODE, TAG = re.compile(r"<code>.*?</code>", re.DOTALL), re.compile(r"(<[^>]*>)")
HYPHENED = re.compile(r"-{1,2}\w[\w-]{,25}|\b\w+(?:-\w+){1,3}\b")
DIALOG = 'data-md-component="search" role="dialog"'
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):(<code>)~?")  # docstrings name things as Sphinx does


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Pages and figures of the benchmarks, which stand beside their rows, are pages of the site, too."""
    from mkdocs.structure.files import File

    for path in [*(ROOT / "benchmarks").glob("*.md"), *RESULTS.glob("*.png")]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """With generated tables; links between ``docs`` and ``benchmarks`` as the site has them."""
    markdown = markdown.replace("](../benchmarks/", "](benchmarks/").replace("](../docs/", "](../")
    return MARKER.sub(lambda found: GENERATED[found[1]](), markdown)


def on_page_content(content: str, **_: Any) -> str:
    content = FORMULA.sub(lambda found: _mathml(found[2], block=found[1] == "div"), content)
    content = STORED.sub(lambda found: _mathml(found[2] or found[4], block=bool(found[1])), content)
    content = CODE.sub(lambda found: _whole_words(found[0]), content)
    content = content.replace("<table>", '<table tabindex="0">')  # who has no mouse scrolls by keys, where it is wide
    return ROLE.sub(r"\1", content)


def _whole_words(code: str) -> str:
    """So that a line of a command ends at a space, never inside an option."""
    parts = TAG.split(code)
    parts[::2] = [HYPHENED.sub(r'<span class="whole">\g<0></span>', text) for text in parts[::2]]
    return "".join(parts)


def on_post_page(output: str, **_: Any) -> str:
    """The theme gives its search dialog no name."""
    return output.replace(DIALOG, f'{DIALOG} aria-label="Search"')


def _mathml(latex: str, *, block: bool) -> str:
    from latex2mathml.converter import convert

    found = str(convert(html.unescape(latex).strip(), display="block" if block else "inline"))
    return f'<div class="formula" tabindex="0">{found}</div>' if block else found


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
