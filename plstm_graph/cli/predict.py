"""The commands ``predict``, ``embed``, ``evaluate`` and ``export``: what a trained model is asked."""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from plstm_graph.cli.program import command
from plstm_graph.cli.shared import Checkpoint, Debug, Root, SmilesColumn, Targets, check_places, option, say
from plstm_graph.config.names import PICTURES, check_data_set, check_options, folder_of, of_pictures
from plstm_graph.errors import ConfigError, DataError, count, rounded
from plstm_graph.io.lazy import quick_start

RESIDENT = "-"
"""In place of files: lines of stdin are answered on stdout."""

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
BatchSize = Annotated[int, typer.Option(min=1, help="Molecules or graphs at once.")]
Input = Annotated[Path, typer.Option("--input", help="CSV file with SMILES, or an .smi file.")]
Inputs = Annotated[
    Path, typer.Option("--input", help="CSV file with SMILES, an .smi file, a picture, or a folder of pictures.")
]
Table = Annotated[Path, typer.Option("--out", help="CSV file to write: one row per input row, in order.")]
Descriptors = Annotated[
    list[str] | None,
    option(
        "--descriptors",
        "For a model trained on a CSV file of descriptors: the same columns for these molecules.",
    ),
]
_JOBS = "Processes side by side (default: 1; on a CPU with 10,000 molecules or more, one per core)."
_PARTS = "train, valid, test or all (default: test; all for data, targets or a split other than those of the training)."


@command()
def predict(
    checkpoint: Checkpoint,
    input: Inputs,
    out: Table,
    smiles_column: SmilesColumn = None,
    descriptors: Descriptors = None,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, show_default=False, help=_JOBS)] = None,
    debug: Debug = False,
) -> None:
    """Predict for molecules; the columns of the input are kept, and rows that cannot be parsed get a reason instead.

    For pictures there is one row per file, with its path, class and probabilities.

    With --input - and --out - the model stays loaded: every SMILES on stdin is answered at once by a row on stdout.
    """
    if RESIDENT in (str(input), str(out)):
        if smiles_column or jobs:
            raise ConfigError("--smiles-column and --jobs are for files, and lines are read from stdin; leave them out")
        _answer_lines(checkpoint, input, out, device, descriptors or ())
        return
    _check_files(checkpoint, folder_of(input), out)
    if of_pictures(str(input)) or input.is_dir() or input.suffix.lower() in PICTURES:
        if smiles_column or descriptors or jobs:
            raise ConfigError("--smiles-column, --descriptors and --jobs are for molecules, and these are pictures")
        _answer_pictures(checkpoint, input, out, batch_size, device)
        return

    with quick_start():
        import torch

        from plstm_graph.train import predict as run
        from plstm_graph.train.inference.bulk import FEW, usual_jobs
        from plstm_graph.train.inference.molecules import read_as_trained
        from plstm_graph.train.progress import shown

    table, smiles = read_as_trained(checkpoint, input, smiles_column)
    if len(smiles) <= FEW:
        torch.set_num_threads(1)  # they are answered before further threads have met
    with shown():
        how: dict[str, Any] = {
            "batch_size": batch_size,
            "device": device,
            "jobs": jobs or usual_jobs(len(smiles), device),
        }
        found = run(checkpoint, smiles, descriptors=descriptors or (), **how)
    found.write(out, table)
    far = sum(map(bool, found.unlike or ()))
    *_, marks, reasons = found.header(table)
    more = f", {far} unlike the training (see column {marks})" if far else ""
    none = f"{len(found.rejected)} without a prediction (see column {reasons})"
    say(f"{count(len(found.smiles), 'row')}, {none}{more}; wrote {out}", out)


def _answer_pictures(checkpoint: str, input: Path, out: Path, batch_size: int, device: str) -> None:
    from plstm_graph.train import predict_pictures
    from plstm_graph.train.progress import shown

    with shown():
        found, table = predict_pictures(checkpoint, input, batch_size=batch_size, device=device)
    found.write(out, table)
    none = f"{len(found.rejected)} without a prediction (see column {found.header(table)[-1]})"
    say(f"{count(len(found.smiles), 'picture')}, {none}; wrote {out}", out)


def _check_files(checkpoint: str, input: Path, out: Path) -> None:
    """What can be told before anything heavy is imported."""
    from plstm_graph.train.folders import check_checkpoint

    check_places(out, inputs=[input, checkpoint], table=True)
    if not input.exists():
        raise DataError(f"there is no file {input}")
    check_checkpoint(checkpoint)


