"""What several devices are worth: ``python benchmarks/devices.py curve | strike | throughput | series``.

``curve`` trains with the same batches on one device and on several, and records how far losses are apart. ``strike``
kills one of two processes and resumes, which has to end as the undisturbed run does. Both take CPUs and gloo.
``throughput`` counts examples a second on one GPU and on several, batches of the same size on each; ``series`` times
seeds one after another on one GPU and side by side on several. Each appends a row to ``results/devices.jsonl``.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import records
import torch
from pytorch_lightning.callbacks import Callback

from plstm_graph.train import TrainConfig, train
from plstm_graph.train.config import from_dict, override, read_toml, write_toml
from plstm_graph.train.defaults import default_config

RESULTS = "devices.jsonl"
SAME = {"model.norm": "layer", "model.rwse": 0, "model.dropout": 0.0, "precision": "64-true", "accelerator": "cpu"}
"""With these, several devices do the steps of one: no statistics of a batch, no random numbers of a device, and no
rounding that training would make grow (after 39 steps in float32 losses are .001 apart)."""
WARM = 1
"""Epochs before the first that counts."""


class Clock(Callback):
    """Notes seconds of every epoch's steps, validation left out, and its losses."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[list[float]] = []
        self._since = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = _now()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds.append(_now() - self._since)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        history = trainer.checkpoint_callback.history  # type: ignore[union-attr]  # the package's Keeper
        self.losses = [[row["loss"], row["valid_loss"]] for row in history]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def one(config: Path, out: Path, resume: bool) -> None:
    """The work of one process: a run whose clock the first one writes."""
    clock = Clock()
    found = train(from_dict(read_toml(config)), resume=resume, callbacks=[clock])
    if os.environ.get("RANK", "0") == "0":
        kept = {name: found[name] for name in ("graphs", "valid", "test")}
        out.write_text(json.dumps({"seconds": clock.seconds, "losses": clock.losses, **kept}))


def start(config: TrainConfig, devices: int, folder: Path, resume: bool = False) -> list[subprocess.Popen[bytes]]:
    """Processes that train together, one a device."""
    path = folder / "config.toml"
    write_toml(replace(config, devices=str(devices)), path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable, __file__, "one", str(path), str(folder / "found.json"), *(["--resume"] * resume)]
    found = []
    for rank in range(devices):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        if devices > 1:  # what torchrun sets
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "devices"}
            environment |= {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices), "GROUP_RANK": "0"}
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        found.append(subprocess.Popen(words, env=environment))
    return found


