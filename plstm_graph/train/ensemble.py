"""An ensemble: several trainings that differ in their seed, in one folder, as one model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch_geometric.data import Data

from plstm_graph.config.architectures import architecture
from plstm_graph.data.dataset import AnyDataset
from plstm_graph.errors import ConfigError
from plstm_graph.models.ensemble import Ensemble
from plstm_graph.tasks import Task, calibration
from plstm_graph.train import results
from plstm_graph.train.callbacks import Keeper
from plstm_graph.train.checkpoint import Meta, check_weights, read
from plstm_graph.train.checkpoint_io import AtomicCheckpointIO
from plstm_graph.train.config import MAX_SEED, TrainConfig
from plstm_graph.train.data import labels
from plstm_graph.train.module import Learner
from plstm_graph.train.outputs import outputs
from plstm_graph.train.owner import Owner
from plstm_graph.train.report import Run, Trained, report
from plstm_graph.train.start import Start

Train = Callable[..., dict[str, Any]]


def check_members(config: TrainConfig, task: Task) -> None:
    """Raise ConfigError unless there are networks to train, and answers that have a mean."""
    if architecture(config.model.model).fitted:
        raise ConfigError(f"an ensemble is of networks, and model {config.model.model!r} is none; leave --ensemble out")
    task.raw(torch.zeros(0, task.num_outputs))


def fit_members(
    config: TrainConfig,
    dataset: AnyDataset,
    graphs: Sequence[Data] | None,
    parts: dict[str, Any],
    meta: Meta,
    start: Start,
    *,
    train: Train,
    owner: Owner | None,
    resume: bool,
    progress: bool,
    callbacks: Sequence[Callback],
) -> Trained:
    """Trains the members one after the other, each on the same split, and reports on what they answer together.

    A member is a run of its own, in ``members/NUMBER`` of the folder. When the whole is resumed, finished members stay
    and one that was interrupted goes on.

    Args:
        config: with ``ensemble`` above 1; everything else but seed and folder is that of each member.
        dataset, graphs, callbacks: as for ``train``.
        parts: prepared graphs of the split.
        meta: of the whole.
        start: what the run begins with.
        train: what trains a member.
        owner: of the folder, if there is one.
        resume: go on in that folder.
        progress: show the bar of each member.
    """
    out = Path(config.out) if config.out else None
    if out and owner:
        results.open_folder(config, start.write, resume=resume, rejected=dataset.rejected)
    model = meta.build()
    assert isinstance(model, Ensemble)
    seconds = 0.0
    for number, network in enumerate(model.members):
        chosen, kept = member(config, number), Kept()
        how: dict[str, Any] = {"graphs": graphs, "progress": progress, "callbacks": [*callbacks, kept]}
        found = _found(chosen) if resume else None
        if found is None:
            if chosen.out:
                again = resume and (Path(chosen.out) / results.CONFIG).is_file()
                how |= {"resume": again, "overwrite": not again}
            found = train(chosen, dataset, **how)
        if owner:
            owner.check()
        seconds += 60 * found["minutes"]
        state = read(chosen.out)["state_dict"] if chosen.out else kept.state
        network.load_state_dict(check_weights(network, state, chosen.out))
    learner = Learner(model, meta.asked, meta.plain())
    learner.to(_device(config))
    valid = parts["valid"]
    values, spread = outputs(learner, valid, config.batch_size)
    if not meta.asked.chances and spread is not None:
        model.factor.copy_(calibration.factor(values, spread, meta.asked.exact(labels(valid))))
    keeper = Keeper(f"valid_{meta.asked.metric}", meta.asked.rule.higher_is_better)
    keeper.seconds, keeper.best_state = seconds, {k: v.detach().clone() for k, v in learner.state_dict().items()}
    if out and owner:
        content = {"plstm_graph": meta.plain(), "state_dict": keeper.best_state}
        AtomicCheckpointIO().save_checkpoint(content, out / "checkpoints" / "best.ckpt")
    return report(Run(config, dataset, start.split, parts, learner, keeper, out, start))


def member(config: TrainConfig, number: int) -> TrainConfig:
    """The run of one member: seeds of different ensembles share none, and the split is that of the whole."""
    seed = (config.seed * config.ensemble + number) % (MAX_SEED + 1)
    split_seed = config.seed if config.split_seed is None else config.split_seed
    out = str(Path(config.out) / "members" / str(number)) if config.out else None
    return replace(config, ensemble=1, budget=None, devices="1", seed=seed, split_seed=split_seed, out=out)


def _found(config: TrainConfig) -> dict[str, Any] | None:
    """What a finished member found."""
    path = Path(str(config.out)) / results.SCORES
    return results.read_json(path) if config.out and path.is_file() else None


class Kept(Callback):
    """The best weights of a training that writes nothing."""

    state: Mapping[str, Any]

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take them from the one who kept them."""
        keeper = next(each for each in trainer.callbacks if isinstance(each, Keeper))  # type: ignore[attr-defined]
        self.state = keeper.best_state or {}


def _device(config: TrainConfig) -> torch.device:
    """Where the members were trained."""
    cuda = torch.cuda.is_available() and config.accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda" if cuda else "cpu")
