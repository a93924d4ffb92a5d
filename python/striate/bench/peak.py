"""What a call adds to the peak memory of this process, or of the device."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def _resident(field: str) -> int:
    """A size that Linux keeps of this process, in bytes."""
    found = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def settle() -> None:
    """Give back to the system what nothing uses."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def added(call: Callable[[], Any], device: str = "cpu") -> int | None:
    """Bytes beyond what was there before, result included; None where the system does not tell."""
    call()  # what is loaded once is not the call's
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    settle()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what is resident now
        before = _resident("VmRSS")
        kept = call()
        after = _resident("VmHWM")
    except OSError:
        return None
    del kept
    return max(0, after - before)
