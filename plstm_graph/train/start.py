"""What a run began with, kept in its folder: a run only goes on with the data and the split of its start."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plstm_graph.data.dataset import AnyDataset
from plstm_graph.errors import ConfigError
from plstm_graph.io.files import write_text
from plstm_graph.io.json_csv import read_json
from plstm_graph.train.results import START


@dataclass(frozen=True)
class Start:
    """Identity of a run besides its options.

    Args:
        data_hash: of all graphs, see :func:`plstm_graph.data.examples.digests_of`.
        graphs: how many there are.
        split: their numbers in train, valid and test.
        command: makes the run from nothing; None where a caller gave none.
        content: the hash without SMILES, as checkpoints keep it.
    """

    data_hash: str
    graphs: int
    split: dict[str, list[int]]
    command: str | None = None
    content: str = ""

    @classmethod
    def of(cls, dataset: AnyDataset, split: dict[str, list[int]], command: str | None) -> "Start":
        digests = dataset.digests
        return cls(digests.whole, len(dataset.examples), split, command, digests.content)

    def write(self, out: Path) -> None:
        """Store it in the folder of the run."""
        write_text(out / START, json.dumps(asdict(self)) + "\n")

    def check(self, out: str | Path) -> "Start":
        """The start that is stored in ``out``.

        Raises:
            ConfigError: it had other data or another split, or the folder does not tell.
        """
        stored = _read(Path(out) / START)
        changed = changes(stored.data_hash, self.data_hash, stored.graphs, self.graphs)
        if not changed and stored.split != self.split:
            moved = sum(len({*part} - {*self.split.get(name, ())}) for name, part in stored.split.items())
            changed = f"{moved} of {self.graphs} graphs are in another part of the split"
        if changed:
            raise ConfigError(
                f"the run in {out} began with other data: {changed}; bring those back, or give --overwrite or another "
                "--out"
            )
        return stored


def changes(old: str, new: str, old_count: int | None, count: int) -> str:
    """How data differ from what they were, in words; empty where they do not."""
    if old == new:
        return ""
    known = old_count is not None and old_count != count
    what = f"{count} graphs, not {old_count}" if known else f"{count} graphs with other content"
    return f"{what} (data_hash {new}, not {old})"


def _read(path: Path) -> Start:
    try:
        stored: dict[str, Any] = read_json(path)
        return Start(**stored)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} does not tell with which data the run began (it is missing or damaged, or the run is of an "
            "earlier version); give --overwrite or another --out"
        ) from error
