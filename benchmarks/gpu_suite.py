"""Run the tests of operator and layers on this machine's GPU and record how many pass.

``python benchmarks/gpu_suite.py [--commit SHA] [PATHS and options of pytest]``; by default tests/ops, tests/nn and
tests/grid. What was run until SIGTERM (``timeout 200 python ...``) is recorded, too, as a run that did not end.
"""

import argparse
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import records
import torch

PATHS = ("tests/ops", "tests/nn", "tests/grid")


class Counts:
    """A plugin that counts what tests came to."""

    def __init__(self) -> None:
        self.by_test: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has passed if its call did and nothing went wrong before or after. Failures are told at once."""
        if report.failed or (report.when == "call" and report.passed) or report.skipped:
            worst = self.by_test.get(report.nodeid) == "failed"
            self.by_test[report.nodeid] = "failed" if worst else report.outcome
        if report.failed:
            print(f"\nFAILED {report.nodeid}: {report.longreprtext.strip().splitlines()[-1]}", flush=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read fails as a whole; one may also skip itself."""
        if report.outcome != "passed":
            self.by_test[report.nodeid] = report.outcome

    def total(self) -> dict[str, int]:
        """How many passed, failed and were skipped."""
        count = Counter(self.by_test.values())
        return {name: count[name] for name in ("passed", "failed", "skipped")}


def main(arguments: list[str] | None = None) -> int:
    """Run, record, and return pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=records.RESULTS / "gpu_suite.jsonl")
    parser.add_argument("--commit", help="of these files, where git cannot tell")
    parser.add_argument("--no-gpu", action="store_true", help="record a machine without a GPU, too")
    options, words = parser.parse_known_args(arguments)
    if not torch.cuda.is_available() and not options.no_gpu:
        print("error: there is no GPU here; nothing was run", file=sys.stderr)
        return 1
    counts, begin = Counts(), time.perf_counter()
    named = any(Path(word.partition("::")[0]).exists() for word in words)
    paths = [] if named else [str(records.ROOT / path) for path in PATHS]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # pytest ends as after Ctrl-C
    # Tests that fill the memory are of one group, which one worker runs.
    code = int(pytest.main(["--dist", "loadgroup", *words, *paths], plugins=[counts]))
    found: dict[str, Any] = {**counts.total(), "seconds": round(time.perf_counter() - begin, 1), "exit": code}
    found |= {"note": "stopped before its end"} if code == pytest.ExitCode.INTERRUPTED else {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    records.append(options.out, found | records.provenance(device, options.commit))
    print(", ".join(f"{count} {name}" for name, count in counts.total().items()))
    return code


if __name__ == "__main__":
    sys.exit(main())
