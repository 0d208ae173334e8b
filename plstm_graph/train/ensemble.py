"""An ensemble: several trainings that differ in their seed, in one folder, as one model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data

from plstm_graph.config.architectures import architecture
from plstm_graph.data.dataset import AnyDataset
from plstm_graph.errors import ConfigError
from plstm_graph.io.json_csv import read_json
from plstm_graph.tasks import Task, calibration
from plstm_graph.train import results
from plstm_graph.train.assembly import asked, meta_of
from plstm_graph.train.checkpoint import check_weights, read
from plstm_graph.train.config import MAX_SEED, TrainConfig
from plstm_graph.train.data import labels
from plstm_graph.train.module import Learner
from plstm_graph.train.outputs import outputs
from plstm_graph.train.owner import Owner
from plstm_graph.train.parts import parts_of, tell_labels
from plstm_graph.train.report import Trained, report_made
from plstm_graph.train.start import Start


def check_members(config: TrainConfig, task: Task) -> None:
    """Raise ConfigError unless there are networks to train, on a device each, and answers that have a mean."""
    if architecture(config.model.model).fitted:
        raise ConfigError(f"an ensemble is of networks, and model {config.model.model!r} is none; leave --ensemble out")
    if config.devices not in ("auto", "1") or config.num_nodes > 1:
        raise ConfigError("the networks of an ensemble have one device each; leave --devices and --num-nodes out")
    task.raw(torch.zeros(0, task.num_outputs))


def fit_members(
    config: TrainConfig,
    dataset: AnyDataset,
    graphs: Sequence[Data],
    start: Start,
    fit: Callable[..., Trained],
    *,
    owner: Owner | None,
    resume: bool,
) -> Trained:
    """Trains the members one after the other, each on the same split, and reports on what they answer together.

    A member is a run of its own, in ``members/NUMBER`` of the folder. When the whole is resumed, finished members stay
    and one that was interrupted goes on.

    Args:
        config: with ``ensemble`` above 1; everything else but seed and folder is that of each member.
        dataset, graphs: as for ``train``.
        start: what the run begins with.
        fit: trains a member, given its config, what it begins with and whether it is resumed.
        owner: of the folder, if there is one.
        resume: go on in that folder.
    """
    task, parts = asked(config, dataset), parts_of(config, dataset, start.split, graphs)
    valid = parts["valid"]
    meta = meta_of(config, dataset, task.fitted(labels(parts["train"])), parts["train"], start.content)
    tell_labels(task, parts)
    model: Any = meta.build()  # before any training: its options may make no network
    if owner:
        results.open_folder(config, start.write, resume=resume, rejected=dataset.rejected)
    seconds, begun = 0.0, replace(start, command=None)
    for number, network in enumerate(model.members):
        chosen = member(config, number)
        scores = Path(str(chosen.out)) / results.SCORES
        if resume and scores.is_file():
            found = read_json(scores)
            state = check_weights(network, read(str(chosen.out))["state_dict"], chosen.out)
        else:
            again = resume and (Path(str(chosen.out)) / results.CONFIG).is_file()
            learner, found = fit(chosen, start=begun, resume=again, overwrite=bool(chosen.out) and not again)
            state = learner.model.state_dict()
        if owner:
            owner.check()
        seconds += 60 * found["minutes"]
        network.load_state_dict(state)
    learner = Learner(model, meta.asked, meta.plain())
    learner.to(_device(config))
    values, spread = outputs(learner, valid, config.batch_size)
    if not meta.asked.chances and spread is not None:
        model.factor.copy_(calibration.factor(values, spread, meta.asked.exact(labels(valid))))
    return report_made(config, dataset, start, parts, learner, seconds)


def member(config: TrainConfig, number: int) -> TrainConfig:
    """The run of one member: seeds of different ensembles share none, and the split is that of the whole."""
    seed = (config.seed * config.ensemble + number) % (MAX_SEED + 1)
    split_seed = config.seed if config.split_seed is None else config.split_seed
    out = str(Path(config.out) / "members" / str(number)) if config.out else None
    return replace(config, ensemble=1, budget=None, devices="1", seed=seed, split_seed=split_seed, out=out)


def _device(config: TrainConfig) -> torch.device:
    """Where the members were trained."""
    cuda = torch.cuda.is_available() and config.accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda" if cuda else "cpu")
