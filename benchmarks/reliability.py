"""Runs that are killed or meet, and inputs at random: ``python benchmarks/reliability.py kill | together | fuzz``.

``kill`` trains undisturbed; then again and again, each time struck by SIGKILL at a random moment and resumed, which
has to end in the same bits, with no file half-written in between. ``together`` starts two runs in one folder at the
same time, of which one has to end in the bits of an undisturbed one and the other to be told. ``fuzz`` runs
``tests/fuzz`` on many cases. Each appends a row to ``results/reliability.jsonl``; a failure is an exit code, no row.
"""

import argparse
import csv
import functools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import records
import torch

from plstm_graph.data import load_graphs
from plstm_graph.data.dataset import GraphDataset
from plstm_graph.draw import style
from plstm_graph.errors import ConfigError
from plstm_graph.train import TrainConfig, train
from plstm_graph.train.checkpoint import read
from plstm_graph.train.config import override
from plstm_graph.train.results import HISTORY

RESULTS = "reliability.jsonl"
QUICK = {"epochs": 8, "batch_size": 16, "patience": 6, "lr": 0.01, "accelerator": "cpu"}
QUICK |= {"model.width": 8, "model.layers": 1, "model.heads": 4, "model.rwse": 4}
MOLECULES = 60
CHECKPOINTS = ("best.ckpt", "last.ckpt")
TOLD = 3
"""Exit code of a run whose folder another one has."""


class Different(Exception):
    """What a killed run left, or what it came to, is not as it must be."""


def kill(times: int, seed: int, folder: Path) -> dict[str, Any]:
    """Trains in ``folder``; returns what was counted.

    Processes are forked before anything was trained here, since autograd does not survive a fork.

    Raises:
        Different: a file was half-written, or a resumed run ended in other bits.
    """
    rng, dataset = random.Random(seed), _few()
    longest = max(_undisturbed(folder / name, dataset) for name in ("whole", "again"))
    whole = artefacts(folder / "whole")
    _check_same(whole, artefacts(folder / "again"), "without a kill")
    kills = resumed = early = 0
    while kills < times:
        out = folder / f"run{resumed}"
        child = _start(out, dataset)
        while _struck(child, rng.uniform(0, 0.8 * longest)):
            kills += 1
            early += not (out / "checkpoints" / "last.ckpt").exists()
            check_whole(out)
            child = _start(out, dataset)
            if kills == times or rng.random() < 0.5:  # now it may end; otherwise it is struck again
                _finish(child)
                break
        resumed += 1
        _check_same(whole, artefacts(out), out.name)
    return {"kills": kills, "before_first_checkpoint": early, "runs": resumed, "epochs": QUICK["epochs"]}


def _few() -> GraphDataset:
    """What all processes train on; and what they all need is imported before they are forked."""
    style.new_figure(1, 1, width=1, height=1)
    dataset = load_graphs("nav17")
    dataset.graphs = dataset.graphs[:MOLECULES]
    return dataset


def _undisturbed(out: Path, dataset: GraphDataset) -> float:
    start = time.perf_counter()
    _finish(_start(out, dataset))
    return time.perf_counter() - start


def _start(out: Path, dataset: GraphDataset) -> int:
    """A process that trains, or goes on where there is something to go on from."""
    resume = (out / "config.toml").exists()
    return _fork(lambda: train(_config(out), dataset, resume=resume, overwrite=not resume))


def _config(out: Path, seed: int = 0) -> TrainConfig:
    return override(TrainConfig(), QUICK | {"out": out, "seed": seed})


