"""Runs small enough for tests: a few dozen molecules, a network of a few hundred weights."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plstm_graph.data import load
from plstm_graph.data.dataset import GraphDataset
from plstm_graph.tasks import Multiclass
from plstm_graph.train.config import TrainConfig, override

RINGS = ("c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CC1")
SMALL = {"epochs": 4, "batch_size": 8, "warmup_epochs": 1, "lr": 0.01, "accelerator": "cpu"}
SMALL_MODEL = {"width": 8, "layers": 1, "heads": 4, "rwse": 0, "dropout": 0.2, "head_layers": 1}


def molecules(count: int = 40) -> list[str]:
    """Chains with a ring and a hetero atom; no two are the same."""
    return ["C" * (1 + index // 8) + "NO"[index // 4 % 2] + RINGS[index % 4] for index in range(count)]


def write_csv(path: Path, *, task: str = "regression", count: int = 40) -> Path:
    """SMILES with ``y`` and ``z``: numbers, or zeros and ones, that the molecule determines."""
    lines = ["smiles,y,z"]
    for text in molecules(count):
        size, aromatic = len(text), "c" in text
        values = (5 + 0.3 * size + aromatic, 100.0 * size) if task == "regression" else (int(aromatic), size % 2)
        lines.append(f"{text},{values[0]},{values[1]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def small_dataset(folder: Path, task: str = "regression", targets: tuple[str, ...] = ("y",)) -> GraphDataset:
    return load(str(write_csv(folder / "small.csv", task=task)), targets=targets)


def three_classes(dataset: GraphDataset) -> GraphDataset:
    """The same graphs with classes 0, 1, 2 instead of labels."""
    graphs = [graph.clone() for graph in dataset.graphs]
    for index, graph in enumerate(graphs):
        graph.y = graph.y.new_tensor([index % 3]).long()
    return replace(dataset, graphs=graphs, task=Multiclass(("class",), classes=3))


def small_config(**values: Any) -> TrainConfig:
    """A quick run; keyword ``model_width`` sets ``model.width``."""
    given = {"model." + key.removeprefix("model_") if key.startswith("model_") else key: v for key, v in values.items()}
    small = override(TrainConfig(), SMALL | {f"model.{key}": v for key, v in SMALL_MODEL.items()})
    return override(small, given)


def invoke(*words: object) -> Any:
    """What the command ``train`` does and says."""
    from typer.testing import CliRunner

    from plstm_graph.cli import app

    return CliRunner().invoke(app, ["train", *map(str, words)])


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_a_batch(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Interrupt a training in a step, from 1."""
    from plstm_graph.train.module import Learner

    def arm(patch: pytest.MonkeyPatch) -> None:
        step, calls = Learner.training_step, [0]

        def interrupted(self: Learner, *args: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                raise KeyboardInterrupt
            return step(self, *args)

        patch.setattr(Learner, "training_step", interrupted)

    return arm


def passes_in_place(passes: nn.Module, inputs: tuple[Tensor, ...], allow_unused_input: bool) -> nn.Module:
    """The passes themselves, after as many to warm up as a recording takes."""
    assert not torch.is_autocast_cache_enabled() or not torch.is_autocast_enabled("cpu")
    for _ in range(3):
        torch.autograd.grad(passes(*inputs).sum(), list(passes.parameters()), allow_unused=allow_unused_input)
    return passes


def parts_in_place(parts: Sequence[Callable[[], None]], device: torch.device) -> list[Callable[[], None]]:
    """The parts themselves, after as many calls as a recording takes."""
    for _ in range(3):
        for part in parts:
            part()
    return list(parts)


def told(stderr: str) -> str:
    """What a process said, but for the notice that its loops are compiled, which comes once on a machine."""
    return "\n".join(line for line in stderr.splitlines() if not line.startswith("compiling loops for this CPU"))
