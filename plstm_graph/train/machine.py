"""The hardware of a run, as a reader would buy it."""

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores this process may use, torch threads and the device of the tensors."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {"cpu": _cpu(), "cores": cores(), "threads": torch.get_num_threads(), "device": name}


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_a_line(metrics: Mapping[str, Any]) -> str:
    """The hardware of a run in a line, of what its ``metrics.json`` knows."""
    found = metrics.get("machine")
    if not found:
        return f"{metrics.get('device', 'unknown')} (an earlier version: not recorded)"
    cpu = f"{found['cpu']}, {found['cores']} cores"
    if metrics.get("device") == "cpu":
        return f"{cpu}, no GPU"
    return f"{found.get('devices', 1)} × {found['device']} ({cpu})"


@lru_cache(maxsize=1)
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
