"""A search for options: trials of one training each, judged on validation, chosen by Optuna and stored by it."""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace

from plstm_graph.errors import ConfigError, rounded
from plstm_graph.io.json_csv import write_lines
from plstm_graph.train import shared
from plstm_graph.train.config import TrainConfig, anywhere, override
from plstm_graph.train.display import Display, failed_because
from plstm_graph.train.folders import TRIALS
from plstm_graph.train.owner import owned
from plstm_graph.train.pool import Failure, Row, outcomes, terminable, unseen
from plstm_graph.train.progress import shown
from plstm_graph.train.searching.plan import Plan, begun, resumed
from plstm_graph.train.searching.space import Range, Space, default_space, read_space
from plstm_graph.train.searching.study import best_row, optuna, rows_of, study_of, try_again, words
from plstm_graph.train.searching.trial import Job, run_trial

__all__ = ["Range", "Space", "default_space", "read_space", "search"]


def search(
    config: TrainConfig,
    trials: int | None = None,
    *,
    space: Space | None = None,
    fixed: Collection[str] = (),
    series: Mapping[str, Sequence[int]] | None = None,
    jobs: int = 1,
    minutes: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> TrainConfig:
    """Tries options in ``trials`` trainings and returns ``config`` with those of the best validation score.

    The first trial is ``config`` itself where the space holds it. A trial whose score falls behind the median of the
    others at the same epoch is stopped. The test part is never read. ``config.out/search`` holds Optuna's storage and
    ``trials.jsonl``, a row a trial; then ``train(best, overwrite=True)`` trains what was found in the same folder.
    One trial at a time, they are the same however often the search is interrupted.

    Args:
        config: with ``out``; its seed is that of all trials.
        trials: how many, with those that a search in the folder has; when resuming, its own number if not given.
        space: what is searched; :func:`default_space` when not given.
        fixed: options that the default space leaves as they are.
        series: ``seeds`` and ``folds`` with which the best is to be trained, stored for the one who resumes.
        jobs: trials at a time.
        minutes: no trial starts after so many from now, and all but a first complete one stop; the search is then one
            of as many trials as it had.
        resume: go on with the search in the folder.
        overwrite: replace the search, and the run, in the folder.
        progress: say on stderr how trials end.

    Raises:
        ConfigError: options that do not suit; a folder that cannot be used; no trial came to its end.
        DataError: the data cannot be read.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; what was tried is stored.
    """
    optuna()
    if config.out is None:
        raise ConfigError("a search needs an output folder; set out")
    if resume and overwrite:
        raise ConfigError("--resume goes on with a search and --overwrite replaces it: give one of them")
    if trials is None and not resume:
        raise ConfigError("a search needs a number of trials")
    if (trials is not None and trials < 1) or jobs < 1 or (minutes is not None and not minutes > 0):
        raise ConfigError(f"trials, jobs and minutes must be above 0 (got {trials}, {jobs} and {minutes})")
    if config.devices not in ("auto", "1") or config.num_nodes > 1:
        raise ConfigError("the trials of a search have one device each; leave --devices and --num-nodes out")
    config, until = anywhere(config), time.time() + 60 * (minutes or float("inf"))
    shared.forget()  # the files of an earlier search may have changed
    with owned(str(config.out)):
        if not resume:
            with shown(progress):
                begun(config, trials or 0, space, fixed, series or {}, overwrite=overwrite)
        return _search(resumed(config, trials), jobs, until, progress)


def _search(plan: Plan, jobs: int, until: float, progress: bool) -> TrainConfig:
    """A search whose folder belongs to this process."""
    study = study_of(plan)
    try_again(study)
    rows = rows_of(study)
    done = {row["trial"] for row in rows}
    todo = [Job(plan, number, until) for number in range(plan.trials) if number not in done]
    if jobs > 1:
        shared.forget()  # the trials have processes of their own
    display = Display(plan.trials, len(rows), "trials") if progress else None
    ended = outcomes(todo, run_trial, workers=jobs, watch=display.watch if display else unseen)
    with terminable(), display or nullcontext(), closing(ended):
        for job, row in ended:
            rows = rows_of(study)
            write_lines(plan.folder / TRIALS, rows)
            if display and row:
                display.end(job, _ending(row, rows))
    if len(rows) < plan.trials and time.time() > until:
        replace(plan, trials=len(rows)).write()
    best = best_row(rows)
    if best is None:
        reasons = [row["reason"] for row in rows if row.get("reason")]
        why = reasons[0] if reasons else "all were stopped"
        raise ConfigError(f"none of {len(rows)} trials came to its end: {why}; see {plan.folder / TRIALS}")
    return override(plan.config, best["values"])


def _ending(row: Row | Failure, rows: list[Row]) -> str:
    """How a trial ended."""
    if isinstance(row, Failure):
        return failed_because(row)
    if row["state"] == "failed":
        return f"failed: {row['reason']} ({words(row['values'])})"
    stopped = f" stopped after epoch {row['epochs']}" if row["state"] == "pruned" else ""
    best = best_row(rows)
    so_far = f"; best {rounded(best['valid'])} of trial {best['trial']}" if best else ""
    score = f"{row['metric']} valid {rounded(row['valid'])}"
    return f"{score}{stopped} ({row['seconds']:.0f} s){so_far}; {words(row['values'])}"
