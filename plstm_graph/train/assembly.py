"""A run put together up to its first step: task, model, trainer, and the parts of the data packed where it trains."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.profilers import Profiler
from torch_geometric.data import Data

from plstm_graph.config.architectures import architecture
from plstm_graph.data.dataset import AnyDataset
from plstm_graph.data.features import ATOM_SIZES
from plstm_graph.data.stacked import joined
from plstm_graph.errors import ConfigError
from plstm_graph.nn.encoders import DescriptorEncoder
from plstm_graph.tasks import Task
from plstm_graph.train import provenance
from plstm_graph.train.averaging import Averaging
from plstm_graph.train.callbacks import Bar, Keeper, Reseed
from plstm_graph.train.capture import chosen
from plstm_graph.train.checkpoint import Meta
from plstm_graph.train.compiling import check_compile
from plstm_graph.train.config import TrainConfig, to_dict
from plstm_graph.train.data import labels, pack, train_loader
from plstm_graph.train.domain import Domain
from plstm_graph.train.module import Learner
from plstm_graph.train.parts import parts_of
from plstm_graph.train.profiling import FEATURISING, MAKING, WAKING
from plstm_graph.train.report import Run
from plstm_graph.train.start import Start
from plstm_graph.train.trainer import trainer_of


def asked(config: TrainConfig, dataset: AnyDataset) -> Task:
    """The task of the data as a config judges it and has it learnt."""
    return dataset.task.with_metric(config.metric).trained_with(config.loss, config.class_weights)


def assemble(
    config: TrainConfig,
    dataset: AnyDataset,
    graphs: Sequence[Data] | None,
    progress: bool,
    start: Start,
    more: Sequence[Callback],
    profiler: Profiler,
) -> tuple[Run, pl.Trainer, Any]:
    """Everything up to the first step, so that whatever is wrong with options or data shows before training."""
    task = asked(config, dataset)
    with profiler.profile(FEATURISING):
        parts = parts_of(config, dataset, start.split, graphs)
    task.check_defined(task.exact(labels(parts["valid"])), "valid")
    task = task.fitted(labels(parts["train"]))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    meta = meta_of(config, dataset, task, parts["train"], start.content)
    with profiler.profile(MAKING):
        model = meta.build()
    reader = getattr(model, "descriptors", None)
    if isinstance(reader, DescriptorEncoder):
        reader.fit(joined(parts["train"], "descriptors"))

    out = Path(config.out) if config.out else None
    average = Averaging(config.ema) if config.ema else None
    keeper = Keeper(f"valid_{task.metric}", task.rule.higher_is_better, out, average)
    callbacks: list[Callback] = [Reseed(config.seed), keeper, *more]
    if average:
        callbacks.append(average)
    if config.patience:
        mode = "max" if task.rule.higher_is_better else "min"
        callbacks.append(EarlyStopping(f"valid_{task.metric}", patience=config.patience, mode=mode))
    if progress:
        callbacks.append(Bar(keeper, task.rule.label))
    with profiler.profile(MAKING):
        trainer = trainer_of(config, callbacks, out, progress, profiler)
    device = trainer.strategy.root_device
    with profiler.profile(WAKING):  # a GPU takes its time, here and not where it is first asked for something else
        torch.zeros((), device=device)
    ahead = [name for name, part in parts.items() if name in ("train", "valid") or isinstance(part, Sequence)]
    with profiler.profile(FEATURISING):  # other images come to the device when they are scored
        packed = {name: pack(parts[name], config.model, device) for name in ahead}
    steps = packed["train"]
    if config.compile:
        check_compile(config.model, steps, device)
    captured = chosen(steps, config, task, model, device, trainer.world_size)
    if captured is not None:
        steps = captured
        packed.pop("train")
    loader = train_loader(
        steps, config.batch_size, config.seed, rank=trainer.global_rank, world_size=trainer.world_size
    )
    learner = Learner(
        model,
        task,
        meta.plain(),
        lr=config.lr,
        weight_decay=config.weight_decay,
        source_decay=config.source_decay,
        warmup_steps=config.warmup_epochs * len(loader),
        total_steps=config.epochs * len(loader),
        compile=config.compile,
        capture=captured is not None,
    )
    precision = str(trainer.precision)  # its full name: 64 is 64-true
    if precision in ("64-true", "bf16-true", "16-true") and architecture(config.model.model).fixed:
        raise ConfigError(f"images are read in float32: precision 32-true, bf16-mixed or 16-mixed, not {precision}")
    if precision == "64-true":  # Lightning would do so after it has read weights, too late to keep all bits
        learner.double()
    run = Run(config, dataset, start.split, parts | packed, learner, keeper, out, start, trainer.world_size)
    return run, trainer, loader


def meta_of(config: TrainConfig, dataset: AnyDataset, task: Task, train: Any, content: str) -> Meta:
    """What a checkpoint tells of a model that is trained on these examples; ``content`` is their hash."""
    molecules = dataset.reader is not None and dataset.features.node_sizes == ATOM_SIZES and task.level == "graph"
    return Meta(
        config=to_dict(config),
        features=asdict(dataset.features),
        task=task.plain(),
        featuriser=dataset.reader,
        versions=provenance.versions(),
        content=content,
        seen=Domain.of(train, task).plain() if molecules else None,
    )
