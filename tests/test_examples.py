"""The examples run, in fewer epochs than by default, and print what they are for."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from plstm_graph.ops import BACKENDS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Runs an example as a script and returns what it printed."""

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_drop_in(example, shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(shared_data / "TUDataset" / "MUTAG" / "raw", tmp_path / "TUDataset" / "MUTAG" / "raw")
    printed = example("drop_in.py", "--root", tmp_path, "--epochs", 2)
    assert re.fullmatch(r"epoch 2: loss \d\.\d{4}, train 0\.\d{4}, test 0\.\d{4}\n", printed)
    source = (EXAMPLES / "drop_in.py").read_text(encoding="utf-8")
    assert source.count("# was: ") == source.count("PLSTMConv") == 2


def test_own_csv(example) -> None:
    pytest.importorskip("rdkit")
    printed = example("own_csv.py", "--epochs", 4).splitlines()
    assert re.fullmatch(r"test r2 -?\d+\.\d{4} after 4 epochs", printed[0])
    assert [line.split()[0] for line in printed[1:3]] == ["CCCCCO", "CC(C)CCN"]
    assert printed[3].split()[-1] == "nan"


def test_dag_regression(example) -> None:
    printed = example("dag_regression.py", "--epochs", 6)
    error, baseline = re.search(r"epoch 6: mean absolute error (\S+) \(always the mean: (\S+)\)", printed).groups()
    assert float(error) < 0.9 * float(baseline)


def test_longest_path_is_that_of_all_paths() -> None:
    names = runpy.run_path(str(EXAMPLES / "dag_regression.py"))
    for nodes in (2, 5, 8):
        graph = names["random_graph"](nodes)
        steps = {(int(u), int(v)): float(w) for (u, v), w in zip(graph.edge_index.t(), graph.edge_attr, strict=True)}

        def longest(node: int, steps: dict = steps) -> float:
            return max((w + longest(v) for (u, v), w in steps.items() if u == node), default=0.0)

        assert float(graph.y) == pytest.approx(max(longest(node) for node in range(nodes)), abs=1e-6)


def test_custom_backend(example) -> None:
    try:
        printed = example("custom_backend.py")
    finally:
        BACKENDS.pop("sweeping", None)
    assert printed.startswith("sweeping keeps ")
    assert printed.endswith("torch.Size([4, 32])\n")


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))
