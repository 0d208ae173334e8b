"""Import much at once without looking for garbage in it."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 500
"""Modules from which on it is worthwhile."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Around imports: nobody looks for garbage among them, now or later, as all of it stays.

    To look takes a fifth of the time that the imports of a training take. Where few modules are new, what there is
    beside them may be garbage one day, and is looked at as ever.
    """
    collects, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) - before >= MANY:
            gc.freeze()
            atexit.register(gc.unfreeze)  # extension modules complain of what is never given back
        if collects:
            gc.enable()
