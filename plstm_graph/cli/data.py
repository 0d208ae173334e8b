"""The commands ``prepare`` and ``datasets``."""

from pathlib import Path
from typing import Annotated

import typer

from plstm_graph.cli.options import command_of
from plstm_graph.cli.program import command
from plstm_graph.cli.shared import Debug, Root, SmilesColumn, Targets, Task, check_places, option, say
from plstm_graph.config.names import check_data_set, check_options
from plstm_graph.io.files import stem

_DESCRIPTORS = "Descriptors to store for later trainings: rdkit2d, morgan-counts, a fingerprint or a CSV file; repeat."


@command()
def prepare(
    out: Annotated[Path, typer.Option("--out", help="File to write, for example molhiv.pt.")],
    data: Annotated[str, option("--data", "Data set or CSV file (default: nav17).")] = "nav17",
    root: Root = None,
    targets: Targets = None,
    smiles_column: SmilesColumn = None,
    task: Task = None,
    censored: Annotated[bool, option("--censored", "Labels may be bounds, as >10 or <0.1.")] = False,
    smiles: Annotated[bool, typer.Option(help="Store the molecules as text, too.")] = True,
    descriptors: Annotated[list[str] | None, option("--descriptors", _DESCRIPTORS)] = None,
    debug: Debug = False,
) -> None:
    """Pack a data set into one small file, to train on (--data FILE) where neither rdkit nor ogb is installed."""
    check_places(out, inputs=[data])
    check_options({"task": task})
    check_data_set(data, root)

    from plstm_graph.data import load_graphs, write_prepared
    from plstm_graph.train.config import override
    from plstm_graph.train.defaults import default_config

    columns = {"targets": targets or None, "smiles_column": smiles_column, "task": task, "censored": censored}
    found = load_graphs(data, root=root, **columns)
    digest = write_prepared(out, found, smiles=smiles, descriptors=descriptors or ())
    size = out.stat().st_size / 1e6
    say(f"{found.name}: {len(found.graphs):,} graphs, {size:.1f} MB, digest {digest[:12]}; wrote {out}", out)
    here = {"data": str(out), "out": f"runs/{stem(out)}"}
    usual = override(default_config(data), here)
    if usual != override(default_config(str(out)), here):
        say(f"the file brings no options; to train as with --data {data}: {command_of(usual, {})}", out)


@command()
def datasets(
    root: Annotated[str | None, option("--root", "Folder to look for raw files in, instead of the cache.")] = None,
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