def trained(config: TrainConfig, devices: int, resume: bool = False) -> dict[str, Any]:
    """What a run on so many devices found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codes = [process.wait() for process in start(config, devices, folder, resume)]
        if any(codes):
            raise RuntimeError(f"processes of the run on {devices} devices ended with {codes}")
        return json.loads((folder / "found.json").read_text())


def curve(config: TrainConfig, devices: list[int]) -> dict[str, Any]:
    """Largest difference of an epoch's losses from those of one device with as many examples a step."""
    config = override(config, SAME)
    runs = {n: trained(replace(config, batch_size=config.batch_size // n), n) for n in [1, *devices]}
    apart = {n: _apart(runs[1]["losses"], runs[n]["losses"]) for n in devices}
    return {"apart": apart, "epochs": len(runs[1]["losses"]), "losses": runs[1]["losses"]}


def _apart(first: list[list[float]], second: list[list[float]]) -> float:
    return float((torch.tensor(first) - torch.tensor(second)).abs().max())


def strike(config: TrainConfig) -> dict[str, Any]:
    """A process of two is killed once there is a checkpoint; the resumed run has to end as the undisturbed one."""
    config = override(config, SAME)
    config = replace(config, batch_size=config.batch_size // 2)
    whole = trained(config, 2)
    with tempfile.TemporaryDirectory() as name:
        config = replace(config, out=str(Path(name) / "run"))
        first, second = start(config, 2, Path(name))
        while not (Path(name) / "run" / "checkpoints" / "last.ckpt").exists():
            if first.poll() is not None or second.poll() is not None:
                raise RuntimeError("the run ended before its first checkpoint")
            time.sleep(0.02)
        second.kill()
        code = first.wait(timeout=120)
        if code == 0:
            raise RuntimeError("the run ended before the blow fell; give it more epochs")
        again = trained(config, 2, resume=True)
    apart = {part: _apart([[*whole[part].values()]], [[*again[part].values()]]) for part in ("valid", "test")}
    apart["losses"] = _apart(whole["losses"], again["losses"])
    return {"code": code, "epochs": len(again["losses"]), "apart": max(apart.values()), "of": apart}


def throughput(config: TrainConfig, devices: list[int]) -> dict[str, Any]:
    """Examples a second, and the share of so many times one device's, with batches of the config on each.

    Steps go kernel by kernel unless the config asks for captured ones.
    """
    config = replace(config, capture=bool(config.capture))
    cases: list[dict[str, Any]] = []
    for n in sorted({1, *devices}):
        found = trained(config, n)
        rate = found["graphs"]["train"] / statistics.median(found["seconds"][WARM:])
        alone = cases[0]["per_second"] if cases else rate
        cases.append(
            {"devices": n, "batch_size": config.batch_size, "per_second": rate, "efficiency": rate / alone / n}
        )
        print(json.dumps(cases[-1]), flush=True)
    return {"captured": bool(config.capture), "cases": cases}


def series(config: TrainConfig, seeds: int) -> dict[str, Any]:
    """Minutes of one seed alone and of all, as many at a time."""
    found = {}
    for count in (1, seeds):
        with tempfile.TemporaryDirectory() as name:
            write_toml(replace(config, devices="1"), Path(name) / "config.toml")
            words = [sys.executable, "-m", "plstm_graph", "train", "--config", f"{name}/config.toml"]
            words += ["--seeds", f"0-{count - 1}", "--jobs", str(count), "--out", f"{name}/runs"]
            since = time.perf_counter()
            subprocess.run(words, check=True)
            found[count] = (time.perf_counter() - since) / 60
    return {"seeds": seeds, "minutes": found, "ratio": found[seeds] / found[1]}


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Runs one of them and stores its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["curve", "strike", "throughput", "series"])
    parser.add_argument("--data", default="nav17")
    parser.add_argument("--root")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--devices", type=int, nargs="+", default=[2, 4])
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[64], help="curve: of a step; throughput: a device"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more fields of the config")
    parser.add_argument("--results", type=Path, default=records.RESULTS)
    parser.add_argument("--commit", help="of these files, where git cannot tell")
    options = parser.parse_args(arguments)
    values = {"data": options.data, "root": options.root, "epochs": options.epochs, "batch_size": options.batch_size[0]}
    values |= dict(pair.split("=", 1) for pair in options.set)
    config = override(default_config(options.data), {key: value for key, value in values.items() if value is not None})
    work: dict[str, Callable[[TrainConfig], dict[str, Any]]] = {
        "curve": lambda config: curve(config, options.devices),
        "strike": strike,
        "throughput": lambda config: throughput(config, options.devices),
        "series": lambda config: series(config, max(options.devices)),
    }
    device = "cuda" if options.what in ("throughput", "series") else "cpu"
    for size in options.batch_size if options.what == "throughput" else options.batch_size[:1]:
        since = time.perf_counter()
        found = work[options.what](replace(config, batch_size=size))
        row = {"what": options.what, "data": options.data, **found, "seconds": round(time.perf_counter() - since, 1)}
        records.append(options.results / RESULTS, row | records.provenance(device, options.commit))
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one(Path(sys.argv[2]), Path(sys.argv[3]), "--resume" in sys.argv)
    else:
        sys.exit(main())
