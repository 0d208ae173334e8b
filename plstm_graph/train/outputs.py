"""What a model says of graphs, batch by batch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from plstm_graph.data.examples import batches
from plstm_graph.io.waiting import tracked
from plstm_graph.models.ensemble import Ensemble
from plstm_graph.train.answering import Answering
from plstm_graph.train.memory import memory_advice
from plstm_graph.train.placement import Graphs, moved


class Outputs(NamedTuple):
    """What a model says of graphs, on the CPU.

    Attributes:
        values: predictions in original units (probabilities for classes), float32 [graphs, outputs].
        spread: standard deviation of each over the members of an ensemble, [graphs, outputs]; that of quantities is as
            large as errors are on the validation part of the training. None without an ensemble.
    """

    values: Tensor
    spread: Tensor | None


@torch.inference_mode()
def outputs(learner: Answering, graphs: Graphs, batch_size: int = 256) -> Outputs:
    """Predictions for graphs that have their encodings, packed or not; every network runs once.

    Raises:
        OutOfMemory: a batch does not fit.
    """
    training = learner.training
    learner.eval()
    with memory_advice(batch_size):
        work = tracked(range(0, len(graphs), batch_size), f"scoring {len(graphs):,} graphs")
        parts = zip(work, batches(moved(graphs, learner.device), batch_size), strict=True)
        found = [output_of(learner, batch.to(learner.device)) for _, batch in parts]
    learner.train(training)
    if not found:
        empty = torch.empty(0, learner.task.num_outputs)
        return Outputs(empty, empty if isinstance(learner.model, Ensemble) else None)
    spreads = [spread for _, spread in found if spread is not None]
    return Outputs(torch.cat([values for values, _ in found]), torch.cat(spreads) if spreads else None)


def output_of(learner: Answering, batch: Any) -> Outputs:
    """As :func:`outputs`, for a batch that is on the device of the model."""
    model = learner.model
    if not isinstance(model, Ensemble):
        return Outputs(learner(batch).cpu(), None)
    members = model.each(batch)
    spread = torch.stack([learner.readable(one) for one in members]).std(0) * model.factor
    return Outputs(learner.readable(model.together(members)).cpu(), spread.cpu())
