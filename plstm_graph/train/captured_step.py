"""A training step as one CUDA graph: batch, passes, loss, clipping and optimizer, started by one call of the host.

What the host asks of a GPU takes it 5 to 25 microseconds. A step of some hundred molecules is a thousand such requests,
and with passes that are graphs (:class:`plstm_graph.nn.Captured`) still three hundred. Here two numbers and a few
kilobytes that say which graphs are in the batch go to the GPU, and everything else follows there.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from plstm_graph.data.taking import Picked, send
from plstm_graph.errors import ShapeError
from plstm_graph.nn import captured
from plstm_graph.nn.captured import NotRecorded, of_filled
from plstm_graph.train.ddp import means, weighed

log = logging.getLogger(__name__)

LOSS_OFF, STEP_OFF = 1e-2, 0.5
"""How far the first step of the graph may be from the same step kernel by kernel, relative: its loss, and what it does
to the weights. That is generous: AdamW's first step goes by the signs of gradients, of which some are noise."""


class Learning(Protocol):
    """What a step needs of a learner."""

    model: Any
    task: Any
    weights: list[nn.Parameter]
    loss_sum: Tensor
    labels: Tensor

    def loss(self, output: Tensor, target: Tensor) -> Tensor: ...

    def note(self, loss: Tensor, labels: Tensor) -> None: ...

    def close_sources(self, by: Tensor) -> None: ...