def _answer_lines(checkpoint: str, input: Path, out: Path, device: str, descriptors: Sequence[str]) -> None:
    from plstm_graph.train.folders import check_checkpoint

    if str(input) != RESIDENT or str(out) != RESIDENT:
        raise ConfigError("lines are read from stdin and answered on stdout: give both --input - and --out -")
    check_checkpoint(checkpoint)

    with quick_start():
        import torch

        from plstm_graph.train.inference.resident import answer_lines

    torch.set_num_threads(1)  # a molecule is answered before further threads have met
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, TextIOWrapper):  # bytes that are no text are one line's fault
            stream.reconfigure(errors=errors)
    lines, missed = answer_lines(checkpoint, sys.stdin, sys.stdout, device=device, descriptors=descriptors)
    typer.echo(f"{count(lines, 'line')}, {missed} without a prediction", err=True)


@command()
def embed(
    checkpoint: Checkpoint,
    input: Input,
    out: Table,
    smiles_column: SmilesColumn = None,
    descriptors: Descriptors = None,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Write learned fingerprints of molecules: the input of the network's last layers, one column per channel."""
    _check_files(checkpoint, input, out)
    if input.is_dir():
        raise DataError(f"{input} is a folder; learned fingerprints are of the molecules in a file")

    from plstm_graph.train import embed as run
    from plstm_graph.train.inference.molecules import read_as_trained
    from plstm_graph.train.progress import shown

    table, smiles = read_as_trained(checkpoint, input, smiles_column)
    with shown():
        found = run(checkpoint, smiles, batch_size=batch_size, device=device, descriptors=descriptors or ())
    found.write(out, table)
    say(f"{count(len(found.smiles), 'row')} of {len(found.columns)} channels; wrote {out}", out)


@command()
def evaluate(
    checkpoint: Checkpoint,
    data: Annotated[str | None, option("--data", "Data set or CSV file (default: that of the training).")] = None,
    root: Root = None,
    targets: Targets = None,
    smiles_column: SmilesColumn = None,
    censored: Annotated[bool, option("--censored", "Labels may be bounds, as >10, which are not scored.")] = False,
    descriptors: Descriptors = None,
    split: Annotated[str | None, option("--split", "Split, if not that of the training.")] = None,
    split_seed: Annotated[int | None, option("--split-seed", "Seed of the split, if not that of the training.")] = None,
    fold: Annotated[int | None, option("--fold", "Fold of the split, if not that of the training.")] = None,
    split_part: Annotated[str | None, option("--split-part", _PARTS)] = None,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    out: Annotated[Path | None, option("--out", "JSON file for the result.")] = None,
    debug: Debug = False,
) -> None:
    """Score a checkpoint on a part of a data set, split as in its training unless told otherwise."""
    from plstm_graph.io.json_csv import write_json
    from plstm_graph.train.folders import check_checkpoint

    check_places(out, inputs=[checkpoint, data])
    check_options({"split": split, "part": split_part})
    check_checkpoint(checkpoint)
    if data is not None:
        check_data_set(data, root)

    from plstm_graph.train import evaluate as run
    from plstm_graph.train.progress import shown

    where: dict[str, Any] = {"root": root, "targets": targets or None, "smiles_column": smiles_column}
    where |= {"censored": censored or None, "descriptors": descriptors or None}
    where |= {"split": split, "split_seed": split_seed, "fold": fold}
    with shown():
        found = run(checkpoint, data, part=split_part, batch_size=batch_size, device=device, **where)
    if out is not None:
        write_json(out, found)
    for note in found.pop("notes"):
        typer.echo(f"note: {note}", err=True)
    found["part"] += f": {found.pop('why')}"
    by_target, ends, thresholds = (found.pop(name) for name in ("by_target", "interval", "thresholds"))
    for name, value in found.items():
        say(f"{name:10} {rounded(value)}" if isinstance(value, float) else f"{name:10} {value}", out)
    if ends and isfinite(ends["low"]):
        low, high = rounded(ends["low"]), rounded(ends["high"])
        say(f"{ends['metric']} lies between {low} and {high} (bootstrap, {ends['level']:.0%})", out)
    for target, scores in thresholds.items():
        what = "  ".join(f"{name} {rounded(value)}" for name, value in scores.items() if name != "threshold")
        say(f"{target}: yes above {rounded(scores['threshold'])}, as validation chose: {what}", out)
    for target, scores in by_target.items():
        say(f"{target}: " + "  ".join(f"{name} {rounded(value)}" for name, value in scores.items()), out)


@command()
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option("--out", help="File to write, for example model.pt2.")],
    debug: Debug = False,
) -> None:
    """Write a model as one torch.export file that predicts wherever torch runs, without this package."""
    from plstm_graph.train.folders import check_checkpoint

    check_places(out, inputs=[checkpoint])
    check_checkpoint(checkpoint)

    from plstm_graph.train import export as run

    for name, shape in run(checkpoint, out)["inputs"].items():
        say(f"{name:10} {shape}", out)
    say(f"wrote {out}", out)
