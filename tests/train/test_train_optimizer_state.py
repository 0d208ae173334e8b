"""The state of an optimizer is stored in few tensors, and read as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small_config, small_dataset

from plstm_graph.errors import CheckpointError
from plstm_graph.train import train
from plstm_graph.train.checkpoint import read
from plstm_graph.train.optimizer_state import TENSORS, packed, unpacked


def state(steps: int = 2) -> dict[int, dict[str, torch.Tensor]]:
    weights = [torch.randn(2, 3), torch.randn(()), torch.randn(4), torch.randn(0, 2), torch.randn(3, 2).t()]
    optimizer = torch.optim.AdamW([weight.requires_grad_() for weight in weights])
    for _ in range(steps):
        for weight in weights[:-1]:
            weight.grad = torch.randn(weight.shape)
        optimizer.step()
    found: dict[int, dict[str, torch.Tensor]] = optimizer.state_dict()["state"]
    return found


def test_it_comes_back_as_it_was() -> None:
    """Numbers, shapes and names in order; a weight that was never trained has none."""
    want = state()
    few = packed(want)
    assert sorted(few) == [TENSORS, "weights"]
    got = unpacked(few)
    assert list(got) == list(want) == [0, 1, 2, 3]
    for number, each in want.items():
        assert list(got[number]) == list(each)
        for name, value in each.items():
            assert got[number][name].shape == value.shape
            assert got[number][name].dtype == value.dtype
            assert torch.equal(got[number][name], value)
            assert got[number][name].untyped_storage().nbytes() == value.nbytes


@pytest.mark.parametrize(
    "other",
    [
        {},
        {0: {"a": torch.ones(2)}, 1: {"b": torch.ones(2)}},
        {0: {"a": torch.ones(2)}, 1: {"a": torch.ones(2).double()}},
        {0: {"a": torch.ones(2), "b": 3}, 1: {"a": torch.ones(2), "b": 4}},
    ],
    ids=["nothing", "names", "dtypes", "numbers"],
)
def test_what_is_not_alike_stays(other: dict[Any, Any]) -> None:
    assert packed(other) is other
    assert unpacked(other) is other


def test_checkpoints_have_few_tensors_and_are_read_as_ever(tmp_path: Path) -> None:
    """Also one in which the state is not packed; what is damaged is said to be."""
    train(small_config(out=tmp_path / "run", epochs=1), small_dataset(tmp_path))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    stored, content = torch.load(path, weights_only=True), read(path)
    few = stored["optimizer_states"][0]["state"][TENSORS]
    weights = content["optimizer_states"][0]["state"]
    assert {name: len(parts) for name, parts in few.items()} == {"step": 2, "exp_avg": 2, "exp_avg_sq": 2}
    assert len(weights) == len(content["optimizer_states"][0]["param_groups"][0]["params"])
    torch.save(content, path)
    again = read(path)["optimizer_states"][0]["state"]
    torch.testing.assert_close(again, weights, rtol=0, atol=0)
    few["exp_avg"][0] = few["exp_avg"][0][:-1]
    torch.save(stored, path)
    with pytest.raises(CheckpointError, match="is truncated, or not a checkpoint"):
        read(path)
