"""The command ``blend``: finished runs joined by their predictions."""

from pathlib import Path
from typing import Annotated

import typer

from plstm_graph.cli.program import command
from plstm_graph.cli.shared import Debug, option
from plstm_graph.errors import count, rounded


@command()
def blend(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folder of a run or blend; a series is its mean.")
    ],
    out: Annotated[Path, option("--out", "Folder for metrics.json and predictions.csv, new or empty.")],
    ranks: Annotated[bool, typer.Option("--ranks", help="Average ranks, not values; for ROC-AUC, AP and τ.")] = False,
    equal: Annotated[bool, typer.Option("--equal", help="Give all runs the same weight.")] = False,
    debug: Debug = False,
) -> None:
    """Average finished runs of any models on the same data, with weights chosen on the validation part."""
    from plstm_graph.tasks import METRICS
    from plstm_graph.train import blend as run

    found = run(runs, out, ranks=ranks, equal=equal)
    metric = found["metric"]
    rows = [(f"{each['weight']:.2f}", each, f"{each['run']}{_runs(each['runs'])}") for each in found["members"]]
    rows += [("", found["mean"], "mean of all"), ("", found, "blend")]
    typer.echo(f"{METRICS[metric].label}\n weight   valid    test")
    for weight, scores, name in rows:
        typer.echo(f"{weight:>7}  {rounded(scores['valid'][metric])}  {rounded(scores['test'][metric])}  {name}")
    typer.echo(f"weights are {'equal' if equal else 'chosen on validation'}; wrote {out}")


def _runs(number: int) -> str:
    return f" (mean of {count(number, 'run')})" if number > 1 else ""
