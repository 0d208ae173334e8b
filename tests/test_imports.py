"""Imports run one way, and optional packages are imported lazily, each in one place."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import plstm_graph

ROOT = Path(plstm_graph.__file__).parent

# A module imports from its own group and from groups further left. ``testing`` is for tests: nothing imports it.
GROUPS = (
    ("errors", "io", "config"),
    ("tasks",),
    ("orient", "line_dag", "dag", "transforms"),
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
    "rdkit": ("data/molecules.py",),
    "ogb": ("data/molecules.py",),
    "pytorch_lightning": ("train/",),
    "lightning": (),
    "sklearn": (
        "tasks/metrics.py",
        "data/splits.py",
        "data/digits.py",
        "draw/plots.py",
        "models/forest.py",
        "estimators.py",
    ),
    "matplotlib": ("draw/",),
    "jinja2": ("train/page/__init__.py",),
    "typer": ("cli/",),
    "networkx": ("line_dag/",),
    "torch_scatter": ("ops/scatter.py",),
    "numba": ("ops/numba/", "grid/numba/"),
    "llvmlite": ("ops/numba/",),
    "yacs": ("graphgym.py",),
    "triton": ("ops/triton/", "grid/triton/"),
    "PIL": ("data/arrow.py",),
    "torchvision": ("models/vision.py",),
}
LAZY = ("PIL", "rdkit", "ogb", "pytorch_lightning", "matplotlib", "typer", "networkx", "sklearn", "pandas")
# OrientDAG("canonical") asks the molecule for its ranks, when it is called.
LATER = {("transforms.py", "data")}
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}


def imported(source: str, package: str = "plstm_graph", at_once: bool = False) -> set[str]:
    """Dotted names that a module imports, those under TYPE_CHECKING left out, relative ones resolved.

    With ``at_once`` those in functions are left out as well.
    """
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if at_once and isinstance(node, ast.FunctionDef):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            start = ".".join(part for part in (base, node.module) if part)
            names.update(f"{start}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names.update(arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return names


def own(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def package_of(path: str) -> str:
    return ".".join(["plstm_graph", *path.split("/")[:-1]])


def wrong_way(path: str, source: str) -> list[str]:
    """Imports of ``path`` that point to the right."""
    here = own(path)
    if here == "__init__":
        return []

    def targets(at_once: bool) -> set[str]:
        names = imported(source, package_of(path), at_once)
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


def circles(sources: dict[str, str]) -> list[list[str]]:
    """Modules that need one another to be imported, or to be typed: names under TYPE_CHECKING count, too."""
    names = {path.removesuffix(".py").replace("/", "."): source for path, source in sources.items()}
    needs: dict[str, set[str]] = {}
    for name, source in names.items():
        found = [
            node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and not node.col_offset
        ]
        found += [
            node
            for block in ast.parse(source).body
            if isinstance(block, ast.If)
            for node in block.body
            if isinstance(node, ast.ImportFrom)
        ]
        wanted = {f"{node.module}.{alias.name}" for node in found for alias in node.names}
        wanted |= {str(node.module) for node in found}
        needs[name] = {each.removeprefix("plstm_graph.") for each in wanted} & names.keys() - {name}
    while leaves := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in leaves:
            del needs[name]
    return [sorted(needs)] if needs else []


def test_no_circles():
    sources = {path: file.read_text() for path, file in FILES.items() if file.name != "__init__.py"}
    assert circles(sources) == []
    assert circles(
        {
            "a.py": "from plstm_graph.b import x",
            "b.py": "if TYPE_CHECKING:\n    from plstm_graph import a",
            "c.py": "from plstm_graph.a import y",
        }
    ) == [["a", "b", "c"]]
    assert circles({"a.py": "from plstm_graph import b", "b.py": "def f():\n    from plstm_graph import a"}) == []


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
    assert wrong_way("transforms.py", "from plstm_graph.data import load") == ["data"]
    assert wrong_way("transforms.py", "def f():\n    from plstm_graph.data import load") == []
    assert wrong_way("data/molecules.py", "from plstm_graph.nn.encoders import AtomEncoder") == ["nn"]
    assert away_from_home("nn/conv.py", "def f():\n    import rdkit.Chem") == ["rdkit"]
    assert away_from_home("nn/conv.py", "if TYPE_CHECKING:\n    import rdkit.Chem") == []
    assert away_from_home("data/molecules.py", "from rdkit import Chem") == []
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
