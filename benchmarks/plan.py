"""The runs that a config file asks for, and which of them are stored already."""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import records
from baselines import KIND as FOREST
from baselines import ForestConfig

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.train.config import TrainConfig, config_hash, from_dict, to_dict

TRAIN = "train"
KINDS = (TRAIN, FOREST)
FOREST_READS = ("data", "targets", "smiles_column", "task", "metric", "split", "split_seed", "seed", "fold")


@dataclass(frozen=True)
class Job:
    """One run: an entry with one seed and one fold. ``config.root`` is where data lie, and no part of its identity."""

    entry: str
    kind: str
    config: TrainConfig
    forest: ForestConfig | None = None

    @property
    def key(self) -> str:
        """Names the run by every choice that can change its result."""
        if self.forest is None:
            return config_hash(replace(self.config, root=None))
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()[:12]

    def content(self) -> dict[str, Any]:
        """The config as it is stored."""
        whole = to_dict(replace(self.config, root=None, out=None))
        if self.forest is None:
            return whole
        return {k: v for k, v in whole.items() if k in FOREST_READS} | asdict(self.forest)


class Plan(NamedTuple):
    """A config file: its name, what it is about, and its runs in order."""

    name: str
    title: str
    jobs: list[Job]

    @property
    def entries(self) -> list[str]:
        return list(dict.fromkeys(job.entry for job in self.jobs))


def read_plan(path: Path, root: str | None = None) -> Plan:
    """Runs of a config file.

    ``[data]`` has ``name``, ``split``, ``seeds`` and ``folds``; ``[train]`` settings of all entries; each ``[[entry]]``
    a ``name``, perhaps a ``kind``, and what it changes (``model.local = "none"``, ``lr = 3e-4``).

    Raises:
        ConfigError: not TOML, an unknown kind or setting, two entries of one name.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        data, entries = dict(content["data"]), content["entry"]
        data["data"] = data.pop("name")
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except KeyError as error:
        raise ConfigError(f"{path.name} needs [data] with a name, and [[entry]] tables; {error} is missing") from error
    seeds, folds = data.pop("seeds", [0]), data.pop("folds", [0])
    base = from_dict(content.get("train", {}), from_dict({**data, **({"root": root} if root else {})}))
    jobs = [
        job
        for entry in entries
        for seed in seeds
        for fold in folds
        for job in [_job(dict(entry), replace(base, seed=seed, fold=fold))]
    ]
    plan = Plan(path.stem, content.get("title", path.stem), jobs)
    if len(plan.entries) < len(entries):
        raise ConfigError(f"{path.name}: every entry needs a name of its own (got {', '.join(plan.entries)})")
    return plan


def _job(entry: dict[str, Any], base: TrainConfig) -> Job:
    name, kind = str(entry.pop("name", "unnamed")), entry.pop("kind", TRAIN)
    if kind not in KINDS:
        raise ConfigError(unknown("kind", kind, KINDS))
    if kind == TRAIN:
        return Job(name, kind, from_dict(entry, base))
    known = {item.name for item in fields(ForestConfig)}
    if set(entry) - known:
        raise ConfigError(unknown("forest setting", min(set(entry) - known), sorted(known)))
    return Job(name, kind, base, ForestConfig(**entry))


def stored_key(row: dict[str, Any]) -> str | None:
    """Key of a stored run under the defaults of today: a setting that is newer than the row counts as its default."""
    content = dict(row["config"])
    try:
        if row["kind"] == TRAIN:
            return Job(row["entry"], TRAIN, from_dict(content)).key
        settings = {item.name: content.pop(item.name) for item in fields(ForestConfig) if item.name in content}
        return Job(row["entry"], FOREST, from_dict(content), ForestConfig(**settings)).key
    except ConfigError:  # a setting that is no more
        return None


def stored(plan: Plan, path: Path) -> dict[str, dict[str, Any]]:
    """Rows of the runs of ``plan`` that are done, by key; of two for one run the later."""
    wanted = {job.key for job in plan.jobs}
    return {key: row for row in records.read(path) if (key := stored_key(row)) in wanted and key is not None}
