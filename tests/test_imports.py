"""Imports run one way, and optional packages are imported lazily, each in one place."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import plstm_graph

ROOT = Path(plstm_graph.__file__).parent

# A module imports from its own group and from groups further left. ``testing`` is for tests: nothing imports it.
GROUPS = (
    ("errors", "io", "config", "launch"),
    ("tasks",),
    ("adjacency", "orient", "canonical", "line_dag", "dag", "transforms"),
    ("gates", "ops"),
    ("grid",),
    ("data",),
    ("nn", "testing"),
    ("models",),
    ("draw",),
    ("train",),
    ("estimators",),
    ("cli", "__main__", "graphgym"),
)
GROUP = {name: place for place, names in enumerate(GROUPS) for name in names}

HOMES = {
    "rdkit": ("data/smiles.py",),
    "ogb": ("data/smiles.py",),
    "pytorch_lightning": ("train/",),
    "lightning": (),
    "sklearn": (
        "tasks/metrics.py",
        "data/splits.py",
        "data/digits.py",
        "draw/answers.py",
        "models/forest.py",
        "estimators/",
        "train/preloaded.py",
    ),
    "matplotlib": ("draw/",),
    "jinja2": ("train/page/__init__.py",),
    "typer": ("cli/",),
    "fastapi": ("train/inference/serving.py",),
    "pydantic": ("train/inference/serving.py",),
    "uvicorn": ("cli/serve.py",),
    "networkx": ("line_dag/",),
    "torch_scatter": ("ops/scatter.py",),
    "numba": ("ops/numba/", "grid/numba/"),
    "llvmlite": ("ops/numba/",),
    "optuna": ("train/searching/study.py",),
    "yacs": ("graphgym.py",),
    "triton": ("launch.py", "line_dag/triton/", "ops/triton/", "grid/triton/"),
    "PIL": ("data/arrow.py", "data/pictures.py"),
    "torchvision": ("models/convolution.py",),
}
LAZY = (
    "PIL",
    "optuna",
    "rdkit",
    "ogb",
    "pytorch_lightning",
    "matplotlib",
    "typer",
    "networkx",
    "sklearn",
    "pandas",
    "fastapi",
)
# OrientDAG("canonical") asks the molecule for its ranks, when it is called.
LATER = {("canonical.py", "data")}
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}


def imported(source: str, package: str = "plstm_graph", at_once: bool = False, typed: bool = False) -> set[str]:
    """Dotted names that a module imports, relative ones resolved; ``at_once``: but for those in functions; ``typed``:
    those under TYPE_CHECKING, too."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if not typed and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            start = ".".join(part for part in (base, node.module) if part)
            names.update(f"{start}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Call) and last_name(node.func) in ("import_module", "__import__"):
            names.update(arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree(source))
    return names


@cache
def tree(source: str) -> ast.Module:
    return ast.parse(source)


def last_name(node: ast.expr) -> str:
    """``b`` of ``a.b`` and of ``b``."""
    return getattr(node, "attr", getattr(node, "id", ""))


def own(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def package_of(path: str) -> str:
    return ".".join(["plstm_graph", *path.split("/")[:-1]])


def wrong_way(path: str, source: str) -> list[str]:
    """Imports of ``path``, also for the type checker, that point to the right."""
    here = own(path)
    if here == "__init__":
        return []

    def targets(at_once: bool) -> set[str]:
        names = imported(source, package_of(path), at_once, typed=True)
        found = {name.split(".")[1] for name in names if name.startswith("plstm_graph.")} - {"__version__", here}
        return {t for t in found if t == "testing" or GROUP.get(t, len(GROUPS)) > GROUP[here]}

    return sorted(targets(at_once=True) | {t for t in targets(at_once=False) if (path, t) not in LATER})


def away_from_home(path: str, source: str) -> list[str]:
    tops = {name.split(".")[0] for name in imported(source, package_of(path))}
    return sorted(top for top in tops & set(HOMES) if not path.startswith(HOMES[top] or ("nowhere",)))


@pytest.mark.parametrize("path", FILES)
def test_imports_run_one_way(path):
    assert own(path) in {*GROUP, "__init__"}, "a new module: give it a place in GROUPS"
    assert wrong_way(path, FILES[path].read_text()) == []


def circles(sources: dict[str, str]) -> list[str]:
    """Modules that need one another to be imported, or to be typed. A package is its ``__init__``, which is needed by
    those who take a name from there."""
    name_of = {path: f"plstm_graph.{path.removesuffix('.py').removesuffix('/__init__')}" for path in sources}
    modules = {name.replace("/", "."): path for path, name in name_of.items()}

    def home(name: str) -> str:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    needs = {}
    for name, path in modules.items():
        wanted = imported(sources[path], package_of(path), at_once=True, typed=True)
        needs[name] = {home(each) for each in wanted} - {"", name}
    while leaves := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in leaves:
            del needs[name]
    return sorted(needs)


def test_no_circles():
    assert circles({path: file.read_text() for path, file in FILES.items() if path != "__init__.py"}) == []


@pytest.mark.parametrize(
    ("second", "circle"),
    [
        ("from plstm_graph import a", True),
        ("import plstm_graph.a", True),
        ("if TYPE_CHECKING:\n    from plstm_graph.a import x", True),
        ("try:\n    from plstm_graph import a\nexcept ImportError:\n    pass", True),
        ("def f():\n    from plstm_graph import a", False),
    ],
)
def test_circles_are_found(second, circle):
    sources = {"a.py": "from plstm_graph.b import x", "b.py": second, "c.py": "from plstm_graph.a import y"}
    assert circles(sources) == ([f"plstm_graph.{name}" for name in "abc"] if circle else [])
    package = {
        "p/__init__.py": "from plstm_graph.p.a import x",
        "p/a.py": second.replace(" a", " p").replace(".a", ".p"),
    }
    assert circles(package) == (["plstm_graph.p", "plstm_graph.p.a"] if circle else [])


def drawn(groups: tuple[tuple[str, ...], ...]) -> str:
    """The order of imports as docs/architecture.md shows it."""
    return "    " + "\n    → ".join(", ".join(name for name in names if name != "__main__") for names in groups)


def test_the_page_draws_this_order():
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    assert f"\n\n{drawn(GROUPS)}\n\n" in page, f"docs/architecture.md must show\n{drawn(GROUPS)}"


@pytest.mark.parametrize("path", FILES)
def test_optional_packages_stay_at_home(path):
    assert away_from_home(path, FILES[path].read_text()) == []


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("ops/")])
def test_the_operator_needs_no_pytorch_geometric(path):
    """Torch, numpy, and what a single backend is made of."""
    tops = {name.split(".")[0] for name in imported(FILES[path].read_text(), package_of(path))}
    assert tops - set(sys.stdlib_module_names) <= {"torch", "numpy", "plstm_graph", *HOMES}


