"""What a search is, as its folder keeps it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plstm_graph.errors import ConfigError
from plstm_graph.io.files import write_text
from plstm_graph.train import results, shared
from plstm_graph.train.assembly import asked
from plstm_graph.train.config import TrainConfig, differences, to_dict, toml
from plstm_graph.train.folders import SEARCH, SEARCH_CONFIG, TRIALS, stored_search
from plstm_graph.train.searching.space import Space, default_space, from_plain, plain
from plstm_graph.train.start import changes

STORAGE = "optuna.db"


@dataclass(frozen=True)
class Plan:
    """A search: what its trials share.

    Args:
        config: of every trial, but for what is searched.
        space: what is searched.
        trials: how many.
        data_hash: of the data.
        series: ``seeds`` and ``folds`` with which what is found is to be trained; none for a single run.
    """

    config: TrainConfig
    space: Space
    trials: int
    data_hash: str
    series: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where all of it is."""
        return Path(str(self.config.out)) / SEARCH

    def write(self) -> None:
        """Store it, where :func:`~plstm_graph.train.folders.stored_search` reads it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {"trials": self.trials, "data_hash": self.data_hash, "space": plain(self.space), **self.series}
        write_text(self.folder / SEARCH_CONFIG, toml({"search": own, **to_dict(self.config)}))


def begun(
    config: TrainConfig,
    trials: int,
    space: Space | None,
    fixed: Collection[str],
    series: Mapping[str, Sequence[int]],
    *,
    overwrite: bool,
) -> Plan:
    """A new search in its folder.

    Raises:
        ConfigError, DataError: options or data that do not suit, or the folder cannot be used; nothing is written then.
    """
    results.check_folder(config, overwrite=overwrite)
    dataset = shared.dataset(config)
    fixed = {*fixed, *(["model.pooling"] if asked(config, dataset).level == "node" else [])}
    fixed |= set() if dataset.reader else {"model.order"}  # others may be DAGs as they are
    plan = Plan(config, space or default_space(config, fixed), trials, shared.data_hash(config), series)
    for name in (SEARCH_CONFIG, TRIALS, STORAGE, f"{STORAGE}-journal"):  # of an earlier one
        (plan.folder / name).unlink(missing_ok=True)
    plan.write()
    return plan


def resumed(config: TrainConfig, trials: int | None) -> Plan:
    """The search in the folder, with more trials if more are asked for.

    Raises:
        ConfigError: there is none, or it has other options or other data.
    """
    out = Path(str(config.out))
    stored = stored_search(out)
    if stored is None:
        raise ConfigError(f"there is no search to resume in {out}; leave out --resume to start one")
    if differing := differences(config, stored[0]):
        raise ConfigError(
            f"the search in {out} has other options: {'; '.join(differing)}; give the same, or another --out"
        )
    own = stored[1]
    series: dict[str, list[int]] = {name: own[name] for name in ("seeds", "folds") if name in own}
    plan = Plan(config, from_plain(own["space"]), max(trials or 0, own["trials"]), own["data_hash"], series)
    if changed := changes(plan.data_hash, shared.data_hash(config), None, len(shared.dataset(config).examples)):
        raise ConfigError(
            f"the search in {out} is of other data: {changed}; bring those back, or give --overwrite or another --out"
        )
    plan.write()
    return plan
