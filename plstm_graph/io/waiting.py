"""Work that takes long says what it is and how far, to whoever watches; nobody does unless asked."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Watch = Callable[[str, int, int], None]
"""Called with what is done, how many parts are done and how many there are: none where nobody can tell."""
EVERY_S = 0.1

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Whatever is :func:`tracked` meanwhile goes to ``watch``."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def tracked(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, telling now and then how many are done; ``what`` as in ``reading 41,127 molecules``."""
    watch, total, said = _watch.get(), len(items), float("-inf")
    if watch is None or total < 2:
        yield from items
        return
    try:
        for done, item in enumerate(items):
            if time.monotonic() - said > EVERY_S:
                said = time.monotonic()
                watch(what, done, total)
            yield item
    finally:
        watch(what, total, total)


@contextmanager
def named(what: str) -> Iterator[None]:
    """Work of one piece, of which nobody can tell how far it is."""
    watch = _watch.get()
    if watch is None:
        yield
        return
    watch(what, 0, 0)
    try:
        yield
    finally:
        watch(what, 1, 1)
