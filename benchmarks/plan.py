"""The runs that a config file asks for, and which of them are stored already."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import records

from plstm_graph.config.architectures import FINGERPRINT, architecture
from plstm_graph.config.models import RENAMED
from plstm_graph.errors import ConfigError, unknown
from plstm_graph.train.config import TrainConfig, config_hash, from_dict, to_dict
from plstm_graph.train.defaults import default_config
from plstm_graph.train.shared import READ_FROM

# What a forest reads of a config; the rest is for networks.
FOREST_READS = (
    "data",
    "targets",
    "smiles_column",
    "task",
    "metric",
    "split",
    "split_seed",
    "seed",
    "fold",
    "class_weights",
)
FOREST_MODEL = (
    "model",
    "trees",
    "radius",
    "bits",
    "counts",
    "fingerprint",
    "max_features",
    "min_samples_leaf",
    "entropy",
)


@dataclass(frozen=True)
class Job:
    """One run: an entry with one seed and one fold. ``config.root`` is where data lie: no part of its key."""

    entry: str
    config: TrainConfig
    data_hash: str | None = None  # of the rows that are stored, where they tell

    @property
    def source(self) -> tuple[str, ...]:
        """Names its data; all runs of one source must have read the same."""
        whole = to_dict(self.config)
        return tuple(str(whole.get(name)) for name in READ_FROM if name != "root")

    @property
    def key(self) -> str:
        """Names the run by every choice that can change its result."""
        return config_hash(from_dict(self.content()))

    def content(self) -> dict[str, Any]:
        """The config as it is stored."""
        whole = to_dict(replace(self.config, root=None, out=None))
        if not architecture(self.config.model.model).fitted:
            return whole
        return {name: whole[name] for name in FOREST_READS if name in whole} | {"model": whole["model"]}


class Plan(NamedTuple):
    """A config file: its name, what it is about, its runs in order, numbers of others for entries, and its sets."""

    name: str
    title: str
    jobs: list[Job]
    published: Mapping[str, list[str]] = MappingProxyType({})
    sets: tuple[str, ...] = ()

    @property
    def entries(self) -> list[str]:
        return list(dict.fromkeys(job.entry for job in self.jobs))


def read_plan(path: Path, root: str | None = None) -> Plan:
    """Runs of a config file.

    ``[data]`` has ``name``, ``split``, ``seeds`` and ``folds``; ``[train]`` settings of all entries, else those usual
    for the data; each ``[[entry]]`` a ``name`` and what it changes (``model.local = "none"``, ``lr = 3e-4``);
    ``[published]`` what others found, by entry. With ``[[set]]`` tables, each a ``name`` and what it changes
    (``data = "esol.pt"``), every entry is run on each of them, or on those of its own ``sets``, and is called
    ``set: entry``. Prepared data may lie in the folder of ``root``.

    Raises:
        ConfigError: not TOML, an unknown setting, two entries of one name.
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
    where = {"root": root} if root else {}

    def base(changes: dict[str, Any]) -> TrainConfig:
        name = str(changes.get("data", data["data"]))
        models = [some.get("model", {}).get("model") for some in (changes, content.get("train", {}))]
        usual = default_config(name, next(filter(None, models), None))
        return from_dict(content.get("train", {}), from_dict({**data, **where, "data": name}, usual))

    sets = content.get("set", [])
    entries = [pair for entry in entries for pair in _on_each(entry, sets)]
    places = {f"{each['name']}: ": place for place, each in enumerate(sets)}  # set by set, as tables are read
    entries.sort(key=lambda pair: next((place for start, place in places.items() if pair[0].startswith(start)), 0))
    jobs = [
        Job(name, replace(chosen, seed=seed, fold=fold))
        for name, changes in entries
        for chosen in [from_dict(changes, base(changes))]
        for seed in seeds
        for fold in folds
    ]
    plan = Plan(
        path.stem,
        content.get("title", path.stem),
        jobs,
        content.get("published", {}),
        tuple(each["name"] for each in sets),
    )
    if len(plan.entries) < len(entries):
        raise ConfigError(f"{path.name}: every entry needs a name of its own (got {', '.join(plan.entries)})")
    return plan


def _on_each(entry: dict[str, Any], sets: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and changes of an entry on each set."""
    own = {key: value for key, value in entry.items() if key not in ("name", "sets")}
    name = str(entry.get("name", "unnamed"))
    if not sets:
        yield name, own
    names = [each["name"] for each in sets]
    for chosen in entry.get("sets", names):
        if chosen not in names:
            raise ConfigError(unknown("set", chosen, names))
        changes = next(each for each in sets if each["name"] == chosen)
        yield f"{chosen}: {name}", {key: value for key, value in changes.items() if key != "name"} | own


def stored_key(row: dict[str, Any]) -> str | None:
    """Key of a stored run under the defaults of today: a setting that is newer than the row counts as its default."""
    content = dict(row["config"])
    if row.get("kind") == "fingerprint-forest":  # rows from before a forest was a model
        content["model"] = {"model": FINGERPRINT} | {n: content.pop(n) for n in FOREST_MODEL if n in content}
    model = {RENAMED.get(name, name): value for name, value in content.get("model", {}).items()}
    if model.get("model") != FINGERPRINT:  # rows from before forests had a config of their own
        model = {name: value for name, value in model.items() if name not in FOREST_MODEL[1:]}
    content["model"] = model
    if not content.get("capture"):  # rows from before it was left open; the numbers are the same
        content.pop("capture", None)
    try:
        return Job(row["entry"], from_dict(content)).key
    except ConfigError:  # a setting that is no more
        return None


def stored(plan: Plan, path: Path) -> dict[str, dict[str, Any]]:
    """Rows of the runs of ``plan`` that are done, by key; of two for one run the later."""
    wanted = {job.key for job in plan.jobs}
    return {key: row for row in records.read(path) if (key := stored_key(row)) in wanted and key is not None}
