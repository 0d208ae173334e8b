"""Where the time of a run goes: Lightning's profiler, and its many actions as the few phases that a reader knows."""

import math
import time
from pathlib import Path

import torch
from pytorch_lightning.profilers import SimpleProfiler

from plstm_graph.io.files import write_text
from plstm_graph.train.results import PROFILE

STARTING, READING, FEATURISING, MAKING = "starting", "reading", "featurising", "making"
WAKING, TRYING, SCORING = "waking", "trying", "scoring"
"""Actions of a run that are none of Lightning's."""


class Phases(SimpleProfiler):
    """Lightning's timer of actions. It waits for a GPU at their ends: what was asked for there counts there.

    Args:
        age: seconds that this process took to come here, see :func:`plstm_graph.io.started.process_age`; they count.
    """

    def __init__(self, age: float = 0.0) -> None:
        super().__init__()
        self.start_time -= age
        self.recorded_durations[STARTING] = [age]

    def start(self, action_name: str) -> None:
        _wait()
        super().start(action_name)

    def stop(self, action_name: str) -> None:
        _wait()
        super().stop(action_name)

    def seconds(self) -> dict[str, float]:
        """By phase, in order; ``rest`` is what is in none of them: Lightning's loops, the folder."""
        steps, forward, backward = (self._of(name) for name in (".optimizer_step", ".training_step", ".backward"))
        saving = self._of("save_checkpoint")
        # The keeper saves within its own call; what callbacks do after a validation epoch counts as validation.
        callbacks = math.fsum(
            math.fsum(each)
            for name, each in self.recorded_durations.items()
            if name.startswith("[Callback]") and not name.endswith(".on_validation_epoch_end")
        )
        found = {
            "start: interpreter, imports": self._of(STARTING),
            "data: reading, molecules": self._of(READING),
            "featurising: encodings, packing": self._of(FEATURISING),
            "network, trainer": self._of(MAKING),
            "the device": self._of(WAKING),
            "the first pass": self._of(TRYING),
            "waiting for batches": self._of(".train_dataloader_next")
            + self._of(".val_next")
            + self._of(".batch_to_device"),
            "forward, or a whole step": forward,
            "backward": backward,
            "optimiser, clipping": max(0.0, steps - forward - backward),
            "validation": self._of(".validation_step") + self._of(".on_validation_epoch_end"),
            "checkpoints": saving,
            "loggers, other callbacks": max(0.0, callbacks - saving),
            "scoring, pictures": self._of(SCORING),
        }
        return found | {"rest": max(0.0, self.total - sum(found.values()))}

    @property
    def total(self) -> float:
        """Seconds since the run began, or the process where its age was told."""
        return time.perf_counter() - self.start_time

    def table(self) -> str:
        """The phases, a line each, with their share."""
        total = self.total
        rows = [*self.seconds().items(), ("all", total)]
        lines = [f"{name:32}{seconds:10.2f} s{100 * seconds / total:7.1f} %" for name, seconds in rows]
        return "\n".join(["where the time went:", *lines])

    def write(self, out: Path) -> None:
        """The phases, and below them every action of Lightning, into the folder of a run."""
        write_text(out / PROFILE, f"{self.table()}\n\n{self.summary().strip()}\n")

    def _of(self, ending: str) -> float:
        return math.fsum(math.fsum(each) for name, each in self.recorded_durations.items() if name.endswith(ending))


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
