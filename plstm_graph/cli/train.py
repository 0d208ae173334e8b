"""The command ``train``."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from plstm_graph.cli.options import CHOICES, WithDefaults, command_of, with_choices
from plstm_graph.cli.program import FAILED, INTERRUPTED, command
from plstm_graph.cli.shared import Debug, option
from plstm_graph.config.names import called, check_data_set, check_options
from plstm_graph.errors import ConfigError, TimeUp, count, rounded
from plstm_graph.io.lazy import UNUSED_IN_TRAINING, quick_start

RANKS = {"RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"}
"""What tells a process that it is one of several that train together."""


@command(cls=WithDefaults)
@with_choices
def train(
    *,
    config: Annotated[Path | None, option("--config", "TOML file with any of these options.")] = None,
    out: Annotated[str | None, option("--out", "Folder for results (default: runs/<name of the data>).")] = None,
    resume: Annotated[bool, option("--resume", "Continue the run in --out after an interruption.")] = False,
    overwrite: Annotated[bool, option("--overwrite", "Replace the run in --out.")] = False,
    seeds: Annotated[str | None, option("--seeds", "A series of runs, one per seed: 0-9 or 0,2,5.")] = None,
    folds: Annotated[str | None, option("--folds", "A series of runs, one per fold (and seed).")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs of a series, or trials of a search, at a time.")] = 1,
    search: Annotated[
        int | None, option("--search", "Try so many settings first, judged on validation, and train the best of them.")
    ] = None,
    search_space: Annotated[Path | None, option("--search-space", "TOML file with another search space.")] = None,
    settings: Annotated[
        list[str] | None, option("--set", "Any other option, as --set model.head_layers=3; repeatable.")
    ] = None,
    minutes: Annotated[
        float | None,
        option(
            "--minutes",
            "Stop after so many minutes, to --resume later (exit code 130); with --search: stop searching and train.",
        ),
    ] = None,
    logger: Annotated[str | None, option("--logger", "Also log to tensorboard, wandb or mlflow.")] = None,
    profile: Annotated[bool, option("--profile", "Print where the time went, and write it to profile.txt.")] = False,
    quiet: Annotated[bool, option("--quiet", "No progress bar and no summary.")] = False,
    debug: Debug = False,
    **given: Any,
) -> None:
    """Train a model; without options, on nav17: 1,017 molecules that ship with RDKit."""
    from plstm_graph.train.config import flat
    from plstm_graph.train.folders import stored_search
    from plstm_graph.train.forking import start_server
    from plstm_graph.train.owner import check_free
    from plstm_graph.train.results import check_folder

    values = {choice.field or choice.name: given[choice.name] for choice in CHOICES if given[choice.name] is not None}
    values |= _pairs(settings or [], values)
    if {"budget", "model.width"} <= values.keys():
        raise ConfigError("--budget sets the width, and --width is given as well: give one of them")
    chosen, series = _config(config, values, out, resume, seeds, folds)
    searched = search is not None or (resume and stored_search(str(chosen.out)) is not None)
    if jobs > 1 and not (series or searched):
        raise ConfigError("--jobs is for runs of a series (--seeds, --folds) or trials of a --search; leave it out")
    if search_space is not None and (search is None or resume):
        raise ConfigError("--search-space is for a new search, with its --search; one that goes on keeps its space")
    check_options(flat(chosen))
    check_data_set(chosen.data, chosen.root)
    if not RANKS & os.environ.keys():  # other processes find the folder filled by the first
        check_free(str(chosen.out))
        if not (series or (searched and resume)):
            check_folder(chosen, resume=resume, overwrite=overwrite)

    if jobs > 1 and (series or searched):
        start_server()
    with quick_start(UNUSED_IN_TRAINING):
        from plstm_graph.train import train as run
        from plstm_graph.train import train_series
        from plstm_graph.train.trainer import first_process

    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "progress": not quiet}
    if minutes is not None and not searched:
        if series:
            raise ConfigError("--minutes is for a single run; a series is stopped by Ctrl-C and goes on with --resume")
        how["minutes"] = minutes
    try:
        if searched:
            find = how | {"jobs": jobs, "minutes": minutes}
            chosen = _search(chosen, search, search_space, {*values, *_named(config)}, series, find)
            how["resume"] = _is_trained(chosen, series)
            how["overwrite"] = not how["resume"]
        how["command"] = command_of(chosen, _members(chosen, series, how["overwrite"]))
        if logger is not None:
            how["callbacks"] = [_logged(logger, chosen, series)]
        if profile:
            how["profiler"] = phases = _phases(series)
        found = train_series(chosen, jobs=jobs, **series, **how) if series else run(chosen, **how)
    except (KeyboardInterrupt, TimeUp) as stop:
        if first_process():
            typer.echo(f"{str(stop) or 'interrupted'}; {_advice(str(chosen.out))}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not quiet and first_process():
        if searched:
            _search_summary(str(chosen.out))
        _series_summary(found, str(chosen.out)) if series else _summary(found, str(chosen.out))
    if profile and first_process():
        phases.write(Path(str(chosen.out)))
        typer.echo(phases.table())
    if series and found["failed"]:
        raise typer.Exit(FAILED)


def _search(
    config: Any, trials: int | None, space: Path | None, given: set[str], series: Mapping[str, Any], how: dict[str, Any]
) -> Any:
    """The config with the options that a search finds best."""
    from plstm_graph.train.searching import read_space, search

    if RANKS & os.environ.keys():
        raise ConfigError("--search runs in one process, which has its trials side by side with --jobs")
    asked = read_space(space, config) if space is not None else None
    return search(config, trials, space=asked, fixed=given, series=series, **how)


def _is_trained(config: Any, series: Mapping[str, Any]) -> bool:
    """Whether what a search found best is in its folder, begun or finished."""
    from plstm_graph.train.config import differences
    from plstm_graph.train.folders import stored_series
    from plstm_graph.train.results import CONFIG, stored_config

    if series:
        stored = stored_series(config.out)
        return stored is not None and not differences(config, stored[0])
    return (Path(config.out) / CONFIG).is_file() and not differences(config, stored_config(config.out))


def _named(path: Path | None) -> set[str]:
    """Options of a config file by flat name."""
    from plstm_graph.train.config import read_toml

    content = read_toml(path) if path else {}
    return {*content, *(f"model.{name}" for name in content.get("model", {}))}


def _phases(series: Mapping[str, Any]) -> Any:
    """What times the phases of a run."""
    from plstm_graph.io.started import process_age
    from plstm_graph.train.profiling import Phases

    if series:
        raise ConfigError("--profile is for one run; a series is as fast as its runs")
    return Phases(process_age())


def _logged(logger: str, config: Any, series: Mapping[str, Any]) -> Any:
    """The callback that sends epochs to a logger."""
    from plstm_graph.train.loggers import Logged

    if series:
        raise ConfigError("--logger is for one run; a series has its table, and report compares its runs")
    return Logged(logger, config)


def _members(config: Any, asked: dict[str, Any], overwrite: bool) -> dict[str, list[int]]:
    """Seeds and folds that make up a series: those asked for, and those in its folder that they join."""
    from plstm_graph.train.folders import stored_series

    stored = stored_series(config.out) if asked and not overwrite else None
    if stored is None:
        return asked
    given = {"seeds": [config.seed], "folds": [config.fold]} | asked
    return {name: list(dict.fromkeys([*known, *given[name]])) for name, known in stored[1].items()}


def _advice(out: str) -> str:
    from plstm_graph.train.folders import SEARCH, SEARCH_CONFIG
    from plstm_graph.train.results import CONFIG, SERIES

    if any((Path(out) / name).is_file() for name in (CONFIG, SERIES, f"{SEARCH}/{SEARCH_CONFIG}")):
        return f"resume with: plstm-graph train --resume --out {shlex.quote(out)}"
    return "nothing was written"  # training had not started


def _pairs(settings: list[str], given: Mapping[str, Any]) -> dict[str, str]:
    """Options by ``--set``, none of which may be given twice, or by a flag of its own as well."""
    found: dict[str, str] = {}
    for key, sign, value in (text.partition("=") for text in settings):
        if not sign or not key:
            raise ConfigError(f"--set takes key=value, for example --set model.head_layers=3 (got {key!r})")
        if (name := key.strip()) in found or name in given:
            raise ConfigError(f"{name} is given twice, once by --set {key}={value}: give one of them")
        found[name] = value.strip()
    return found


def _config(
    path: Path | None, given: dict[str, Any], out: str | None, resume: bool, seeds: str | None, folds: str | None
) -> tuple[Any, dict[str, Any]]:
    """The config: defaults, or on resuming the run's own; over them the file, and over that the command line.

    And the seeds and folds of a series, none for a single run.
    """
    from plstm_graph.config.architectures import check_read
    from plstm_graph.config.models import VisionConfig
    from plstm_graph.train.config import TrainConfig, from_dict, override, read_toml
    from plstm_graph.train.defaults import default_config
    from plstm_graph.train.folders import numbers, stored_search, stored_series
    from plstm_graph.train.results import stored_config

    series: dict[str, Any] = {}
    for name, text in (("seeds", seeds), ("folds", folds)):
        if text is not None:
            if given.get(name[:-1]) is not None:
                raise ConfigError(f"--{name} runs a series and --{name[:-1]} one run: give one of them")
            series[name] = numbers(text, name)
    from_file = read_toml(path) if path else {}
    data = str(given.get("data") or from_file.get("data") or TrainConfig.data)
    name = called(data)
    out = out or from_file.get("out") or str(Path("runs") / name)
    model = given.get("model.model") or from_file.get("model", {}).get("model")
    base, found = default_config(data, model), stored_search(out) if resume else None
    stored = stored_series(out) if resume else None
    if found:
        base, own = found
        series = {name: own[name] for name in ("seeds", "folds") if name in own} | series
    elif stored:
        base, known = stored
        series = known | series
    elif resume and not series:
        base = stored_config(out)
    asked = {*from_file.get("model", {}), *(name[6:] for name in given if name.startswith("model."))}
    if "size" in asked and not (found or stored or resume):  # those of the size, not those that are usual for the data
        own = {name: 0 for name in ("model.width", "model.heads") if name[6:] not in asked}
        base = override(base, own if isinstance(base.model, VisionConfig) else {})
    chosen = override(from_dict(from_file, base), given | {"out": out})
    check_read(chosen.model, asked, override(base, {"model.model": chosen.model.model}).model)
    return chosen, series


def _search_summary(out: str) -> None:
    from plstm_graph.io.json_csv import read_lines
    from plstm_graph.train.folders import SEARCH, TRIALS
    from plstm_graph.train.searching.study import best_row, words

    rows = read_lines(Path(out) / SEARCH / TRIALS)
    if best := best_row(rows):
        score = f"{best['metric']} {rounded(best['valid'])}"
        what = f"trial {best['trial']} of {len(rows)} was the best on validation ({score})"
        typer.echo(f"{what}: {words(best['values'])}")


def _series_summary(found: Mapping[str, Any], out: str) -> None:
    from rich.console import Console

    from plstm_graph.train.display import summary_table

    Console().print(summary_table(found))
    for name, reason in found["failed"].items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    typer.echo(f"results in {out}" + (f"; run again what failed: {_advice(out)}" if found["failed"] else ""))


def _summary(found: Mapping[str, Any], out: str) -> None:
    from plstm_graph.train.progress import lasted

    metric = found["metric"]
    epoch = f"best epoch {found['best_epoch']} of {found['epochs']}, " if found["epochs"] else ""
    parts = {part: found[part] for part in ("train", "valid", "test")} | found.get("also", {})
    numbers = "  ".join(f"{part} {rounded(scores[metric])}" for part, scores in parts.items())
    rejected = f"; {count(found['rejected'], 'row')} rejected, see rejected.csv" if found["rejected"] else ""
    typer.echo(f"{metric}: {numbers}  ({epoch}{lasted(found['minutes'])} of training)")
    size = f"{found['parameters']:,} parameters; " if found["parameters"] else ""
    bounds = sum(found.get("censored", {}).values())
    censored = f"; {bounds} censored labels, which are learnt from and not scored" if bounds else ""
    typer.echo(f"{size}results in {out}{rejected}{censored}")
