import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric.utilities.data import _set_sampler_epoch
from small_runs import small_dataset
from torch_geometric.data import Data

from plstm_graph.config.models import ModelConfig
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.packed import PackedGraphs, PackedLoader
from plstm_graph.train import placement
from plstm_graph.train.data import (
    Collated,
    EpochSampler,
    at_once,
    batches,
    mixed_seed,
    pack,
    repeats,
    train_loader,
)
from plstm_graph.train.placement import fits

CPU = torch.device("cpu")


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


@pytest.mark.parametrize("packed", [False, True])
def test_the_loader_draws_no_global_random_numbers(tmp_path: Path, packed: bool) -> None:
    graphs = small_dataset(tmp_path).graphs
    state = torch.get_rng_state()
    batch = next(iter(train_loader(pack(graphs, ModelConfig(), CPU) if packed else graphs, 8, seed=0)))
    assert batch.num_graphs == 8
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("packed", [False, True])
def test_collated_batches_can_be_read_again(tmp_path: Path, packed: bool) -> None:
    graphs = small_dataset(tmp_path).graphs[:10]
    valid = Collated(pack(graphs, ModelConfig(), CPU) if packed else graphs, 4)
    assert len(valid) == 3
    assert [batch.num_graphs for batch in valid] == [batch.num_graphs for batch in valid] == [4, 4, 2]
    assert all(("line_dag" in batch) == packed for batch in valid)


def test_a_gpu_validates_more_at_once_than_it_trains_on() -> None:
    assert [at_once(torch.device(kind)) for kind in ("cpu", "cuda:1")] == [1, 4]


def test_packed_batches_are_those_of_the_plain_loader(tmp_path: Path) -> None:
    graphs = small_dataset(tmp_path).graphs
    for rank in range(2):
        plain = train_loader(graphs, 8, seed=5, rank=rank, world_size=2)
        packed = train_loader(pack(graphs, ModelConfig(), CPU), 8, seed=5, rank=rank, world_size=2)
        assert isinstance(packed, PackedLoader)
        assert len(packed) == len(plain) == 3
        orders = []
        for epoch in (0, 1, 0):
            for loader in (plain, packed):
                _set_sampler_epoch(loader, epoch)  # as Lightning does it
            found = [[batch.y.view(-1).tolist() for batch in loader] for loader in (plain, packed)]
            assert found[0] == found[1]
            orders.append(found[1])
        assert orders[0] == orders[2] != orders[1]
    for got, want in zip(batches(pack(graphs, ModelConfig(), CPU), 16), batches(graphs, 16), strict=True):
        assert torch.equal(got.x, want.x)
        assert "smiles" not in got


def test_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1000
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    table = {
        ("cpu", placement.HOST_BYTES): True,
        ("cpu", placement.HOST_BYTES + 1): False,
        ("cuda", 500): True,
        ("cuda", 501): False,
        ("mps", 1): False,
    }
    for (device, nbytes), want in table.items():
        assert fits(nbytes, torch.device(device)) == want, (device, nbytes)


def test_what_does_not_fit_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = add_encodings(small_dataset(tmp_path).graphs, ModelConfig())
    packed = pack(graphs, ModelConfig(), CPU)
    assert isinstance(packed, PackedGraphs)
    stored = sum(value.nbytes for graph in graphs for value in graph.to_dict().values() if torch.is_tensor(value))
    assert stored < packed.nbytes
    for limit in (stored - 1, packed.nbytes - 1):
        monkeypatch.setattr(placement, "HOST_BYTES", limit)
        assert pack(graphs, ModelConfig(), CPU) is graphs
    monkeypatch.setattr(placement, "HOST_BYTES", packed.nbytes)
    assert isinstance(pack(graphs, ModelConfig(), CPU), PackedGraphs)
    assert pack([], ModelConfig(), CPU) == []
    for graph in graphs:
        graph.extra = {"a": torch.ones(1)}  # PyG's loader batches it
    assert pack(graphs, ModelConfig(), CPU) is graphs


@pytest.mark.parametrize(("model", "modes"), [("plstm", "PD"), ("plstm", "P"), ("gine", "PD"), ("gin", "PD")])
def test_models_are_packed_what_they_need(tmp_path: Path, model: str, modes: str) -> None:
    packed = pack(small_dataset(tmp_path).graphs, ModelConfig(model=model, modes=modes), CPU)
    assert isinstance(packed, PackedGraphs)
    assert (packed.lines is not None) == (model == "plstm")
    assert packed.lines is None or ("kept" in packed.lines.tables) == ("D" in modes)


def test_repeats_are_counted_in_every_spelling(tmp_path: Path) -> None:
    texts = ["CCO", "OCC", "[CH3:4][CH2:2][OH:9]", "C1=CC=CC=C1", "c1ccccc1", "C[C@H](N)O", "C[C@@H](N)O", "CN", "NC"]
    labels = [(1, 2), (1, 3), (1, math.nan), (5, 6), (5, 6), (0, 1), (7, 8), (1, math.nan), (math.nan, 4)]
    graphs = [Data(smiles=text, y=torch.tensor([y])) for text, y in zip(texts, labels, strict=True)]
    dataset = replace(small_dataset(tmp_path), graphs=graphs)
    split = {"train": [0, 3, 5], "valid": [1, 6], "test": [2, 4, 7, 8]}
    assert repeats(dataset, split) == (4, 3, 1, 3)
    dataset.graphs = [Data(y=graph.y) for graph in graphs]
    assert repeats(dataset, split) == (0, 0, 0, 0)
