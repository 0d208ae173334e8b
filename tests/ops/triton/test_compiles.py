"""The interpreter runs much that a compiler refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_every_kernel_compiles_for_the_oldest_gpu():
    """Within its shared memory. A process of its own, since here kernels are interpreted; Triton keeps what it compiled
    by its sources, so that only what changed on this machine is compiled."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("compile_kernels.py")
    found = subprocess.run([sys.executable, script, "80"], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    kernels, _ = map(int, found.stdout.split())
    assert kernels > 50
