"""The command line, a command a function. Heavy imports wait until a command needs them."""

import functools
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from plstm_graph import __version__
from plstm_graph.errors import (
    ConfigError,
    DataError,
    Diverged,
    PLSTMGraphError,
    TargetError,
    TimeUp,
    missing_extra,
    said,
)
from plstm_graph.io.files import check_target, is_stdout, stem

try:
    import typer
except ModuleNotFoundError as error:  # the console script exists even without the extra
    raise SystemExit(missing_extra("typer", "train")) from error

from plstm_graph.cli.examples import epilog
from plstm_graph.cli.options import CHOICES, WithDefaults, command_of, with_choices
from plstm_graph.config.names import check_data_set, check_options
from plstm_graph.io.waiting import watched

RESIDENT = "-"
"""In place of files: lines of stdin are answered on stdout."""
FAILED, USAGE, INTERRUPTED = 1, 2, 130
PATIENCE_S = 5.0
"""So long after the first Ctrl-C a command may take to end; a later one ends it where it is."""
RANKS = {"RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"}
"""What tells a process that it is one of several that train together."""

app = typer.Typer(
    help="pLSTM for graphs: train on molecules and graphs, predict, evaluate.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]
Checkpoint = Annotated[str, typer.Option("--checkpoint", help="best.ckpt, last.ckpt, or the folder of a run.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
BatchSize = Annotated[int, typer.Option(min=1, help="Molecules or graphs at once.")]


def _option(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, show_default=False)


def _as_in_train(flag: str) -> Any:
    return _option(flag, next(choice.help for choice in CHOICES if choice.flag == flag))


Root = Annotated[str | None, _as_in_train("--root")]
Targets = Annotated[list[str] | None, _as_in_train("--targets")]
SmilesColumn = Annotated[str | None, _as_in_train("--smiles-column")]
Task = Annotated[str | None, _as_in_train("--task")]


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Errors a user can do something about become one line on stderr and exit code 2; the rest keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (PLSTMGraphError, OSError) as error:
            if kwargs.get("debug"):
                raise
            typer.echo(f"error: {said(error)}", err=True)
            raise typer.Exit(FAILED if isinstance(error, Diverged) else USAGE) from error
        except MemoryError as error:
            if kwargs.get("debug"):
                raise
            typer.echo(
                "error: this machine has no memory for that; give less data, or a smaller --batch-size", err=True
            )
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as error:
            if kwargs.get("debug"):
                raise
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from error

    return run


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"plstm-graph {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _common(version: Version = False) -> None:
    pass


@app.command(cls=WithDefaults, epilog=epilog("train"))
@_guarded
@with_choices
def train(
    *,
    config: Annotated[Path | None, _option("--config", "TOML file with any of these options.")] = None,
    out: Annotated[str | None, _option("--out", "Folder for results (default: runs/<name of the data>).")] = None,
    resume: Annotated[bool, _option("--resume", "Go on with the run in --out after an interruption.")] = False,
    overwrite: Annotated[bool, _option("--overwrite", "Replace the run in --out.")] = False,
    seeds: Annotated[str | None, _option("--seeds", "A series of runs, one for each: 0-9 or 0,2,5.")] = None,
    folds: Annotated[str | None, _option("--folds", "A series of runs, one for each fold (and seed).")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs of a series at a time, on one device.")] = 1,
    settings: Annotated[list[str] | None, _option("--set", "Any other: --set model.head_layers=3; repeat.")] = None,
    minutes: Annotated[
        float | None, _option("--minutes", "Stop after so many, to --resume later (exit code 130).")
    ] = None,
    logger: Annotated[str | None, _option("--logger", "Epochs also to tensorboard, wandb or mlflow.")] = None,
    quiet: Annotated[bool, _option("--quiet", "No progress bar and no summary.")] = False,
    debug: Debug = False,
    **given: Any,
) -> None:
    """Train a model; without options on nav17, 1,017 molecules that ship with RDKit."""
    from plstm_graph.train.config import flat
    from plstm_graph.train.owner import check_free
    from plstm_graph.train.results import check_folder

    values = {choice.field or choice.name: given[choice.name] for choice in CHOICES if given[choice.name] is not None}
    chosen, series = _config(config, values | _pairs(settings or []), out, resume, seeds, folds)
    check_options(flat(chosen))
    check_data_set(chosen.data, chosen.root)
    if not RANKS & os.environ.keys():  # other processes find the folder filled by the first
        check_free(str(chosen.out))
    if not series and not RANKS & os.environ.keys():
        check_folder(chosen, resume=resume, overwrite=overwrite)

    from plstm_graph.train import train as run
    from plstm_graph.train import train_series
    from plstm_graph.train.run import first_process

    how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "progress": not quiet}
    how["command"] = command_of(chosen, _members(chosen, series, overwrite))
    if minutes is not None:
        if series:
            raise ConfigError("--minutes is for a single run; a series is stopped by Ctrl-C and goes on with --resume")
        how["minutes"] = minutes
    try:
        if logger is not None:
            how["callbacks"] = [_logged(logger, chosen, series)]
        found = train_series(chosen, jobs=jobs, **series, **how) if series else run(chosen, **how)
    except (KeyboardInterrupt, TimeUp) as stop:
        if first_process():
            typer.echo(f"{str(stop) or 'interrupted'}; {_advice(str(chosen.out))}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not quiet and first_process():
        _series_summary(found, str(chosen.out)) if series else _summary(found, str(chosen.out))
    if series and found["failed"]:
        raise typer.Exit(FAILED)


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
    if any((Path(out) / name).is_file() for name in ("config.toml", "series.toml")):
        return f"resume with: plstm-graph train --resume --out {shlex.quote(out)}"
    return "nothing was written"  # training had not started


def _pairs(settings: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in settings]
    for key, sign, _ in pairs:
        if not sign or not key:
            raise ConfigError(f"--set takes key=value, for example --set model.head_layers=3 (got {key!r})")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _config(
    path: Path | None, given: dict[str, Any], out: str | None, resume: bool, seeds: str | None, folds: str | None
) -> tuple[Any, dict[str, Any]]:
    """The config: defaults, or on resuming the run's own; over them the file, and over that the command line.

    And the seeds and folds of a series, none for a single run.
    """
    from plstm_graph.train.config import TrainConfig, default_config, from_dict, override, read_toml
    from plstm_graph.train.folders import numbers, stored_series
    from plstm_graph.train.results import stored_config

    series: dict[str, Any] = {}
    for name, text in (("seeds", seeds), ("folds", folds)):
        if text is not None:
            if given.get(name[:-1]) is not None:
                raise ConfigError(f"--{name} runs a series and --{name[:-1]} one run: give one of them")
            series[name] = numbers(text, name)
    from_file = read_toml(path) if path else {}
    data = str(given.get("data") or from_file.get("data") or TrainConfig.data)
    name = stem(data)
    out = out or from_file.get("out") or str(Path("runs") / name)
    base, stored = default_config(data), stored_series(out) if resume else None
    if stored:
        base, known = stored
        series = known | series
    elif resume and not series:
        base = stored_config(out)
    return override(from_dict(from_file, base), given | {"out": out}), series


def _series_summary(found: Mapping[str, Any], out: str) -> None:
    from rich.console import Console

    from plstm_graph.train.series import summary_table

    Console().print(summary_table(found))
    for name, reason in found["failed"].items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    typer.echo(f"results in {out}" + (f"; run again what failed: {_advice(out)}" if found["failed"] else ""))


def _summary(found: Mapping[str, Any], out: str) -> None:
    metric = found["metric"]
    epoch = f"best epoch {found['best_epoch']} of {found['epochs']}, " if found["epochs"] else ""
    parts = {part: found[part] for part in ("train", "valid", "test")} | found.get("also", {})
    numbers = "  ".join(f"{part} {scores[metric]:.4f}" for part, scores in parts.items())
    rejected = f"; {found['rejected']} rows rejected, see rejected.csv" if found["rejected"] else ""
    typer.echo(f"{metric}: {numbers}  ({epoch}{found['minutes']:.1f} min of training)")
    size = f"{found['parameters']:,} parameters; " if found["parameters"] else ""
    typer.echo(f"{size}results in {out}{rejected}")


def _answer_lines(checkpoint: str, input: Path, out: Path, device: str, descriptors: Sequence[str]) -> None:
    from plstm_graph.train.folders import check_checkpoint

    if str(input) != RESIDENT or str(out) != RESIDENT:
        raise ConfigError("lines are read from stdin and answered on stdout: give both --input - and --out -")
    check_checkpoint(checkpoint)

    from plstm_graph.train.resident import answer_lines

    count, missed = answer_lines(checkpoint, sys.stdin, sys.stdout, device=device, descriptors=descriptors)
    typer.echo(f"{count} lines, {missed} without a prediction", err=True)


_DESCRIPTORS = "To keep, for --descriptors in trainings: rdkit2d, morgan, morgan-counts or a CSV file; repeat."
_INSTEAD = "In place of those of the training: a CSV file with columns of the same names, for these molecules."


@app.command(epilog=epilog("prepare"))
@_guarded
def prepare(
    out: Annotated[Path, typer.Option("--out", help="File to write, for example molhiv.pt.")],
    data: Annotated[str, _option("--data", "Data set or CSV file (default: nav17).")] = "nav17",
    root: Root = None,
    targets: Targets = None,
    smiles_column: SmilesColumn = None,
    task: Task = None,
    rwse: Annotated[int, typer.Option(hidden=True)] = 0,
    smiles: Annotated[bool, typer.Option(help="Keep the molecules as text.")] = True,
    descriptors: Annotated[list[str] | None, _option("--descriptors", _DESCRIPTORS)] = None,
    debug: Debug = False,
) -> None:
    """Pack a data set into one small file, to train (--data FILE) where neither rdkit nor ogb is installed."""
    _check_places(out, inputs=[data])
    check_options({"task": task})
    check_data_set(data, root)

    from plstm_graph.data import load_graphs, write_prepared

    found = load_graphs(data, root=root, targets=targets or None, smiles_column=smiles_column, task=task)
    if rwse:
        typer.echo("note: --rwse is not needed: trainings work walks out as fast as they would read them", err=True)
    digest = write_prepared(out, found, smiles=smiles, descriptors=descriptors or ())
    size = out.stat().st_size / 1e6
    _say(f"{found.name}: {len(found.graphs):,} graphs, {size:.1f} MB, digest {digest[:12]}; wrote {out}", out)


@app.command(epilog=epilog("predict"))
@_guarded
def predict(
    checkpoint: Checkpoint,
    input: Annotated[Path, typer.Option("--input", help="CSV file with SMILES, or an .smi file.")],
    out: Annotated[Path, typer.Option("--out", help="CSV file to write: one row per input row, in order.")],
    smiles_column: SmilesColumn = None,
    descriptors: Annotated[list[str] | None, _option("--descriptors", _INSTEAD)] = None,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Processes that read and answer side by side.")] = 1,
    debug: Debug = False,
) -> None:
    """Predict for molecules; columns of the input are kept, rows that cannot be parsed get a reason instead.

    With --input - and --out - the model stays: a SMILES a line on stdin is answered by a row on stdout at once.
    """
    from plstm_graph.train.folders import check_checkpoint

    if RESIDENT in (str(input), str(out)):
        _answer_lines(checkpoint, input, out, device, descriptors or ())
        return
    _check_places(out, inputs=[input, checkpoint], table=True)
    if not input.exists():
        raise DataError(f"there is no file {input}")
    check_checkpoint(checkpoint)

    from plstm_graph.data.tables import read_rows
    from plstm_graph.train import predict as run
    from plstm_graph.train.progress import Waiting

    table, smiles = read_rows(input, smiles_column)
    with watched(Waiting()):
        how: dict[str, Any] = {"batch_size": batch_size, "device": device, "jobs": jobs}
        found = run(checkpoint, smiles, descriptors=descriptors or (), **how)
    found.write(out, table)
    far = sum(map(bool, found.unlike or ()))
    more = f", {far} unlike the training (see column unlike_training)" if far else ""
    none = f"{len(found.rejected)} without a prediction (see column error)"
    _say(f"{len(found.smiles)} rows, {none}{more}; wrote {out}", out)


@app.command(epilog=epilog("embed"))
@_guarded
def embed(
    checkpoint: Checkpoint,
    input: Annotated[Path, typer.Option("--input", help="CSV file with SMILES, or an .smi file.")],
    out: Annotated[Path, typer.Option("--out", help="CSV file to write: one row per input row, in order.")],
    smiles_column: SmilesColumn = None,
    descriptors: Annotated[list[str] | None, _option("--descriptors", _INSTEAD)] = None,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Write learned fingerprints of molecules: what the last layers of a network read, a column a channel."""
    from plstm_graph.train.folders import check_checkpoint

    _check_places(out, inputs=[input, checkpoint], table=True)
    if not input.exists():
        raise DataError(f"there is no file {input}")
    check_checkpoint(checkpoint)

    from plstm_graph.data.tables import read_rows
    from plstm_graph.train import embed as run
    from plstm_graph.train.progress import Waiting

    table, smiles = read_rows(input, smiles_column)
    with watched(Waiting()):
        found = run(checkpoint, smiles, batch_size=batch_size, device=device, descriptors=descriptors or ())
    found.write(out, table)
    _say(f"{len(found.smiles)} rows of {len(found.columns)} channels; wrote {out}", out)


def _check_places(*outs: Path | None, inputs: Sequence[str | Path | None] = (), table: bool = False) -> None:
    """Before the work, not after it; ``inputs`` are not to be written over, nor one result over another."""
    taken = [Path(name) / more for name in inputs if name is not None for more in ("", "checkpoints/best.ckpt")]
    for out in (out for out in outs if out is not None):
        check_target(out, table=table)
        if out.is_file() and any(place.is_file() and out.samefile(place) for place in taken):
            raise TargetError(
                f"{out} is to be written and is read as well, so that it would be lost; name another file"
            )
        if out in taken:
            raise TargetError(f"{out} is to be written twice; name another file for one of the results")
        taken.append(out)


def _say(text: str, *outs: Path | None) -> None:
    """What was done; on stderr where the result itself goes to stdout."""
    typer.echo(text, err=any(out is not None and is_stdout(out) for out in outs))


_PARTS = "train, valid, test or all (default: test; all for data, targets or a split other than those of the training)."


@app.command(epilog=epilog("evaluate"))
@_guarded
def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[str | None, _option("--data", "Data set or CSV file (default: that of the training).")] = None,
    root: Root = None,
    targets: Targets = None,
    smiles_column: SmilesColumn = None,
    descriptors: Annotated[list[str] | None, _option("--descriptors", _INSTEAD)] = None,
    split: Annotated[str | None, _option("--split", "Another split than that of the training.")] = None,
    split_seed: Annotated[int | None, _option("--split-seed", "Its seed.")] = None,
    fold: Annotated[int | None, _option("--fold", "Its fold.")] = None,
    split_part: Annotated[str | None, _option("--split-part", _PARTS)] = None,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    out: Annotated[Path | None, _option("--out", "JSON file for the result.")] = None,
    debug: Debug = False,
) -> None:
    """Score a checkpoint on a part of a data set, split as in its training unless told otherwise."""
    from plstm_graph.train.folders import check_checkpoint
    from plstm_graph.train.results import write_json

    _check_places(out, inputs=[checkpoint, data])
    check_options({"split": split, "part": split_part})
    check_checkpoint(checkpoint)
    if data is not None:
        check_data_set(data, root)

    from plstm_graph.train import evaluate as run
    from plstm_graph.train.progress import Waiting

    where: dict[str, Any] = {"root": root, "targets": targets or None, "smiles_column": smiles_column}
    where |= {"descriptors": descriptors or None, "split": split, "split_seed": split_seed, "fold": fold}
    with watched(Waiting()):
        found = run(checkpoint, data, part=split_part, batch_size=batch_size, device=device, **where)
    if out is not None:
        write_json(out, found)
    for note in found.pop("notes"):
        typer.echo(f"note: {note}", err=True)
    found["part"] += f": {found.pop('why')}"
    by_target = found.pop("by_target")
    for name, value in found.items():
        _say(f"{name:10} {value:.4f}" if isinstance(value, float) else f"{name:10} {value}", out)
    for target, scores in by_target.items():
        _say(f"{target}: " + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()), out)


@app.command(epilog=epilog("report"))
@_guarded
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folder of a run or a series; several runs are compared.")
    ],
    out: Annotated[
        Path | None, _option("--out", "Page to write (default: report.html in the one RUN; here for several).")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a run, or how several compare, as one HTML page that needs no network."""
    from plstm_graph.train.folders import check_run

    _check_places(out)
    for folder in runs:
        check_run(folder)

    from plstm_graph.train.page import write_page

    _say(f"wrote {write_page(runs, out)}", out)


@app.command(epilog=epilog("explain"))
@_guarded
def explain(
    checkpoint: Checkpoint,
    smiles: Annotated[str, _option("--smiles", "Molecule.")],
    out: Annotated[Path | None, _option("--out", "Picture to write (.svg or .png).")] = None,
    target: Annotated[str | None, _option("--target", "Target, or number of the class (default: the first).")] = None,
    atoms: Annotated[Path | None, _option("--atoms", "CSV file for the scores of atoms.")] = None,
    pairs: Annotated[Path | None, _option("--pairs", "CSV file for the flows between atoms.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Points of the integrals; more make the gaps smaller.")] = 64,
    debug: Debug = False,
) -> None:
    """Show what a prediction is made of: scores of atoms, and what pLSTM layers carried between them."""
    from plstm_graph.draw.marks import picture_path
    from plstm_graph.train.folders import check_checkpoint

    if out is not None:
        picture_path(out)
    places = out, atoms, pairs
    _check_places(*places, inputs=[checkpoint])
    _check_places(atoms, pairs, table=True)
    check_checkpoint(checkpoint)

    from plstm_graph.models.explain import told
    from plstm_graph.train import explain as run

    found = run(checkpoint, smiles, target=target, steps=steps)
    for path, write in ((out, found.draw), (atoms, found.write_atoms), (pairs, found.write_pairs)):
        if path is not None:
            write(path)
    what = found.explanation
    first = target is None and len(found.choices) > 1
    also = f" (the first; --target chooses among {', '.join(found.choices)})" if first else ""
    _say(f"{found.unit}: {what.value:.4f}{also}".replace(": -", ": −"), *places)
    _say(told(what.value, what.blank, what.gap, "blank", "atoms and bonds", places=4), *places)
    _say(told(what.value, what.silent, what.flow_gap, "silent", "pLSTM layers", places=4), *places)
    if found.unlike:
        _say(f"unlike the training: {found.unlike}", *places)
    _say("blank: the same skeleton without encodings; silent: no pLSTM layer delivers; gap: error of the sum", *places)
    written = [str(path) for path in places if path is not None]
    _say(f"wrote {', '.join(written)}" if written else "nothing written; give --out, --atoms or --pairs", *places)


@app.command(epilog=epilog("export"))
@_guarded
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option("--out", help="File to write, for example model.pt2.")],
    debug: Debug = False,
) -> None:
    """Write a model as one torch.export file that predicts wherever torch runs, without this package."""
    from plstm_graph.train.folders import check_checkpoint

    _check_places(out, inputs=[checkpoint])
    check_checkpoint(checkpoint)

    from plstm_graph.train import export as run

    for name, shape in run(checkpoint, out)["inputs"].items():
        _say(f"{name:10} {shape}", out)
    _say(f"wrote {out}", out)


@app.command(epilog=epilog("datasets"))
@_guarded
def datasets(
    root: Annotated[str | None, _option("--root", "Folder to look for raw files in, instead of the cache.")] = None,
    debug: Debug = False,
) -> None:
    """List the data sets that have a name, and say which need no download."""
    from rich.console import Console
    from rich.table import Column, Table

    from plstm_graph.data import DATASETS

    console = Console()
    if not console.is_terminal:  # a file has room for all columns
        console = Console(width=240)
    more = ("licence", "source") if console.width >= 140 else ()
    numbers = [Column(name, no_wrap=True, justify="right") for name in ("graphs", "MB")]
    texts = [Column(name, no_wrap=True) for name in ("task", "metric", "split", "here")]
    table = Table(Column("name", no_wrap=True), *numbers, *texts, *more, box=None, pad_edge=False)
    for row in DATASETS.values():
        counts = (f"{row.graphs:,}" if row.graphs else "", f"{row.megabytes:g}" if row.megabytes else "")
        here = "yes" if row.present(root) else "no"
        table.add_row(row.name, *counts, row.task, row.metric, row.split, here, *(getattr(row, name) for name in more))
    console.print(table)


@app.command(epilog=epilog("draw"))
@_guarded
def draw(
    smiles: Annotated[str, typer.Argument(help="Molecule.")],
    out: Annotated[Path, typer.Option("--out", help="Picture to write (.svg or .png).")],
    order: Annotated[
        str, typer.Option(help="How bonds are oriented: canonical, index, bfs, dfs, degree or random.")
    ] = "canonical",
    title: Annotated[str | None, _option("--title", "Name, also for screen readers (default: SMILES).")] = None,
    debug: Debug = False,
) -> None:
    """Draw a molecule, its DAG and its line graph, coloured by level."""
    from plstm_graph.draw.marks import picture_path

    picture_path(out)
    _check_places(out)
    check_options({"model.order": order})

    from plstm_graph.draw import draw as run

    run(smiles, out, order=order, title=title)
    _say(f"wrote {out}", out)


class _Stop:
    """Ctrl-C or SIGTERM ends the command once; more of them while it ends change nothing, unless it hangs."""

    def __init__(self) -> None:
        self.since: float | None = None

    def __call__(self, *_: Any) -> None:
        if self.since is None:
            self.since = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self.since > PATIENCE_S:
            os.write(2, b"interrupted at once\n")
            os._exit(INTERRUPTED)


def main() -> None:
    """Entry point of ``plstm-graph``."""
    stop = _Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, stop)
    app()
