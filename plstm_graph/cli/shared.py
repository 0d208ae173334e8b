"""What commands share: options that several have, checks of the places they write, and how they say what was done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from plstm_graph.cli.options import CHOICES
from plstm_graph.errors import TargetError
from plstm_graph.io.files import check_target, is_stdout


def option(flag: str, text: str) -> Any:
    """An option whose help names its default in words."""
    return typer.Option(flag, help=text, show_default=False)


def _as_in_train(flag: str) -> Any:
    return option(flag, next(choice.help for choice in CHOICES if choice.flag == flag))


Debug = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]
Checkpoint = Annotated[str, typer.Option("--checkpoint", help="best.ckpt, last.ckpt, or the folder of a run.")]
Root = Annotated[str | None, _as_in_train("--root")]
Targets = Annotated[list[str] | None, _as_in_train("--targets")]
SmilesColumn = Annotated[str | None, _as_in_train("--smiles-column")]
Task = Annotated[str | None, _as_in_train("--task")]


def check_places(*outs: Path | None, inputs: Sequence[str | Path | None] = (), table: bool = False) -> None:
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


def say(text: str, *outs: Path | None) -> None:
    """What was done; on stderr where the result itself goes to stdout."""
    typer.echo(text, err=any(out is not None and is_stdout(out) for out in outs))
