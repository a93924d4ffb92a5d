"""The campaign: verify a row, then time it against its rivals, problem by problem, grouped by number of threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from . import peak
from .child import Child
from .contenders import DEFAULT
from .environment import last_cache
from .problems import Entry, Problem
from .roofline import roof
from .specs import Spec
from .timing import Timing, race
from .work import Work, contenders, dtype_word, is_rival, passes_of, works

LEAST_BUDGET, MOST_BUDGET = 0.02, 3.0
# Tensors of a case under cold buffers: this many times the last cache, but no more copies and bytes than that.
COLD_TIMES, MOST_COPIES, MOST_BYTES = 3, 32, 1 << 30


@dataclass(frozen=True)
class Settings:
    """What to measure: entries, passes (None: each line's own), numbers of threads, kinds of rivals.

    ``seconds`` is what the whole may take, shared among the cases that are left; ``limit`` is how long a baseline
    that may never return is waited for. ``cold`` rotates through tensors beyond the caches, ``memory`` also measures
    what a call adds to the peak.
    """

    entries: tuple[Entry, ...]
    passes: tuple[str, ...] | None
    threads: tuple[int, ...]
    vs: tuple[str, ...]
    seconds: float
    limit: float
    cold: bool = False
    memory: bool = False


def cases(settings: Settings) -> int:
    """Number of records that ``measure`` yields."""
    return sum(
        len(passes_of(entry, settings.passes))
        for number in range(len(settings.threads))
        for entry in settings.entries
        if _wanted(entry, number)
    )


def _wanted(entry: Entry, number: int) -> bool:
    """Threads mean nothing to a device: its cases are measured once."""
    return number == 0 or entry.problem.device == "cpu"


def measure(settings: Settings) -> Iterator[dict[str, Any]]:
    """One record per problem, pass and number of threads, in the order in which they are measured."""
    child, before = Child(settings.limit), torch.get_num_threads()
    deadline, left = time.monotonic() + settings.seconds, cases(settings)
    faults: dict[Problem | Spec, str] = {}
    try:
        for number, threads in enumerate(settings.threads):
            torch.set_num_threads(threads)
            for entry in settings.entries:
                if not _wanted(entry, number):
                    continue
                for work in works(entry, settings.passes):
                    if work.problem not in faults or isinstance(work.problem, Spec):
                        faults[work.problem] = work.verify(settings.threads)
                    budget = min(MOST_BUDGET, max(LEAST_BUDGET, (deadline - time.monotonic()) / left))
                    left -= 1
                    yield _case(work, faults[work.problem], settings, (child, budget))
    finally:
        child.close()
        torch.set_num_threads(before)


def copies(work: Work) -> int:
    """Sets of tensors that together are beyond the last cache."""
    each = max(1, work.bytes)
    return max(2, min(-(-COLD_TIMES * last_cache() // each), MOST_COPIES, MOST_BYTES // each))


def _case(work: Work, fault: str, settings: Settings, means: tuple[Child, float]) -> dict[str, Any]:
    (child, budget), threads = means, torch.get_num_threads()
    timings: dict[str, Timing] = {}
    if not fault:
        peak.settle()  # verifying may leave gigabytes to the allocator, and giving them back takes somebody a second
        taking_part = contenders(work, settings.vs, child, copies(work) if settings.cold else 1)
        timings = race(taking_part, budget)
    case = record(work, threads, fault, timings)
    case["buffers"] = "cold" if settings.cold else "warm"
    if settings.memory and not fault:
        case["peak_bytes"] = {
            name: peak.added(maker(), work.problem.device) for name, maker in work.calls(settings.vs).items()
        }
        if isinstance(work.problem, Problem):
            case["peak_bytes"]["im2col"] = work.problem.im2col  # what the unfolded input would take
    return case


def record(work: Work, threads: int, fault: str, timings: dict[str, Timing]) -> dict[str, Any]:
    """What is kept of a case; times in seconds, rates per second."""
    entry, problem = work.entry, work.problem
    result: dict[str, Any] = {
        "kind": "case",
        "family": entry.family,
        "label": entry.label,
        "problem": str(problem),
        "short": problem.short,
        "pass": problem.pass_,
        "dtype": dtype_word(problem),
        "device": problem.device,
        "threads": threads,
        "row": work.row,
        "fault": fault,
        "macs": work.macs,
        "bytes": work.bytes,
        "times": {name: timing.record() for name, timing in timings.items()},
    }
    ours = timings.get("striate")
    if ours is None or ours.fault:
        result["fault"] = fault or (ours.fault if ours else "")
        return result
    seconds, bound = ours.median, roof(work, threads)
    others = {n: t.median for n, t in timings.items() if is_rival(n) and not t.fault}
    best = min(others, key=others.__getitem__, default=None)
    default = DEFAULT if DEFAULT in timings else next((n for n in timings if is_rival(n)), None)
    result |= {
        "best": best,
        "ratio_default": others[default] / seconds if default in others else None,
        "ratio_best": others[best] / seconds if best else None,
        "gflops": 2e-9 * work.macs / seconds,
        "gbps": 1e-9 * work.bytes / seconds,
        "roof": bound | {"share": bound["seconds"] / seconds},
    }
    return result
