"""What the pages show is what happens, and what they point to is there."""

import ast
import pkgutil
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import browser
import pytest
import typer
from test_imports import GROUP

from plstm_graph.cli import app
from plstm_graph.cli.options import CHOICES
from plstm_graph.config.models import RENAMED
from plstm_graph.data import DATASETS
from plstm_graph.grid import CHAIN_FORMS, FORMS, dispatch, matrix
from plstm_graph.ops import BACKENDS
from plstm_graph.train.config import TrainConfig, flat

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
HOOKS = runpy.run_path(str(DOCS / "hooks.py"))
EXPORTING = ("data", "draw", "estimators", "grid", "line_dag", "models", "nn", "ops", "tasks", "testing", "train")
WRITTEN = pytest.mark.parametrize("page", [*TEXTS, *PAGES, *BENCHMARKS], ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path) -> list[tuple[str, str]]:
    """Pieces of code, each with what a block just after it says that it prints."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```)?", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if code(page)], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, monkeypatch, tmp_path, capsys):
    """Its pieces build on one another, as a reader would paste them; they assert what they say, or print it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, (piece, printed) in enumerate(code(page), start=1):
        exec(compile(piece, f"{page.name}, piece {number}", "exec"), names)
        assert capsys.readouterr().out == printed or not printed
    assert "powers" not in BACKENDS


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    named = set(re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {page.name for page in PAGES} | {f"benchmarks/{page.name}" for page in BENCHMARKS} == named


@WRITTEN
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def said(page: Path) -> str:
    """What is written by hand, each command in one line; rows of tables name commands as they were."""
    text = re.sub(r"<!-- table: .*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\\\n\s*", " ", text)


def flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


@WRITTEN
def test_a_command_has_the_flags_that_it_is_shown_with(page):
    commands = typer.main.get_command(app).commands
    for name, rest in re.findall(r"plstm-graph (\w+)([^`|#\n]*)", said(page)):
        options = {word for option in commands[name].params for word in option.opts + option.secondary_opts}
        assert flags(rest) <= options, name
    for script, rest in re.findall(r"python (benchmarks/\w+\.py)([^`#\n]*)", said(page)):
        assert flags(rest) <= flags((ROOT / script).read_text(encoding="utf-8")), script


@WRITTEN
def test_names_of_the_package_can_be_imported(page):
    for name in set(re.findall(r"\bplstm_graph(?:\.\w+)+", said(page))):
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("package", ["plstm_graph", *(f"plstm_graph.{name}" for name in EXPORTING)])
def test_what_a_package_exports_is_on_the_page_of_the_api(package):
    """Classes, functions and modules; constants where they are worth it."""
    entries = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    things = [pkgutil.resolve_name(name) for name in entries]
    module = import_module(package)
    missing = [name for name in module.__all__ if not any(getattr(module, name) is thing for thing in things)]
    assert [name for name in missing if callable(getattr(module, name))] == []


def test_tables_of_backends_and_of_modules_are_complete():
    named = re.findall(r"^\| `(\w+)` \|", (DOCS / "backends.md").read_text(), re.MULTILINE)
    assert set(named) == set(BACKENDS)
    table = (DOCS / "architecture.md").read_text()
    modules = {path.name + "/" * path.is_dir() for path in (ROOT / "plstm_graph").iterdir() if path.suffix != ".typed"}
    hidden = {"__init__.py", "__main__.py", "__pycache__/", "errors.py", "ops/"}
    assert [name for name in modules - hidden if f"`{name}`" not in table] == []


def test_the_table_of_modules_follows_the_tested_order_of_imports():
    rows = re.findall(r"^\| [\w ]*\|([^|]*)\|", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    named = [re.split(r"[/.]", name)[0] for row in rows for name in re.findall(r"`([\w./]+)`", row)]
    places = [GROUP[name] for name in named if name in GROUP]
    assert len(places) > 20
    assert places == sorted(places)


def test_words_of_the_glossary_are_there_and_flags_are_fields():
    rows = re.findall(r"^\| (.*?) \| .* \| `([\w.]+)` \|$", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    words = [word for row, _ in rows for word in row.split(", ")]
    assert len(words) == len(set(words)) > 30
    for _, place in rows:
        module, _, name = place.rpartition(".")
        assert hasattr(import_module(module), name) or import_module(place), place
    named = {choice.name: (choice.field or choice.name).rpartition(".")[2] for choice in CHOICES}
    assert {name: field for name, field in named.items() if field != name} == {}


def renamed_on_the_way(source: str) -> set[tuple[str, str]]:
    """Fields of a config that are given to a keyword of another name."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    words = [word for call in calls for word in call.keywords]
    given = [(str(word.arg), word.value) for word in words if isinstance(word.value, ast.Attribute)]
    return {(arg, field.attr) for arg, field in given if ast.unparse(field.value) == "config" and arg != field.attr}


@pytest.mark.parametrize("path", sorted((ROOT / "plstm_graph" / "models").glob("*.py")), ids=lambda path: path.stem)
def test_fields_of_models_are_keywords(path):
    assert renamed_on_the_way(path.read_text(encoding="utf-8")) == set()
    assert renamed_on_the_way("PLSTM(edge_values=config.bond_values, norm=config.norm)") == {
        ("edge_values", "bond_values")
    }


def test_earlier_names_are_no_more():
    fields = {name.rpartition(".")[2] for name in flat(TrainConfig())}
    assert not RENAMED.keys() & fields
    assert set(RENAMED.values()) <= fields


def test_tables_of_forms_are_complete_and_say_what_auto_takes():
    text = (DOCS / "grids.md").read_text(encoding="utf-8")
    assert {*FORMS, *CHAIN_FORMS} <= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    cpu, gpu = dispatch.DENSE["cpu"], dispatch.DENSE["cuda"]
    assert f"up to {cpu} pixels on a CPU and {gpu:,} on a GPU" in text
    assert f"beyond {matrix.MAX_BYTES // 4 / 2**30:.0f} GiB" in text
    assert f"`auto` up to {dispatch.ONE_CHUNK} tokens" in text


def test_generated_tables():
    text = HOOKS["on_page_markdown"]("before\n\n<!-- generated: datasets -->\n\nafter")
    assert re.findall(r"^\| `([^`]+)`", text, re.MULTILINE) == list(DATASETS)
    commands = HOOKS["commands"]()
    assert re.search(r"^    python benchmarks/leaderboard.py benchmarks/configs/nav17.toml --", commands, re.MULTILINE)
    markers = [name for page in PAGES for name in re.findall(r"generated: (\w+)", page.read_text())]
    assert sorted(markers) == sorted(HOOKS["GENERATED"])


def test_a_command_is_broken_at_spaces_alone():
    page = '<p>--a-b</p><code><span id="x-1">train --lr-min 0.1 -q a-b</span></code>'
    whole = re.findall(r'<span class="whole">(.*?)</span>', HOOKS["on_page_content"](page))
    assert whole == ["--lr-min", "-q", "a-b"]


def test_formulas_become_mathml_and_roles_words():
    pytest.importorskip("latex2mathml")
    page = r'<p><span class="arithmatex">\(a &lt; b\)</span> <div class="arithmatex">\[\sum_i x_i\]</div></p>'
    page += "<p>.. math:: x^2</p>:math:<code>y</code>"  # as docstrings have them
    text = HOOKS["on_page_content"](page + ":func:<code>~plstm_graph.propagate</code>")
    assert text.count("<math") == 4
    assert "math:" not in text
    assert "arithmatex" not in text
    assert text.endswith("<code>plstm_graph.propagate</code>")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages; a warning fails."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_pages_fetch_nothing_and_hold_the_benchmarks(site):
    assert (site / "benchmarks" / "results" / "cost_against_depth.png").is_file()
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', text) == []
        assert r"\(" not in re.sub(r"<(pre|code|script).*?</\1>", "", text, flags=re.DOTALL)


@pytest.mark.skipif(bool(browser.MISSING), reason=browser.MISSING)
def test_the_pages_suit_windows_and_phones(site):
    """Nothing is wider than the window, no option is cut, no button lies on text; nothing serious for axe-core."""
    pages = [page for page in sorted(site.rglob("*.html")) if page.name != "404.html"]
    audited = [site / f"{name}.html" for name in ("index", "theory", "chemprop")]
    assert browser.faults(pages, audited) == set()


@pytest.mark.skipif(bool(browser.MISSING), reason=browser.MISSING)
def test_pages_that_are_opened_as_files_can_be_searched(site):
    with browser.window() as tab:
        tab.goto((site / "benchmarks" / "index.html").as_uri())
        tab.click(".md-search__input")
        tab.keyboard.type("multitree")
        tab.wait_for_selector(".md-search-result__item")
        links = [link.get_attribute("href") for link in tab.query_selector_all(".md-search-result__link")]
        assert any("/theory.html" in link for link in links)
