"""What the machine can do, measured on the spot: copy bandwidth by size, and multiply-adds per second.

All are torch's own routines (``copy_`` into memory that exists, ``clone``, ``mm``), the best that a user of torch can
see. Bandwidth counts bytes read plus bytes written.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch

from .problems import Problem

REFERENCE_BYTES = 64 << 20
_SMALLEST = 1 << 16
_SECONDS = 0.05


def _best(call: Any, work: float) -> float:
    """Largest ``work`` per second over about ``_SECONDS``."""
    call()
    call()
    best, stop = float("inf"), time.perf_counter() + _SECONDS
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > stop:
            return work / best


def _threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


@cache
def copy_bandwidth(threads: int, size: int = REFERENCE_BYTES) -> float:
    """Bytes per second, read and written, of copying ``size`` bytes."""
    _threads(threads)
    source = torch.ones(size, dtype=torch.uint8).view(torch.float32)
    target = torch.zeros_like(source)
    return _best(lambda: target.copy_(source), 2 * size)


@cache
def clone_bandwidth(threads: int, size: int = REFERENCE_BYTES) -> float:
    """Bytes per second, read and written, of copying ``size`` bytes into memory that is allocated for it.

    This is what an operator can hope for that returns a new tensor: beyond 32 MiB the C library takes every block
    from the system, which clears each page at its first touch.
    """
    _threads(threads)
    source = torch.ones(size, dtype=torch.uint8).view(torch.float32)
    return _best(source.clone, 2 * size)


@cache
def peak(threads: int, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a square matrix product in ``dtype``."""
    _threads(threads)
    n = 1024
    a, b = torch.ones(n, n, dtype=dtype), torch.ones(n, n, dtype=dtype)
    out = torch.empty(n, n, dtype=dtype)
    return _best(lambda: torch.mm(a, b, out=out), 2 * n**3)


def copy_size(moved: int) -> int:
    """The power of two at which copying moves about ``moved`` bytes, at most the reference size."""
    size = _SMALLEST
    while size * 2 < moved and size < REFERENCE_BYTES:
        size *= 2
    return size


def roof(problem: Problem, threads: int) -> dict[str, Any]:
    """The bound of a problem: seconds for its arithmetic at peak, or for its bytes at copy bandwidth at its scale.

    Half types sum in f32, so their arithmetic is held against the f32 peak.
    """
    dtype = torch.float64 if problem.dtype == torch.float64 else torch.float32
    size = copy_size(problem.bytes)
    flops, bandwidth = peak(threads, dtype), copy_bandwidth(threads, size)
    compute, memory = 2 * problem.macs / flops, problem.bytes / bandwidth
    return {
        "bound": "compute" if compute > memory else "memory",
        "seconds": max(compute, memory),
        "peak": flops,
        "bandwidth": bandwidth,
        "clone_bandwidth": clone_bandwidth(threads, size),
    }


def machine(settings: tuple[int, ...]) -> list[dict[str, Any]]:
    """The reference rates for each number of threads."""
    return [
        {
            "threads": threads,
            "copy": copy_bandwidth(threads),
            "clone": clone_bandwidth(threads),
            "copy_bytes": REFERENCE_BYTES,
            "peak_f32": peak(threads, torch.float32),
            "peak_f64": peak(threads, torch.float64),
        }
        for threads in settings
    ]
