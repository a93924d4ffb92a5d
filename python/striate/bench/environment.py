"""The machine and the software a measurement was taken with."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import striate

from .. import _core
from ._cuda import cuda_status

_TELLING = ("OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "STRIATE_", "MALLOC_", "LD_PRELOAD")


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def onednn_version() -> str:
    """The version of oneDNN inside torch."""
    found = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    return found[1] if found else "unknown"


def commit() -> str | None:
    """Commit of the checkout that this package or the current folder belongs to, ``+`` if files were changed."""
    for folder in (Path(__file__).parent, Path.cwd()):
        try:
            head = _git(folder, "rev-parse", "--short=12", "HEAD")
            ours = _git(folder, "ls-files", "--error-unmatch", ":/rust/core/Cargo.toml")
            changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        except (OSError, subprocess.SubprocessError):
            continue
        if ours:
            return head + ("+" if changed else "")
    return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float | None:
    """Processes that wanted to run in the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def others() -> float | None:
    """Other processes running at this moment: median of a few looks."""
    looks = []
    for _ in range(9):
        try:
            running = Path("/proc/loadavg").read_text().split()[3].split("/")[0]
        except (OSError, IndexError):
            return None
        looks.append(int(running) - 1)
        time.sleep(0.03)
    return statistics.median(looks)


def cache_sizes() -> dict[str, int]:
    """Bytes of each data cache that the first processor sees, by level; empty where the system does not tell."""
    found: dict[str, int] = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size[:-1].isdecimal():
            found[f"L{level}"] = int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}.get(size[-1], 1)
    return found


def last_cache() -> int:
    """Bytes of the last cache; 32 MiB where the system does not tell."""
    return max(cache_sizes().values(), default=32 << 20)


def _number(path: str, name: str = "") -> int | None:
    """A number that stands in a file alone, or behind a name; None if it does not."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    found = re.search(rf"^{name}\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def counters() -> dict[str, int]:
    """Counters that grow when something takes the processor away or slows it down; what the system tells of them."""
    thermal = "/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    found = {
        "thermal_throttles": _number(thermal),
        "cgroup_throttled_us": _number("/sys/fs/cgroup/cpu.stat", "throttled_usec"),
        "stolen_ticks": _stolen(),
    }
    return {name: value for name, value in found.items() if value is not None}


def _stolen() -> int | None:
    """Ticks that the hypervisor gave to others."""
    try:
        words = Path("/proc/stat").read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    return int(words[8]) if len(words) > 8 else None


def governor() -> str | None:
    """The governor of the processor's clock."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None


def busy(running: float | None) -> bool:
    """Whether so many other processes would be felt."""
    return running is not None and 2 * running >= cores()


def environment() -> dict[str, Any]:
    """Versions, processor, threads and whatever variables change how fast things run."""
    running = others()
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "striate": striate.__version__,
        "commit": commit(),
        "torch": torch.__version__,
        "onednn": onednn_version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(),
        "features": _core.cpu_features(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "route": striate._route,
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_TELLING)},
        "load": load_average(),
        "others": running,
        "busy": busy(running),
        "governor": governor(),
        "caches": cache_sizes(),
        "flags": {
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
            "float32_matmul": torch.get_float32_matmul_precision(),
        },
        "cuda": cuda_status(),
    }
