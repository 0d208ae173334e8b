"""How fuzz tests run: how many cases, what a case may do, and how long it may take."""

import functools
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from plstm_graph.errors import PLSTMGraphError

SUITE = 200
CASES = int(os.environ.get("FUZZ_CASES", SUITE))
"""All fuzz tests together run about so many cases; each has a share."""
COUNTS = os.environ.get("FUZZ_COUNTS")
"""A file for the number of cases that ran, by test."""
LONGEST = 120  # seconds of a case, on a crowded machine

counts: Counter[str] = Counter()


def fuzz(share: float, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Runs a test on its share of the cases: always the same ones in the suite, others each time when there are more.

    A case that raises anything but what the test expects, or that does not end, is a failure.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def case(*args: Any, **drawn: Any) -> None:
            counts[test.__name__] += 1
            with ends():
                test(*args, **drawn)

        return settings(
            max_examples=max(1, round(share * CASES)),
            deadline=None,
            derandomize=CASES == SUITE,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )(given(**strategies)(case))

    return decorate


@contextmanager
def ends() -> Iterator[None]:
    """Fails where the work does not end in time."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"still running after {LONGEST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def told() -> Iterator[None]:
    """Around what may be refused: with an error of ours, on one line that says something."""
    try:
        yield
    except PLSTMGraphError as error:
        text = str(error)
        assert len(text) > 10, repr(text)
        assert text.isprintable() or "\n" not in text, repr(text)


def write_counts() -> None:
    if COUNTS:
        with Path(COUNTS).open("a") as stream:  # a line from each process of pytest-xdist
            stream.write(json.dumps(counts) + "\n")
