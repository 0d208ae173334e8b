"""Speed of the operator, layers, line graphs, deep DAGs and training: ``python benchmarks/speed.py --help``.

Nothing is timed before its output and all gradients agree with the ``reference`` backend, entry by entry.
"""

import argparse
import sys

import records
import torch
from bench import DTYPES, Bench
from graphs import load_sets
from groups import GROUPS

from plstm_graph.ops import BACKENDS


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", default="all", choices=[*GROUPS, "all"])
    where = parser.add_argument_group("graphs (without either, random ones)")
    where.add_argument("--root", help="folder with ogb/ogbg_molhiv and dag_EPFL_aig")
    where.add_argument("--molecules-file", help="what carry.py wrote: the same, and peptides")
    how = parser.add_argument_group("how to measure")
    how.add_argument("--device", default="cpu")
    how.add_argument("--threads", type=int, default=torch.get_num_threads())
    how.add_argument("--rounds", type=int, default=30, help="timed calls of each row")
    how.add_argument("--seconds", type=float, default=20.0, help="stop a comparison after this long")
    how.add_argument("--patience", type=float, default=10.0, help="leave out what takes more seconds a call")
    how.add_argument("--backends", nargs="+", choices=BACKENDS, help="only these")
    how.add_argument("--dtypes", nargs="+", choices=DTYPES, help="only these")
    how.add_argument("--epochs", type=int, default=3, help="timed epochs")
    how.add_argument("--workers", type=int, default=8, help="of the DataLoader that an epoch is compared with")
    how.add_argument("--compiled", action="store_true", help="layers, blocks and epochs also after torch.compile")
    size = parser.add_argument_group("what to measure on; 0 leaves out")
    size.add_argument("--molecules", type=int, nargs="+", default=[64, 512, 4096], help="batches of the operator")
    size.add_argument("--mixed", type=int, default=4096, help="molecules as they come, whatever their size")
    size.add_argument("--large", type=int, default=128, help="molecules of about 150 atoms")
    size.add_argument("--peptides", type=int, default=256, help="peptides as they come")
    size.add_argument("--layer-molecules", type=int, nargs="+", help="default: 64 512, on a GPU 4096, too")
    size.add_argument("--step-molecules", type=int, nargs="+", default=[512], help="batches of a training step")
    size.add_argument("--epoch-molecules", type=int, default=10**9, help="at most so many of the training split")
    size.add_argument("--line-dag-molecules", type=int, default=128)
    size.add_argument("--all-molecules", type=int, default=10**9, help="at most so many in a pass over all")
    size.add_argument("--circuits", nargs="+", help="only these")
    size.add_argument("--check-gates", type=int, default=1000, help="gates to check on; 0: all (10 minutes for div)")
    size.add_argument("--edges", type=int, nargs="+", help="of random DAGs; default: 100000, on a GPU 1000000, too")
    rows = parser.add_argument_group("rows")
    rows.add_argument("--out", default=str(records.RESULTS / "speed.jsonl"))
    rows.add_argument(
        "--continue", dest="go_on", action="store_true", help="grids and chains: only what has no row yet"
    )
    rows.add_argument("--no-record", action="store_true", help="print only")
    rows.add_argument("--commit", help="of these files, where git cannot tell")
    return parser.parse_args(arguments)


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Run some groups or all."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    fallback = 1000 + 2 * max(*options.molecules, options.mixed)
    bench = Bench(options, load_sets(options.root, options.molecules_file, fallback))
    for name in GROUPS if "all" in options.groups else options.groups:
        print(f"{name} on {records.machine(options.device)}")
        torch.manual_seed(0)
        GROUPS[name](bench)
    return 0


if __name__ == "__main__":
    sys.exit(main())
