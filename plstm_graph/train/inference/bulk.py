"""Predictions for many molecules: part by part, so that memory stays bounded, and in several processes.

Heavy imports wait in the functions: a process that helps begins here."""

import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.context import SpawnContext, SpawnProcess
from os import PathLike
from typing import TYPE_CHECKING, Any

from plstm_graph.errors import OutOfMemory, PLSTMGraphError
from plstm_graph.io.lazy import LOOPS, is_put_off, quick_start
from plstm_graph.io.waiting import tracked, watched

if TYPE_CHECKING:
    from plstm_graph.data.descriptors import Lookup
    from plstm_graph.train.inference.molecules import Predictions

PART = 4096
"""Molecules that are graphs at a time, in a process."""

MANY = 10_000
"""Molecules that are worth the start of further processes."""

FEW = 256
"""Molecules up to which one thread and torch's own operations are done before compiled loops have been loaded. Where
they are loaded already, as in a notebook, they are used: numbers are those of an estimator to the last bit."""

Part = tuple["Predictions", dict[str, list[str]]]
"""Answers, and the molecules that files of descriptors lack."""

_answer: "Callable[[Sequence[str]], Part]"  # of a worker


def predict(
    checkpoint: str | PathLike[str],
    smiles: Sequence[str],
    *,
    batch_size: int = 256,
    device: str = "auto",
    descriptors: Sequence[str] = (),
    jobs: int = 1,
) -> "Predictions":
    """Predictions for molecules; a text that is none gets NaN and a reason, and the rest goes on.

    Args:
        checkpoint: file, or folder of a run.
        smiles: the molecules.
        batch_size: of them at once.
        device: "auto", "cpu", "cuda", ...
        descriptors: in place of those of the training, for instance another file with columns of the same names.
        jobs: processes that read and answer side by side, each with the model and one thread; worth their start from
            some ten thousand molecules on. A script that asks for several has to be importable: what it does stands
            below ``if __name__ == "__main__":``.

    Raises:
        CheckpointError: the file cannot be used, or its model was not trained on molecules.
        OutOfMemory: a batch does not fit, or one of several processes has died.
    """
    from plstm_graph.train.inference.molecules import answers
    from plstm_graph.train.inference.restored import restore_for_molecules, without_loops

    parts = [smiles[start : start + PART] for start in range(0, len(smiles), PART)] or [smiles]
    what = f"predicting for {len(smiles):,} molecules"
    if len(parts) == 1:
        learner, meta = restore_for_molecules(checkpoint, device)
        if len(smiles) <= FEW and is_put_off(LOOPS):
            without_loops(learner)
        return answers(learner, meta, smiles, batch_size=batch_size, descriptors=descriptors)
    look = _looked_up(checkpoint, smiles, descriptors)
    how: dict[str, Any] = {"batch_size": batch_size, "descriptors": look or ()}
    if jobs < 2:
        learner, meta = restore_for_molecules(checkpoint, device)
        each = (_part(partial(answers, learner, meta, **how), look, part) for part in tracked(parts, what))
        return _joined(each, smiles, look)
    context = _Own()
    with ProcessPoolExecutor(min(jobs, len(parts)), context, _begin, (checkpoint, device, how)) as pool:
        try:
            found = pool.map(_work, parts)
            return _joined((next(found) for _ in tracked(parts, what)), smiles, look)
        except BaseException as error:
            for child in context.children:
                if child.is_alive():
                    child.terminate()  # what it is at is of no use any more
            if not isinstance(error, BrokenProcessPool):
                raise
            raise OutOfMemory(
                f"one of {jobs} processes that answered has died; if that was for want of memory, give fewer --jobs or "
                "a smaller --batch-size"
            ) from error


class _Own(SpawnContext):
    """Starts processes anew, since threads of torch do not survive a fork, and knows which: other threads have some."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[SpawnProcess] = []

    def Process(self, *given: Any, **how: Any) -> SpawnProcess:  # type: ignore[override]
        self.children.append(child := SpawnProcess(*given, **how))
        return child


def usual_jobs(count: int, device: str) -> int:
    """How many processes are worth their start for so many molecules: one a core of a CPU, one alone beside a GPU."""
    from plstm_graph.train.inference.restored import pick_device
    from plstm_graph.train.machine import cores

    return cores() if count >= MANY and pick_device(device).type == "cpu" else 1


def _looked_up(checkpoint: str | PathLike[str], smiles: Sequence[str], descriptors: Sequence[str]) -> "Lookup | None":
    """What gives the descriptors that a model reads of parts of these molecules, with its files read."""
    from plstm_graph.data.descriptors import Lookup
    from plstm_graph.train.checkpoint import read, read_meta

    meta = read_meta(read(checkpoint), checkpoint)
    kinds = descriptors or meta.train_config.descriptors
    look = Lookup(kinds, features=meta.spec, parted=True) if kinds else None
    if look:
        look.check(smiles)
    return look


def _begin(checkpoint: str | PathLike[str], device: str, how: dict[str, Any]) -> None:
    """A worker's model; Ctrl-C is for the process that started it."""
    global _answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with quick_start():
        import torch

        from plstm_graph.train.inference.molecules import answers
        from plstm_graph.train.inference.restored import restore_for_molecules
    torch.set_num_threads(1)
    try:
        learner, meta = restore_for_molecules(checkpoint, device)
    except PLSTMGraphError as error:  # told where it is asked: what fails here is not
        _answer = partial(_refuse, error)
    else:
        _answer = partial(_part, partial(answers, learner, meta, **how), how["descriptors"])


def _refuse(error: PLSTMGraphError, part: Sequence[str]) -> Part:
    raise error


def _work(part: Sequence[str]) -> Part:
    return _answer(part)


def _part(answer: Callable[[Sequence[str]], "Predictions"], look: "Lookup | None", part: Sequence[str]) -> Part:
    """One bar is for all parts, none for what happens in one."""
    with watched(lambda *_: None):
        return answer(part), look.absent() if look else {}


def _joined(found: Iterable[Part], smiles: Sequence[str], look: "Lookup | None") -> "Predictions":
    import torch

    from plstm_graph.train.inference.molecules import Predictions

    columns, values, rejected, unlike, done = [], [], [], [], 0
    absent: dict[str, list[str]] = {}
    for part, lacking in found:
        absent = {kind: absent.get(kind, []) + texts for kind, texts in lacking.items()}
        columns = part.columns
        values.append(part.values)
        rejected += [row._replace(row=row.row + done) for row in part.rejected]
        unlike += [part.unlike]
        done += len(part.smiles)
    if look:
        look.tell(absent, done - len(rejected))
    marks = [mark for marks in unlike for mark in marks or ()] if unlike[0] is not None else None
    return Predictions(list(smiles), columns, torch.cat(values), rejected, marks)