def test_the_checks_can_fail():
    assert wrong_way("ops/scatter.py", "from plstm_graph.nn.conv import PLSTMConv") == ["nn"]
    assert wrong_way("ops/scatter.py", "def f():\n    from ..data import load") == ["data"]
    assert wrong_way("orient.py", "import plstm_graph.gates") == ["gates"]
    assert wrong_way("nn/conv.py", "from plstm_graph import testing") == ["testing"]
    assert wrong_way("nn/conv.py", "if TYPE_CHECKING:\n    from plstm_graph.models import graph") == ["models"]
    assert wrong_way("canonical.py", "from plstm_graph.data import load") == ["data"]
    assert wrong_way("canonical.py", "def f():\n    from plstm_graph.data import load") == []
    assert wrong_way("data/molecules.py", "from plstm_graph.nn.encoders import AtomEncoder") == ["nn"]
    assert away_from_home("nn/conv.py", "def f():\n    import rdkit.Chem") == ["rdkit"]
    assert away_from_home("nn/conv.py", "if TYPE_CHECKING:\n    import rdkit.Chem") == []
    assert away_from_home("data/smiles.py", "from rdkit import Chem") == []
    assert away_from_home("train/run.py", "importlib.import_module('ogb')") == ["ogb"]


def test_the_bare_import_loads_no_optional_package():
    """Beyond what PyTorch Geometric itself pulls in where it finds it (it tries pytorch_lightning)."""
    script = (
        "import sys, torch, torch_geometric, torch_geometric.nn, torch_geometric.data, torch_geometric.transforms\n"
        "before = {name.split('.')[0] for name in sys.modules}\n"
        "import plstm_graph, plstm_graph.nn, plstm_graph.testing\n"
        f"print(*sorted(({{name.split('.')[0] for name in sys.modules}} - before) & set({LAZY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