class CapturedStep:
    """Training steps on filled batches, recorded at the first of them.

    They do what steps kernel by kernel do, within rounding. What was recorded stays: autocast, dropout, which weights
    are trained, and where weights and the optimizer's state lie.

    Args:
        learner: whose weights are trained; it is told the loss and the labels of each step.
        optimizer: AdamW, on a GPU a fused one.
        clip: norm that gradients are clipped to; None or 0 for none.
        devices: how many train together. Their gradients are added up between two graphs.
    """

    def __init__(self, learner: Learning, optimizer: torch.optim.Optimizer, clip: float | None, devices: int) -> None:
        self.learner, self.optimizer, self.clip, self.devices = learner, optimizer, clip, devices
        self.weights = [weight for weight in learner.weights if weight.requires_grad]
        device = self.weights[0].device
        self.lr, self.closing, self.loss = (torch.zeros((), dtype=torch.float, device=device) for _ in range(3))
        self.sums = torch.empty(0)
        self._picked: Picked | None = None
        self._rows = torch.empty(0)
        self._graphs: list[Any] = []

    def __call__(self, picked: Picked, examples: int, lr: float, closing: float) -> Tensor:
        """Make a step.

        Args:
            picked: a filled batch.
            examples: how many of its graphs are learnt from, the first ones; batch norms see all.
            lr: learning rate.
            closing: how much the biases of sources are lowered.

        Returns:
            The mean loss of the batch, []; overwritten by the next step.

        Raises:
            ShapeError: filled batches of another size than the first one's.
        """
        if picked.rows.shape != self._rows.shape:
            raise ShapeError("a filled batch of another size than the first: each with_filler() needs steps of its own")
        self._tell(picked, examples, lr, closing)
        self._run(self._graphs)
        return self.loss

    @property
    def recorded(self) -> bool:
        """Whether there is something to start."""
        return bool(self._graphs)

    def record(self, picked: Picked, examples: int, lr: float, closing: float) -> str | None:
        """Record the step, and try it on this batch beside the same step kernel by kernel; arguments as for a call.
        Weights, optimizer, statistics and random numbers are left as they were.

        Returns:
            None, or what is wrong with the graph, which then must not be used.
        """
        self._picked, device = picked, self.loss.device
        self._rows = torch.empty(picked.rows.shape, dtype=torch.long, device=device)
        seeds = [device] if device.type == "cuda" else []
        before = self._state()
        self._forget_gradients()
        self._tell(picked, examples, lr, closing)
        parts = [self._passes, self._update] if self.devices > 1 else [self._all]
        try:
            with torch.random.fork_rng(seeds):
                self._run(parts, alone=True)
            want = self._outcome()
            with torch.random.fork_rng(seeds):
                graphs = captured.recorded(parts, device)
            self._restore(before)
            with torch.random.fork_rng(seeds):
                self._run(graphs, alone=True)
            wrong = self._wrong(self._outcome(), want, [before[id(weight)][1] for weight in self.weights])
        except NotRecorded as error:
            return str(error)
        finally:
            self._restore(before)
            self._forget_gradients()
        self._graphs = [] if wrong else graphs
        return wrong

    # ------------------------------------------------------------------ what is recorded

    def _all(self) -> None:
        self._passes()
        self._update()

    def _passes(self) -> None:
        """From what was told to gradients; of several devices to this one's part of the sums."""
        assert self._picked is not None
        learner, kind = self.learner, self.loss.device.type
        batch = self._picked.of(self._rows)
        with torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False):
            output = of_filled(learner.model, batch)
            there = torch.arange(len(output), device=output.device) < self._rows[-1, 1]
            target = learner.task.without(batch.y[: len(output)], there)
            loss, labels = learner.loss(output, target), learner.task.count(target)
        with torch.autocast(kind, enabled=False):
            loss.backward()
        self.loss.copy_(loss.detach())
        learner.note(loss, labels)
        if self.devices > 1:
            sums = weighed(self.weights, labels)
            if self.sums.shape != sums.shape:
                self.sums = torch.empty_like(sums)
            self.sums.copy_(sums)

    def _update(self) -> None:
        """From gradients, or their sums over devices, to weights."""
        if self.devices > 1:
            means(self.sums, self.weights)
        with torch.autocast(self.loss.device.type, enabled=False):
            if self.clip:
                nn.utils.clip_grad_norm_(self.weights, self.clip)
            with self._lr_on_the_device():
                self.optimizer.step()
            self.learner.close_sources(self.closing)
        self._forget_gradients()

    @contextmanager
    def _lr_on_the_device(self) -> Iterator[None]:
        """A number would be recorded as it is; schedule and checkpoints go on with numbers."""
        groups = self.optimizer.param_groups
        recording = self.lr.is_cuda and torch.cuda.is_current_stream_capturing()
        before = [(group["lr"], group["capturable"]) for group in groups]
        for group in groups:
            group["lr"], group["capturable"] = self.lr, recording
        try:
            yield
        finally:
            for group, (lr, capturable) in zip(groups, before, strict=True):
                group["lr"], group["capturable"] = lr, capturable

    # ------------------------------------------------------------------ around it

    def _run(self, parts: Sequence[Any], alone: bool = False) -> None:
        """One after the other; between two, sums are taken over devices, unless this one is ``alone``."""
        parts[0]()
        for part in parts[1:]:
            if not alone:
                torch.distributed.all_reduce(self.sums)
            part()

    def _tell(self, picked: Picked, examples: int, lr: float, closing: float) -> None:
        rows = picked.rows
        if examples != picked.examples:
            rows = rows.copy()
            rows[-1, 1] = examples
        send(rows, self.loss.device, into=self._rows)
        self.lr.fill_(lr)
        self.closing.fill_(closing)

    def _forget_gradients(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def _kept(self) -> list[Tensor]:
        """All that a step leaves something in, but for gradients."""
        state = [value for each in self.optimizer.state.values() for value in each.values()]
        kept = [*self.weights, *self.learner.model.buffers(), self.learner.loss_sum, self.learner.labels]
        return kept + [value for value in state if isinstance(value, Tensor)]

    def _state(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {id(tensor): (tensor, tensor.detach().clone()) for tensor in self._kept()}

    @torch.no_grad()
    def _restore(self, before: dict[int, tuple[Tensor, Tensor]]) -> None:
        for tensor in self._kept():  # what an optimizer adds begins with zeros
            if id(tensor) in before:
                tensor.copy_(before[id(tensor)][1])
            else:
                tensor.zero_()

    def _outcome(self) -> tuple[Tensor, list[Tensor]]:
        return self.loss.clone(), [weight.detach().clone() for weight in self.weights]

    @staticmethod
    def _wrong(got: tuple[Tensor, list[Tensor]], want: tuple[Tensor, list[Tensor]], before: list[Tensor]) -> str | None:
        if not torch.allclose(got[0], want[0], rtol=LOSS_OFF, atol=LOSS_OFF**2, equal_nan=True):
            return f"its loss is {float(got[0]):.6g}, not {float(want[0]):.6g}"
        moved, off = (
            torch.stack([(one - two).double().norm() for one, two in zip(some, other, strict=True)]).norm()
            for some, other in ((want[1], before), (got[1], want[1]))
        )
        if off > STEP_OFF * moved:
            return f"weights move by {float(moved):.3g}, and end {float(off):.3g} from where they should"
        return None
