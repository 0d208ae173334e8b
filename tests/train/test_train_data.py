import math
from pathlib import Path

import pytest
import torch
from small_runs import small_dataset

from plstm_graph.errors import DataError
from plstm_graph.train.data import Collated, EpochSampler, mixed_seed, scaling, train_loader


def order(sampler: EpochSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_order_is_a_pure_function_of_seed_and_epoch() -> None:
    sampler = EpochSampler(20, seed=3)
    first, second = order(sampler, 0), order(sampler, 1)
    torch.rand(7)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert order(EpochSampler(20, seed=3), 1) == second
    assert order(EpochSampler(20, seed=4), 1) != second


def test_seeds_and_epochs_do_not_share_orders() -> None:
    assert len({mixed_seed(seed, epoch) for seed in range(50) for epoch in range(200)}) == 50 * 200


@pytest.mark.parametrize("length", [8, 9, 3])
def test_devices_share_one_permutation(length: int) -> None:
    whole = order(EpochSampler(length, seed=0), 5)
    shares = [order(EpochSampler(length, seed=0, rank=rank, world_size=2), 5) for rank in range(2)]
    assert {len(share) for share in shares} == {-(-length // 2)}
    assert {index for share in shares for index in share} == set(whole)


def test_the_loader_draws_no_global_random_numbers(tmp_path: Path) -> None:
    graphs = small_dataset(tmp_path).graphs
    state = torch.get_rng_state()
    batch = next(iter(train_loader(graphs, 8, seed=0)))
    assert batch.num_graphs == 8
    assert torch.equal(state, torch.get_rng_state())


def test_collated_batches_can_be_read_again(tmp_path: Path) -> None:
    valid = Collated(small_dataset(tmp_path).graphs[:10], 4)
    assert len(valid) == 3
    assert [batch.num_graphs for batch in valid] == [batch.num_graphs for batch in valid] == [4, 4, 2]


def test_scaling_leaves_missing_labels_out() -> None:
    target = torch.tensor([[1.0, 7.0], [3.0, 7.0], [math.nan, 7.0]])
    mean, deviation = scaling(target, ["a", "b"])
    assert mean == [2.0, 7.0]
    assert deviation == [1.0, 1.0]  # the second target does not vary: left as it is
    with pytest.raises(DataError, match="target 'a' has no label in the training split"):
        scaling(torch.full((3, 1), math.nan), ["a"])
