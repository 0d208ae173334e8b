"""Checkpoints, and prepared data, with bytes or content changed: the same predictions as before, or an error."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import fuzz, told
from hypothesis import strategies as st
from small_runs import small_config, small_dataset, write_csv

from plstm_graph.data import load, write_prepared
from plstm_graph.errors import PLSTMGraphError
from plstm_graph.train import predict, train

TEXTS = ["CCO", "c1ccccc1", "no molecule", "CC(=O)N"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a finished run."""
    folder = tmp_path_factory.mktemp("fuzz")
    train(small_config(out=folder / "run", data=write_csv(folder / "small.csv"), targets="y", epochs=1))
    return folder / "run" / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as one file."""
    folder = tmp_path_factory.mktemp("prepared")
    write_prepared(folder / "good.pt", small_dataset(folder))
    return folder / "good.pt"


@st.composite
def byte_changes(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """(place as a share of the file, bytes taken out, bytes put in)."""
    edges = st.sampled_from([0.0, 1e-4, 0.999, 1.0])  # the directory of an archive stands at its end
    one = st.tuples(st.floats(0, 1) | edges, st.integers(0, 4) | st.just(10**9), st.binary(max_size=4))
    return draw(st.lists(one, min_size=1, max_size=3))


def damaged(good: Path, changes: list[tuple[float, int, bytes]]) -> Path:
    """A copy of a file in which bytes were cut out and put in."""
    content = bytearray(good.read_bytes())
    for share, gone, new in changes:
        place = int(share * len(content))
        content[place : place + gone] = new
    bad = good.with_stem("bad")
    bad.write_bytes(content)
    return bad


@fuzz(0.04, changes=byte_changes())
def test_changed_bytes_are_noticed_or_do_not_matter(good: Path, changes: list[tuple[float, int, bytes]]) -> None:
    bad = damaged(good, changes)
    with told():
        found, expected = (predict(path, TEXTS).values for path in (bad, good))
        assert torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True)


@fuzz(0.02, changes=byte_changes())
def test_changed_bytes_of_prepared_data_are_noticed_or_do_not_matter(
    prepared: Path, changes: list[tuple[float, int, bytes]]
) -> None:
    bad = damaged(prepared, changes)
    with told():
        pairs = zip(load(str(bad)).graphs, load(str(prepared)).graphs, strict=True)
        assert all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and a.smiles == b.smiles for a, b in pairs)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.sampled_from([10**18, 2**70]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["plstm", "gin", "PD", "max", "ogb-molecule", "multiclass", "binary", "canonical", "layer"]),
    st.lists(st.integers(0, 9) | st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.builds(torch.zeros, st.lists(st.integers(0, 9), max_size=3), dtype=st.sampled_from([torch.float, torch.int])),
    st.builds(torch.full, st.just((8,)), st.sampled_from([float("nan"), float("inf"), 1.0])),
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in nested dicts and lists."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


@fuzz(0.06, choose=st.data())
def test_changed_content_is_noticed_or_predicts(good: Path, choose: st.DataObject) -> None:
    content = torch.load(good, weights_only=True)
    for _ in range(choose.draw(st.integers(1, 2))):
        own = [place for place in places(content) if place and place[0] in ("plstm_graph", "state_dict")]
        *path, last = choose.draw(st.sampled_from(own))
        parent = content
        for key in path:
            parent = parent[key]
        if choose.draw(st.integers(0, 2)):
            parent[last] = choose.draw(VALUES)
        else:
            del parent[last]
    bad = good.with_name("bad.ckpt")
    torch.save(copy.deepcopy(content), bad)
    with told():
        found = predict(bad, TEXTS)
        assert len(found.values) == len(TEXTS)
        assert found.values[2].isnan().all()
        with pytest.raises(PLSTMGraphError):
            predict(bad.with_name("missing.ckpt"), TEXTS)
