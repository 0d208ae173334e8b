"""The commands ``report``, ``explain`` and ``draw``: pages and pictures."""

from pathlib import Path
from typing import Annotated

import typer

from plstm_graph.cli.program import command
from plstm_graph.cli.shared import Checkpoint, Debug, check_places, option, say
from plstm_graph.config.names import check_options


@command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folder of a run or a series; several runs are compared.")
    ],
    out: Annotated[
        Path | None, option("--out", "Page to write (default: report.html in the one RUN; here for several).")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a run, or a comparison of several, as one HTML page that needs no network."""
    from plstm_graph.train.folders import check_run

    check_places(out)
    for folder in runs:
        check_run(folder)

    from plstm_graph.train.page import write_page

    say(f"wrote {write_page(runs, out)}", out)


@command()
def explain(
    checkpoint: Checkpoint,
    smiles: Annotated[str, option("--smiles", "Molecule.")],
    out: Annotated[Path | None, option("--out", "Picture to write (.svg or .png).")] = None,
    target: Annotated[
        str | None, option("--target", "Target, or number of the class (default: the first one).")
    ] = None,
    atoms: Annotated[Path | None, option("--atoms", "CSV file for the scores of atoms.")] = None,
    pairs: Annotated[Path | None, option("--pairs", "CSV file for the flows between atoms.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Points of the integrals; more make the gaps smaller.")] = 64,
    debug: Debug = False,
) -> None:
    """Show what a prediction is made of: scores of atoms, and what the pLSTM layers carried between them."""
    from plstm_graph.draw.marks import picture_path
    from plstm_graph.train.folders import check_checkpoint

    if out is not None:
        picture_path(out)
    places = out, atoms, pairs
    check_places(*places, inputs=[checkpoint])
    check_places(atoms, pairs, table=True)
    check_checkpoint(checkpoint)

    from plstm_graph.models.explain import as_sum
    from plstm_graph.train import explain as run

    found = run(checkpoint, smiles, target=target, steps=steps)
    for path, write in ((out, found.draw), (atoms, found.write_atoms), (pairs, found.write_pairs)):
        if path is not None:
            write(path)
    what = found.explanation
    first = target is None and len(found.choices) > 1
    also = f" (the first; --target chooses among {', '.join(found.choices)})" if first else ""
    whole = as_sum(what.value, what.blank, what.gap, "blank", "atoms and bonds", least=4)
    say(f"{found.unit}: {whole.rpartition('= ')[2]}{also}", *places)
    say(whole, *places)
    say(as_sum(what.value, what.silent, what.flow_gap, "silent", "pLSTM layers", least=4), *places)
    if found.unlike:
        say(f"unlike the training: {found.unlike}", *places)
    say("blank: the same skeleton without encodings; silent: no pLSTM layer delivers; gap: error of the sum", *places)
    written = [str(path) for path in places if path is not None]
    say(f"wrote {', '.join(written)}" if written else "nothing written; give --out, --atoms or --pairs", *places)


@command()
def draw(
    smiles: Annotated[str, typer.Argument(help="Molecule.")],
    out: Annotated[Path, typer.Option("--out", help="Picture to write (.svg or .png).")],
    order: Annotated[
        str, typer.Option(help="How bonds are oriented, as --order of train: canonical, index, bfs, ...")
    ] = "canonical",
    title: Annotated[str | None, option("--title", "Name, also for screen readers (default: SMILES).")] = None,
    debug: Debug = False,
) -> None:
    """Draw a molecule, its DAG and its line graph, coloured by level."""
    from plstm_graph.draw.marks import picture_path

    picture_path(out)
    check_places(out)
    check_options({"model.order": order})

    from plstm_graph.draw import draw as run

    run(smiles, out, order=order, title=title)
    say(f"wrote {out}", out)
