"""When this process began, which the interpreter does not tell."""

import os
import time
from contextlib import suppress
from pathlib import Path


def process_age() -> float:
    """Seconds since this process began, to a hundredth: before the interpreter was there. 0 where no system tells."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # field 22, after the name
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    return 0.0
