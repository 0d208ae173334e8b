"""Optuna's part of a search: what to try next, what to give up, and the storage of both."""

from collections.abc import Mapping
from typing import Any

from plstm_graph.errors import ConfigError, missing_extra
from plstm_graph.tasks import METRICS
from plstm_graph.train import shared
from plstm_graph.train.assembly import asked
from plstm_graph.train.config import flat
from plstm_graph.train.data import mixed_seed
from plstm_graph.train.pool import Row
from plstm_graph.train.searching.plan import STORAGE, Plan
from plstm_graph.train.searching.space import Space, holds

STARTUP = 8
"""Trials that are drawn at random before the sampler learns from them."""
UNPRUNED, WARMUP = 4, 0.2
"""Trials before the first that may be stopped early, and the share of a trial's epochs in which none is."""
LOCKED_S = 60.0
"""So long a process waits while another one writes to the storage."""
ROW = "row"
"""Attribute of a trial that has come to its end."""


def optuna() -> Any:
    """The package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna as package
    except ModuleNotFoundError as error:
        raise ConfigError(missing_extra("optuna", "search")) from error
    package.logging.set_verbosity(package.logging.ERROR)
    return package


def study_of(plan: Plan, number: int = 0) -> Any:
    """The study in the folder of a search, made where it is not there yet, with a sampler for one trial.

    The sampler begins with the seed of the search and the number of the trial, so that what it draws depends on what
    is stored and on nothing else.
    """
    package, config = optuna(), plan.config
    higher = asked(config, shared.dataset(config)).rule.higher_is_better
    place = f"sqlite:///{plan.folder / STORAGE}"
    found = package.create_study(
        storage=package.storages.RDBStorage(place, engine_kwargs={"connect_args": {"timeout": LOCKED_S}}),
        study_name="plstm-graph",
        direction="maximize" if higher else "minimize",
        load_if_exists=True,
        sampler=package.samplers.TPESampler(n_startup_trials=STARTUP, seed=mixed_seed(config.seed, number) % 2**32),
        pruner=package.pruners.MedianPruner(
            n_startup_trials=UNPRUNED, n_warmup_steps=max(1, int(WARMUP * config.epochs))
        ),
    )
    if not found.get_trials(deepcopy=False):  # first the options as they are, as far as the space holds them
        given = flat(config)
        own = {name: given[name] for name, choice in plan.space.items() if name in given and holds(choice, given[name])}
        found.enqueue_trial(own)
    return found


def distributions(space: Space) -> dict[str, Any]:
    """A space as Optuna has it."""
    kinds = optuna().distributions
    found = {}
    for name, choice in space.items():
        if isinstance(choice, tuple):
            found[name] = kinds.CategoricalDistribution(choice)
        elif choice.whole:
            found[name] = kinds.IntDistribution(choice.low, choice.high, log=choice.log, step=choice.step or 1)
        else:
            found[name] = kinds.FloatDistribution(choice.low, choice.high, log=choice.log, step=choice.step)
    return found


def try_again(study: Any) -> None:
    """Trials that were under way when the search stopped are tried anew, with the same options."""
    states = optuna().trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)
        if ROW not in trial.user_attrs:
            study.enqueue_trial(trial.params)


def tell(study: Any, trial: Any, row: Row) -> None:
    """Stores a trial that has come to its end: its row first, so that one that is told of has one."""
    states = optuna().trial.TrialState
    state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[row["state"]]
    trial.set_user_attr(ROW, row)
    study.tell(trial, row["valid"] if row["state"] == "complete" else None, state=state)


def rows_of(study: Any) -> list[Row]:
    """Of the trials that have come to their end, by number."""
    found = (trial.user_attrs.get(ROW) for trial in study.get_trials(deepcopy=False))
    return sorted(filter(None, found), key=lambda row: row["trial"])


def words(values: Mapping[str, Any]) -> str:
    """Options of a trial as a reader knows them, numbers with three digits."""
    texts = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return ", ".join(f"{name.removeprefix('model.')} {text}" for name, text in texts.items())


def best_row(rows: list[Row]) -> Row | None:
    """Of the complete trials the one with the best validation score, the first of equals; None where there is none."""
    known = [row for row in rows if row["state"] == "complete"]
    if not known:
        return None
    pick = max if METRICS[known[0]["metric"]].higher_is_better else min
    return pick(known, key=lambda row: row["valid"])