def _fork(work: Callable[[], Any]) -> int:
    """A process that does some work, and ends with 0 when it is done, with ``TOLD`` when its folder is in use."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        work()
        code = 0
    except Exception as error:
        code = TOLD if isinstance(error, ConfigError) and "is in use: process" in str(error) else 1
        if code != TOLD:
            traceback.print_exc()
    finally:
        os._exit(code)


def together(times: int, seed: int, folder: Path) -> dict[str, Any]:
    """Starts two runs at a time in one folder, every second time in one that holds a run; returns what was counted.

    Raises:
        Different: both went on, or neither did, or what the one left is not what it leaves undisturbed.
    """
    rng, dataset = random.Random(seed), _few()
    whole = []
    for number in (0, 1):
        out = folder / f"whole{number}"
        _finish(_fork(functools.partial(train, _config(out, number), dataset)))
        whole.append(artefacts(out))
    wins = [0, 0]
    for turn in range(times):
        out, overwrite = folder / f"run{turn // 2}", turn % 2 == 1
        children = []
        for number in rng.sample((0, 1), 2):
            run = functools.partial(train, _config(out, number), dataset, overwrite=overwrite)
            children.append((_fork(run), number))
            time.sleep(rng.choice((0, 0, rng.uniform(0, 0.1))))
        ended = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]): number for child, number in children}
        if ended.keys() != {0, TOLD}:
            raise Different(f"two runs in {out.name} ended with {sorted(ended)}, not one with 0 and one with {TOLD}")
        wins[ended[0]] += 1
        check_whole(out)
        _check_same(whole[ended[0]], artefacts(out), out.name)
    return {"pairs": times, "wins": wins, "epochs": QUICK["epochs"]}


def _struck(child: int, delay: float) -> bool:
    """Whether the process was still running when the blow fell."""
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _finish(child: int) -> None:
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise Different("a run ended with an error, see above")


def check_whole(out: Path) -> None:
    """Every file in the folder of a run can be read to its end.

    Raises:
        Different: one cannot.
    """
    for path in [path for path in out.rglob("*") if path.is_file() and ".tmp" not in path.name]:
        try:
            _read_whole(path)
        except Exception as error:
            raise Different(f"{path} is half-written: {error}") from error


def _read_whole(path: Path) -> None:
    content = path.read_bytes()
    if path.suffix == ".ckpt":
        read(path)
    elif path.suffix == ".json":
        json.loads(content)
    elif path.suffix == ".toml":
        tomllib.loads(content.decode())
    elif path.suffix == ".csv":
        rows = list(csv.reader(content.decode().splitlines()))
        if not content.endswith(b"\n") or len({len(row) for row in rows}) != 1:
            raise ValueError("rows differ in length")
        if path.name == HISTORY and [row[0] for row in rows[1:]] != [str(epoch) for epoch in range(len(rows) - 1)]:
            raise ValueError("epochs are missing, or there twice")
    elif path.suffix == ".png" and not content.endswith(b"IEND\xaeB`\x82"):
        raise ValueError("the picture has no end")


def artefacts(out: Path) -> dict[str, Any]:
    """All that a finished run leaves, but for the time it took, where it stands and the state of the checkout."""
    metrics = json.loads((out / "metrics.json").read_text())
    del metrics["minutes"], metrics["commit"], metrics["date"]
    states = {name: read(out / "checkpoints" / name) for name in CHECKPOINTS}
    for state in states.values():
        del state["plstm_graph"]["config"]["out"]
        for callback in state.get("callbacks", {}).values():
            callback.pop("seconds", None)
    tables = {path.name: path.read_text() for path in out.glob("*.csv")}
    pictures = {path.name: path.read_bytes() for path in out.glob("*.png")}
    return {"metrics": metrics, **tables, **states, **pictures}


def differences(first: Any, second: Any, place: str = "") -> Iterator[str]:
    """Places at which two nested values differ, if only by a bit."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        for key, value in first.items():
            yield from differences(value, second[key], f"{place}/{key}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from differences(one, other, f"{place}/{number}")
    elif isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if first.dtype != second.dtype or not torch.equal(first, second):
            yield place
    elif first != second:
        yield place


def _check_same(whole: dict[str, Any], found: dict[str, Any], name: str) -> None:
    differing = list(differences(whole, found))
    if differing:
        raise Different(f"{name} differs from the undisturbed run in {', '.join(differing[:5])}")


def fuzz(cases: int, jobs: int, folder: Path, only: str = "") -> dict[str, Any]:
    """Runs ``tests/fuzz``, or ``only`` what pytest's -k selects, on about so many cases; returns how many ran, by test.

    Raises:
        Different: a case failed; pytest has shown it.
    """
    counts = folder / "counts.json"
    words = [sys.executable, "-m", "pytest", "tests/fuzz", "-p", "no:cacheprovider", "-n", str(jobs), "-k", only]
    environment = os.environ | {"FUZZ_CASES": str(cases), "FUZZ_COUNTS": str(counts), "OMP_NUM_THREADS": "1"}
    if subprocess.run(words, cwd=records.ROOT, env=environment, check=False).returncode:
        raise Different("a case failed, see above")
    by_test: dict[str, int] = {}
    for line in counts.read_text().splitlines():
        for name, number in json.loads(line).items():
            by_test[name] = by_test.get(name, 0) + number
    return {"cases": sum(by_test.values()), "by_test": dict(sorted(by_test.items()))}


def answer(times: int, seed: int, folder: Path) -> dict[str, Any]:
    """Gives a wrong option so many times; returns the median of the CPU seconds until it is refused.

    Raises:
        Different: it was not refused.
    """
    seconds = []
    for _ in range(times):
        before = os.times()
        words = [sys.executable, "-m", "plstm_graph", "train", "--splitt", "x"]
        if subprocess.run(words, cwd=folder, capture_output=True, check=False).returncode != 2:
            raise Different("a wrong option was not refused")
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return {"answers": times, "cpu_seconds": round(statistics.median(seconds), 3)}


WORK = {"kill": kill, "together": together, "answer": answer}


def main(arguments: list[str] | None = None) -> int:
    """Runs one of the four and stores its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=records.RESULTS)
    commands = parser.add_subparsers(dest="what", required=True)
    killing = commands.add_parser("kill")
    killing.add_argument("--times", type=int, default=20)
    killing.add_argument("--seed", type=int, default=0, help="of the moments")
    meeting = commands.add_parser("together")
    meeting.add_argument("--times", type=int, default=50)
    meeting.add_argument("--seed", type=int, default=0, help="of the moments")
    answering = commands.add_parser("answer")
    answering.add_argument("--times", type=int, default=10)
    answering.set_defaults(seed=0)
    fuzzing = commands.add_parser("fuzz")
    fuzzing.add_argument("--cases", type=int, default=10_000)
    fuzzing.add_argument("--jobs", type=int, default=0, help="processes; 0: this one")
    fuzzing.add_argument(
        "--only", default="", help="tests by pytest's -k; each has the share of cases that it always has"
    )
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as name:
            if options.what in WORK:
                found = WORK[options.what](options.times, options.seed, Path(name))
            else:
                found = fuzz(options.cases, options.jobs, Path(name), options.only)
    except Different as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    torch.set_num_threads(1)  # as in the processes
    row = {"what": options.what, **found, "seconds": round(time.perf_counter() - start, 1), **records.provenance()}
    records.append(options.results / RESULTS, row)
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
