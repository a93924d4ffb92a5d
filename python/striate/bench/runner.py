"""The campaign: verify a row, then time it against its rivals, problem by problem, grouped by number of threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import _core
from .child import Child, Remote
from .contenders import DEFAULT, rival, rivals, striate
from .operands import Operands, make_operands
from .problems import Entry, Problem
from .roofline import roof
from .timing import Contender, Local, Timing, race
from .verify import verify

LEAST_BUDGET, MOST_BUDGET = 0.02, 3.0


@dataclass(frozen=True)
class Settings:
    """What to measure: entries, passes of each, numbers of threads, kinds of rivals.

    ``seconds`` is what the whole may take, shared among the cases that are left; ``limit`` is how long a baseline
    that may never return is waited for.
    """

    entries: tuple[Entry, ...]
    passes: tuple[str, ...]
    threads: tuple[int, ...]
    vs: tuple[str, ...]
    seconds: float
    limit: float


def cases(settings: Settings) -> int:
    """Number of records that ``measure`` yields."""
    return len(settings.entries) * len(settings.passes) * len(settings.threads)


def measure(settings: Settings) -> Iterator[dict[str, Any]]:
    """One record per problem, pass and number of threads, in the order in which they are measured."""
    child, before = Child(settings.limit), torch.get_num_threads()
    deadline, left = time.monotonic() + settings.seconds, cases(settings)
    faults: dict[Problem, str] = {}
    try:
        for threads in settings.threads:
            torch.set_num_threads(threads)
            for entry in settings.entries:
                made = make_operands(entry.problem)
                for pass_ in settings.passes:
                    operands = replace(made, problem=entry.problem.of(pass_))
                    if operands.problem not in faults:
                        faults[operands.problem] = verify(operands, settings.threads)
                    budget = min(MOST_BUDGET, max(LEAST_BUDGET, (deadline - time.monotonic()) / left))
                    fault, left = faults[operands.problem], left - 1
                    timings = {} if fault else _race(operands, threads, settings.vs, (child, budget))
                    yield record(entry, operands.problem, threads, fault, timings)
    finally:
        child.close()
        torch.set_num_threads(before)


def _race(
    operands: Operands, threads: int, vs: tuple[str, ...], means: tuple[Child, float]
) -> dict[str, Timing]:
    (child, budget), problem = means, operands.problem
    contenders: dict[str, Contender] = {"striate": Local(striate(operands))}
    for name in rivals(problem, vs):
        if problem.dtype.itemsize < 4:
            contenders[name] = Remote(child, str(problem), name, threads)
        else:
            contenders[name] = Local(rival(name, operands))
    return race(contenders, budget)


def record(
    entry: Entry, problem: Problem, threads: int, fault: str, timings: dict[str, Timing]
) -> dict[str, Any]:
    """What is kept of a case; times in seconds, rates per second."""
    line = str(problem)
    result: dict[str, Any] = {
        "kind": "case",
        "family": entry.family,
        "label": entry.label,
        "problem": line,
        "short": problem.short,
        "pass": problem.pass_,
        "dtype": line.split()[2],
        "threads": threads,
        "row": _core.explain(line)["row"],
        "fault": fault,
        "macs": problem.macs,
        "bytes": problem.bytes,
        "times": {name: timing.record() for name, timing in timings.items()},
    }
    ours = timings.get("striate")
    if ours is None or ours.fault:
        result["fault"] = fault or (ours.fault if ours else "")
        return result
    seconds, bound = ours.median, roof(problem, threads)
    others = {n: t.median for n, t in timings.items() if n != "striate" and not t.fault}
    best = min(others, key=others.__getitem__, default=None)
    result |= {
        "best": best,
        "ratio_default": others[DEFAULT] / seconds if DEFAULT in others else None,
        "ratio_best": others[best] / seconds if best else None,
        "gflops": 2e-9 * problem.macs / seconds,
        "gbps": 1e-9 * problem.bytes / seconds,
        "roof": bound | {"share": bound["seconds"] / seconds},
    }
    return result
