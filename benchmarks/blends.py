r"""Blend finished runs once for each seed: ``python benchmarks/blends.py NAME MEMBER... --out FOLDER``.

A member is a folder, or a pattern of folders, in which ``{seed}`` stands for the seed; without it, it is the same for
all. The blends go to ``FOLDER/seed-S``, from where they can be members themselves, and a row for each to
``results/blends.jsonl``. Seeds that have one are left out::

    python benchmarks/blends.py "twelve forests" 'runs/forests/*/seed-{seed}' --equal --out runs/blends/forests
    python benchmarks/blends.py "twelve forests, ten networks" 'runs/blends/forests/seed-{seed}' runs/molhiv \
        --out runs/blends/all
"""

import argparse
import sys
from glob import glob
from pathlib import Path
from typing import Any

import records

from plstm_graph.errors import ConfigError
from plstm_graph.train import blend
from plstm_graph.train.folders import numbers

FILE = "blends.jsonl"


def members(patterns: list[str], seed: int) -> list[str]:
    """Folders of one seed, in order.

    Raises:
        ConfigError: a pattern that no folder fits.
    """
    found = []
    for pattern in patterns:
        fits = sorted(glob(pattern.replace("{seed}", str(seed))))
        if not fits:
            raise ConfigError(f"no folder fits {pattern!r} for seed {seed}")
        found += fits
    return found


def row_of(name: str, seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a blend: its scores, those of equal weights (``mean``), and its members with theirs."""
    kept = {key: found[key] for key in ("data", "data_hash", "metric", "valid", "test", "mean", "members")}
    return {"blend": name, "seed": seed, **kept}


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Blends what is missing and prints the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the row in the table")
    parser.add_argument("members", nargs="+", metavar="MEMBER", help="folder or pattern; {seed} stands for the seed")
    parser.add_argument("--out", type=Path, required=True, help="folder for the blends")
    parser.add_argument("--seeds", default="0-9", help="as 0-9 or 0,2,5")
    parser.add_argument("--equal", action="store_true", help="the same weight for all; else chosen on validation")
    parser.add_argument("--values", action="store_true", help="join values, not ranks")
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder for the rows")
    parser.add_argument("--commit", help="of these files, where git cannot tell")
    options = parser.parse_args(arguments)
    done = {row["seed"] for row in records.read(options.results / FILE) if row["blend"] == options.name}
    for seed in [seed for seed in numbers(options.seeds) if seed not in done]:
        folders, out = members(options.members, seed), options.out / f"seed-{seed}"
        row = row_of(options.name, seed, blend(folders, out, ranks=not options.values, equal=options.equal))
        records.append(options.results / FILE, row | records.provenance("cpu", options.commit))
        metric = row["metric"]
        print(f"seed {seed}: valid {row['valid'][metric]:.4f} test {row['test'][metric]:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
