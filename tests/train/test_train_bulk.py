"""Many molecules are predicted part by part, and by several processes, as they are at once."""

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from small_runs import molecules, small_config, small_dataset, write_csv

from plstm_graph.data import descriptors
from plstm_graph.errors import CheckpointError, DataError, OutOfMemory
from plstm_graph.io.lazy import LOOPS
from plstm_graph.ops import compiled
from plstm_graph.train import train
from plstm_graph.train.inference import bulk
from plstm_graph.train.inference.molecules import answers
from plstm_graph.train.inference.restored import restore_for_molecules
from plstm_graph.train.machine import cores


def test_many_molecules_are_worth_a_process_a_core():
    assert [bulk.usual_jobs(count, "cpu") for count in (1, bulk.MANY - 1, bulk.MANY)] == [1, 1, cores()]


def test_parts_and_processes_give_what_one_call_gives(tmp_path, monkeypatch):
    train(small_config(out=tmp_path / "run", data=write_csv(tmp_path / "a.csv"), targets="y", epochs=1))
    texts = [*molecules(10), "C1CC", *molecules(12)[::-1], ""]
    expected = answers(*restore_for_molecules(tmp_path / "run", "cpu"), texts)
    monkeypatch.setattr(bulk, "PART", 7)
    for jobs in (1, 2):
        found = bulk.predict(tmp_path / "run", texts, device="cpu", jobs=jobs)
        assert torch.allclose(found.values, expected.values, atol=1e-5, equal_nan=True)
        assert found.rejected == expected.rejected
        assert (found.smiles, found.columns) == (texts, ["y"])
    assert bulk.predict(tmp_path / "run", [], device="cpu").values.shape == (0, 1)


def test_a_file_of_descriptors_is_read_once_for_all_parts(tmp_path, monkeypatch, caplog):
    """One part has no molecule in it, others have: only what no part has at all is refused."""
    own = tmp_path / "own.csv"
    own.write_text("\n".join(["smiles,length", *(f"{text},{len(text)}" for text in molecules())]) + "\n")
    config = small_config(data=write_csv(tmp_path / "a.csv"), targets="y", descriptors=str(own), epochs=1)
    train(replace(config, out=str(tmp_path / "run")))
    texts = [*molecules(7), *(f"{text}F" for text in molecules(7)), "C1CC", *molecules(14)[7:]]
    expected = answers(*restore_for_molecules(tmp_path / "run", "cpu"), texts)
    monkeypatch.setattr(bulk, "PART", 7)
    reads, read_rows = [], descriptors.read_rows
    monkeypatch.setattr(descriptors, "read_rows", lambda *given: reads.append(given) or read_rows(*given))
    for jobs in (1, 2):
        caplog.clear()
        found = bulk.predict(tmp_path / "run", texts, device="cpu", jobs=jobs)
        assert torch.allclose(found.values, expected.values, atol=1e-5, equal_nan=True)
        assert len(reads) == jobs
        assert [record.message[:31] for record in caplog.records] == ["own.csv lacks 7 of 21 molecules"]
    with pytest.raises(DataError, match=r"none of 16 molecules is in .*own.csv"):
        bulk.predict(tmp_path / "run", ["CCF"] * 16, device="cpu")


def test_a_process_that_dies_ends_all_of_them_with_an_error(tmp_path, monkeypatch):
    train(small_config(out=tmp_path / "run", data=write_csv(tmp_path / "a.csv"), targets="y", epochs=1))
    monkeypatch.setattr(bulk, "PART", 7)
    before = multiprocessing.active_children()

    def kill():
        while not (children := set(multiprocessing.active_children()).difference(before)):
            time.sleep(0.05)
        os.kill(children.pop().pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(OutOfMemory, match=r"one of 2 processes that answered has died; .* fewer --jobs"):
        bulk.predict(tmp_path / "run", molecules(20), device="cpu", jobs=2)
    killer.join()
    assert set(multiprocessing.active_children()) <= set(before)


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """A run whose checkpoint no process can begin with, as it was not trained on SMILES."""
    dataset = small_dataset(tmp_path)
    for graph in dataset.graphs:
        del graph.smiles
    train(small_config(out=tmp_path / "run", epochs=1), dataset)
    monkeypatch.setattr(bulk, "PART", 7)
    return tmp_path / "run"


def test_what_processes_cannot_begin_with_is_told(refused):
    with pytest.raises(CheckpointError, match="not on molecules given as SMILES"):
        bulk.predict(refused, molecules(20), device="cpu", jobs=2)


def test_an_error_ends_processes_of_its_own_alone(refused):
    """What another thread has started meanwhile goes on."""
    before = multiprocessing.active_children()
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))

    def start():
        while not set(multiprocessing.active_children()).difference(before):
            time.sleep(0.01)
        other.start()

    starter = threading.Thread(target=start)
    starter.start()
    with pytest.raises(CheckpointError):
        bulk.predict(refused, molecules(20), device="cpu", jobs=2)
    starter.join()
    other.join(0.5)
    assert set(multiprocessing.active_children()).difference(before) == {other}
    other.kill()
    other.join()


def test_few_molecules_are_answered_before_loops_are_loaded(tmp_path, monkeypatch):
    train(small_config(out=tmp_path / "run", data=write_csv(tmp_path / "a.csv"), targets="y", epochs=1))
    expected = answers(*restore_for_molecules(tmp_path / "run", "cpu"), molecules(5))
    assert torch.equal(bulk.predict(tmp_path / "run", molecules(5), device="cpu").values, expected.values)
    monkeypatch.setattr(bulk, "is_put_off", lambda name: name == LOOPS)  # as in a process that only predicts
    monkeypatch.setattr(compiled, "load", lambda name: pytest.fail(f"{name} is loaded"))
    found = bulk.predict(tmp_path / "run", molecules(5), device="cpu")
    torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=1e-6)
