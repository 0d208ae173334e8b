"""The command line: train, predict, evaluate, export, datasets, draw. Heavy imports wait until a command needs them."""

import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from plstm_graph import __version__
from plstm_graph.errors import ConfigError, PLSTMGraphError, missing_extra

try:
    import typer
except ModuleNotFoundError as error:  # the console script exists even without the extra
    raise SystemExit(missing_extra("typer", "train")) from error

USAGE, INTERRUPTED = 2, 130

app = typer.Typer(
    help="pLSTM for graphs: train on molecules and graphs, predict, evaluate.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]
Text = Annotated[str | None, typer.Option()]
Whole = Annotated[int | None, typer.Option()]
Checkpoint = Annotated[str, typer.Option("--checkpoint", help="best.ckpt, last.ckpt, or the folder of a run.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]


def _option(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, show_default=False)


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Errors a user can do something about become one line on stderr and exit code 2; the rest keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (PLSTMGraphError, OSError) as error:
            if kwargs.get("debug"):
                raise
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(USAGE) from error
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


class Choice(NamedTuple):
    """An option of ``train`` that sets one field of the config."""

    flag: str
    kind: Any
    panel: str
    help: str
    field: str = ""  # where it differs from the flag

    @property
    def name(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    def parameter(self) -> inspect.Parameter:
        option = typer.Option(self.flag, help=self.help, show_default=False, rich_help_panel=self.panel)
        hint = Annotated[self.kind | None, option]  # type: ignore[name-defined]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


_DATA, _MODEL, _FIT = "Data", "Model", "Training"
CHOICES = (
    Choice("--data", str, _DATA, "Name of a data set, or a CSV file (default: nav17)."),
    Choice("--root", str, _DATA, "Folder with public data, as root/TUDataset/NAME/raw."),
    Choice("--target", list[str], _DATA, "Label column of the CSV; repeat for several.", "targets"),
    Choice("--smiles-column", str, _DATA, "Column of the CSV with the molecules."),
    Choice("--task", str, _DATA, "regression, binary or multiclass (default: from the labels)."),
    Choice("--metric", str, _DATA, "What validation is judged by: r2, rmse, mae; rocauc, ap, accuracy."),
    Choice("--split", str, _DATA, "random, scaffold or folds."),
    Choice("--split-seed", int, _DATA, "Seed of the split (default: --seed)."),
    Choice("--fold", int, _DATA, "Which fold, with --split folds."),
    Choice("--model", str, _MODEL, "plstm, gine or gin.", "model.model"),
    Choice("--width", int, _MODEL, "Channels.", "model.width"),
    Choice("--layers", int, _MODEL, "Blocks.", "model.layers"),
    Choice("--heads", int, _MODEL, "Heads of a block.", "model.heads"),
    Choice("--modes", str, _MODEL, "Mode of each block, repeated as needed: P, D, PD, ...", "model.modes"),
    Choice("--directions", str, _MODEL, "Reading directions, for example both.", "model.directions"),
    Choice("--local", str, _MODEL, "Local branch beside pLSTM: gine or none.", "model.local"),
    Choice("--norm", str, _MODEL, "Normalisation, for example batch.", "model.norm"),
    Choice("--dropout", float, _MODEL, "Dropout.", "model.dropout"),
    Choice("--pooling", str, _MODEL, "mean, sum or max over nodes.", "model.pooling"),
    Choice("--rwse", int, _MODEL, "Steps of the random-walk encoding; 0 for none.", "model.walks"),
    Choice("--order", str, _MODEL, "How edges are oriented, for example canonical.", "model.order"),
    Choice("--epochs", int, _FIT, "Passes over the training split."),
    Choice("--batch-size", int, _FIT, "Graphs a step and device."),
    Choice("--lr", float, _FIT, "Highest learning rate."),
    Choice("--weight-decay", float, _FIT, "Of AdamW."),
    Choice("--warmup-epochs", int, _FIT, "Epochs of linear warm-up; then a cosine."),
    Choice("--clip", float, _FIT, "Largest norm of the gradient; 0: no clipping."),
    Choice("--patience", int, _FIT, "Epochs without a better validation metric; 0: never stop early."),
    Choice("--seed", int, _FIT, "Of weights, data order, dropout and split."),
    Choice("--accelerator", str, _FIT, "auto, cpu, gpu, ..."),
    Choice("--devices", str, _FIT, "How many, or which."),
    Choice("--num-nodes", int, _FIT, "Machines."),
    Choice("--precision", str, _FIT, "32-true, bf16-mixed, ..."),
)


def _with_choices(command: Callable[..., None]) -> Callable[..., None]:
    """Puts :data:`CHOICES` in place of ``**given``."""
    parameters = list(inspect.signature(command).parameters.values())[:-1]
    signature = inspect.Signature([*parameters, *(choice.parameter() for choice in CHOICES)])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return command


@app.command()
@_guarded
@_with_choices
def train(
    *,
    config: Annotated[Path | None, _option("--config", "TOML file with any of these options.")] = None,
    out: Annotated[str | None, _option("--out", "Folder for results (default: runs/<name of the data>).")] = None,
    resume: Annotated[bool, _option("--resume", "Go on with the run in --out after an interruption.")] = False,
    overwrite: Annotated[bool, _option("--overwrite", "Replace the run in --out.")] = False,
    settings: Annotated[list[str] | None, _option("--set", "Any other: --set model.head_layers=3; repeat.")] = None,
    quiet: Annotated[bool, _option("--quiet", "No progress bar and no summary.")] = False,
    debug: Debug = False,
    **given: Any,
) -> None:
    """Train a model; without options on nav17, 1,017 molecules that ship with RDKit."""
    from plstm_graph.train import train as run
    from plstm_graph.train.run import first_process

    values = {choice.field or choice.name: given[choice.name] for choice in CHOICES if given[choice.name] is not None}
    chosen = _config(config, values | _pairs(settings or []), out, resume)
    command = shlex.join(["plstm-graph", *sys.argv[1:]])
    try:
        found = run(chosen, resume=resume, overwrite=overwrite, progress=not quiet, command=command)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {_advice(str(chosen.out))}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not quiet and first_process():
        _summary(found, str(chosen.out))


def _advice(out: str) -> str:
    if (Path(out) / "config.toml").is_file():
        return f"resume with: plstm-graph train --resume --out {shlex.quote(out)}"
    return "nothing was written"  # training had not started


def _pairs(settings: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in settings]
    for key, sign, _ in pairs:
        if not sign or not key:
            raise ConfigError(f"--set takes key=value, for example --set model.head_layers=3 (got {key!r})")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _config(path: Path | None, given: dict[str, Any], out: str | None, resume: bool) -> Any:
    """Defaults, or on resuming the run's own options; over them the file, and over that the command line."""
    from plstm_graph.train.config import TrainConfig, from_dict, override, read_toml
    from plstm_graph.train.results import stored_config

    from_file = read_toml(path) if path else {}
    name = Path(str(given.get("data") or from_file.get("data") or TrainConfig.data)).stem
    out = out or from_file.get("out") or str(Path("runs") / name)
    base = stored_config(out) if resume else TrainConfig()
    return override(from_dict(from_file, base), given | {"out": out})


def _summary(found: Mapping[str, Any], out: str) -> None:
    metric = found["metric"]
    numbers = "  ".join(f"{part} {found[part][metric]:.4f}" for part in ("train", "valid", "test"))
    rejected = f"; {found['rejected']} rows rejected, see rejected.csv" if found["rejected"] else ""
    typer.echo(
        f"{metric}: {numbers}  (best epoch {found['best_epoch']} of {found['epochs']}, {found['minutes']:.1f} min)"
    )
    typer.echo(f"{found['parameters']:,} parameters; results in {out}{rejected}")


@app.command()
@_guarded
def predict(
    checkpoint: Checkpoint,
    input: Annotated[Path, typer.Option("--input", help="CSV file with SMILES, or an .smi file.")],
    out: Annotated[Path, typer.Option("--out", help="CSV file to write: one row per input row, in order.")],
    smiles_column: Text = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Predict for molecules; rows that cannot be parsed keep an empty prediction and a reason."""
    from plstm_graph.data import read_smiles
    from plstm_graph.train import predict as run

    found = run(checkpoint, read_smiles(input, smiles_column), batch_size=batch_size, device=device)
    found.write(out)
    typer.echo(f"{len(found.smiles)} rows, {len(found.rejected)} without a prediction (see column error); wrote {out}")


@app.command()
@_guarded
def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[str | None, _option("--data", "Data set or CSV file (default: that of the training).")] = None,
    root: Text = None,
    target: Annotated[list[str] | None, _option("--target", "Label column of the CSV; repeat for several.")] = None,
    smiles_column: Text = None,
    split: Text = None,
    split_seed: Whole = None,
    fold: Whole = None,
    split_part: Annotated[str, typer.Option(help="train, valid, test or all.")] = "test",
    device: Device = "auto",
    out: Annotated[Path | None, _option("--out", "JSON file for the result.")] = None,
    debug: Debug = False,
) -> None:
    """Score a checkpoint on a part of a data set, split as in its training unless told otherwise."""
    from plstm_graph.train import evaluate as run
    from plstm_graph.train.results import write_json

    where: dict[str, Any] = {"root": root, "targets": target or None, "smiles_column": smiles_column}
    found = run(
        checkpoint, data, part=split_part, device=device, split=split, split_seed=split_seed, fold=fold, **where
    )
    if out is not None:
        write_json(out, found)
    for name, value in found.items():
        typer.echo(f"{name:10} {value:.4f}" if isinstance(value, float) else f"{name:10} {value}")


@app.command()
@_guarded
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option("--out", help="File to write, for example model.pt2.")],
    debug: Debug = False,
) -> None:
    """Write a model as one torch.export file that predicts wherever torch runs, without this package."""
    from plstm_graph.train import export as run

    for name, shape in run(checkpoint, out)["inputs"].items():
        typer.echo(f"{name:10} {shape}")
    typer.echo(f"wrote {out}")


@app.command()
@_guarded
def datasets(debug: Debug = False) -> None:
    """List the data sets that have a name."""
    from rich.console import Console
    from rich.table import Column, Table

    from plstm_graph.data import DATASETS

    whole = [Column(name, no_wrap=True) for name in ("name", "graphs", "task", "metric", "split")]
    table = Table(*whole, "licence", "source", box=None, pad_edge=False)
    for row in DATASETS.values():
        table.add_row(row.name, f"{row.graphs:,}", row.task, row.metric, row.split, row.licence, row.source)
    Console().print(table)


@app.command()
@_guarded
def draw(
    smiles: Annotated[str, typer.Argument(help="Molecule.")],
    out: Annotated[Path, typer.Option("--out", help="Picture to write (.svg or .png).")],
    order: Annotated[str, typer.Option(help="How bonds are oriented.")] = "canonical",
    debug: Debug = False,
) -> None:
    """Draw a molecule, its DAG and its line graph, coloured by level."""
    from plstm_graph.draw import draw as run

    run(smiles, out, order=order)
    typer.echo(f"wrote {out}")


def main() -> None:
    """Entry point of ``plstm-graph``."""
    app()


if __name__ == "__main__":
    main()
