"""How long ``plstm-graph predict`` takes: ``python benchmarks/predicting.py --root DATA``.

For one molecule from the shell, beside importing torch and rdkit alone, which no such program can do without; for the
first and each further line of a resident one; for many molecules (SMILES of ogbg-molhiv, repeated as needed), in
``--jobs`` processes. The model is the default one after an epoch on nav17. CPU seconds are those of all processes, so
they say the same on a busy machine; what else ran says ``load``. Appends a row to ``results/predicting.jsonl``.
"""

import argparse
import csv
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import records
from tables import predicting_table

from plstm_graph.train import train
from plstm_graph.train.config import TrainConfig, override

RESULTS = "predicting.jsonl"
PROGRAM = (sys.executable, "-m", "plstm_graph")
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.exit(code)
"""
"""A small process between: the peak of a command counts from what had started it on."""
FLOOR = (sys.executable, "-c", "import torch; from rdkit import Chem")


def measured(words: tuple[str, ...] | list[str]) -> dict[str, float]:
    """Seconds, CPU seconds and the peak memory of the largest process in MiB, of a command that has to succeed."""
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words)} ended with {done.returncode}")
    return dict(zip(("seconds", "cpu_seconds", "peak_mib"), json.loads(done.stdout), strict=True))


def median(words: tuple[str, ...] | list[str], times: int) -> dict[str, float]:
    """The median of several :func:`measured`, each number by itself."""
    found = [measured(words) for _ in range(times)]
    return {name: round(statistics.median(one[name] for one in found), 3) for name in found[0]}


def resident(run: Path, texts: list[str]) -> dict[str, float]:
    """Seconds from the start to the answer to the first line, and the median from a line to its answer after that."""
    words = [*PROGRAM, "predict", "--checkpoint", str(run), "--input", "-", "--out", "-", "--device", "cpu"]
    waits, since = [], time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # the header
        for text in texts:
            process.stdin.write(text + "\n")
            process.stdout.readline()
            waits.append(time.perf_counter() - since)
            since = time.perf_counter()
        process.stdin.close()
    return {"first_seconds": round(waits[0], 3), "next_seconds": round(statistics.median(waits[1:]), 4)}


def molecules(root: Path, count: int) -> list[str]:
    """SMILES of ogbg-molhiv, from the first again when there are no more."""
    path = root / "ogb" / "ogbg_molhiv" / "mapping" / "mol.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        texts = [row["smiles"] for row in csv.DictReader(stream)]
    return list(islice(cycle(texts), count))


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Measures and stores the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with public data")
    parser.add_argument("--results", type=Path, default=records.RESULTS)
    parser.add_argument("--molecules", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--times", type=int, default=5, help="for one molecule; the median counts")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--data", default="nav17", help="to train on")
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as where it is installed
    texts, load = molecules(options.root, options.molecules), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        how = {"data": options.data, "epochs": options.epochs, "accelerator": "cpu", "out": folder / "run"}
        train(override(TrainConfig(), how))
        for file, rows in (("one.smi", texts[:1]), ("many.smi", texts)):
            (folder / file).write_text("\n".join(rows) + "\n", encoding="utf-8")
        words = [*PROGRAM, "predict", "--checkpoint", str(folder / "run"), "--device", "cpu"]
        words += ["--out", str(folder / "predictions.csv"), "--input"]
        measured([*words, str(folder / "one.smi")])  # compiled code is in its cache, files are in memory
        found = {"floor": median(FLOOR, options.times), "one": median([*words, str(folder / "one.smi")], options.times)}
        found["resident"] = resident(folder / "run", texts[:50])
        many = measured([*words, str(folder / "many.smi"), "--jobs", str(options.jobs)])
    rate = {"molecules": len(texts), "jobs": options.jobs, "per_second": round(len(texts) / many["seconds"], 1)}
    row: dict[str, Any] = {**found, "many": rate | {key: round(value, 2) for key, value in many.items()}}
    row |= {"load": [round(load, 2), round(os.getloadavg()[0], 2)], **records.provenance()}
    records.append(options.results / RESULTS, row)
    print(predicting_table([row]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
