"""What striate has set itself to reach, and whether a run reached it.

A goal names a case of ``problems/goals.txt`` by its remark. Ratios are the time of torch over the time of striate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

ALL = ("fwd", "dx", "dw")
GRADIENTS = ("dx", "dw")


@dataclass(frozen=True)
class Goal:
    """At least ``least`` of a measure, for each pass named and each number of threads (or for one of them)."""

    case: str
    passes: tuple[str, ...]
    measure: str
    least: float
    threads: int | None = None


# measure: default, best = ratio to torch's default and best path; gflops; copy = share of copy bandwidth at the
# problem's scale; own_f32 = ratio of our own f32 time to ours in this dtype.
GOALS = (
    Goal("dw7", ("dw",), "default", 25),
    Goal("dw7", ("dw",), "torch.channels_last", 7),
    Goal("dw7", ("dw",), "gflops", 75, threads=1),
    Goal("dw7", ("fwd", "dx"), "default", 1.4),
    Goal("dw7 last", ("fwd", "dx"), "default", 0.95),
    Goal("dw31", ("fwd",), "default", 40),
    Goal("dw31", ("fwd",), "torch.channels_last", 0.8),
    Goal("dw31", ("dw",), "default", 70),
    Goal("strip 5x51", ("fwd",), "default", 40),
    Goal("strip 51x5", ("dw",), "default", 20),
    Goal("strip 5x51", ("dw",), "default", 20),
    Goal("dw3 s1", ALL, "best", 1),
    Goal("dw3 s1", ALL, "copy", 0.75, threads=1),
    Goal("dw3 s2", ALL, "best", 1),
    Goal("dw3 s2", ALL, "copy", 0.75, threads=1),
    Goal("dw7 d3", ALL, "default", 10),
    Goal("k31", ("fwd",), "default", 15),
    Goal("k31", ("dw",), "default", 20),
    Goal("k127", ("fwd",), "default", 35),
    Goal("k127", ("fwd",), "gflops", 130, threads=1),
    Goal("k1023", ("fwd",), "default", 45),
    Goal("k1023", ("fwd",), "gflops", 130, threads=1),
    Goal("causal k4", ("fwd",), "copy", 0.75),
    Goal("causal k4", ("dw",), "default", 10),
    Goal("3^3", GRADIENTS, "default", 15),
    Goal("7^3", GRADIENTS, "default", 15),
    Goal("dw7 bf16", ALL, "own_f32", 1),
    Goal("dw7 bf16", ALL, "default", 1),
    Goal("dw7 f16", ALL, "own_f32", 1),
)
# Seconds per call, at most.
OVERHEAD = {"no grad": 2.5e-6, "grad forward": 9e-6}

_WORDS = {"default": "x torch", "best": "x best torch", "gflops": "GFLOP/s", "copy": "of copy bandwidth"}
_WORDS |= {"own_f32": "x our own f32", "torch.channels_last": "x channels_last torch"}


def _measured(goal: Goal, case: dict[str, Any], cases: Iterable[dict[str, Any]]) -> float | None:
    """The goal's measure in a case; None if it was not measured."""
    if case["fault"]:
        return None
    ours = case["times"]["striate"]["median"]
    if goal.measure in ("default", "best"):
        ratio: float | None = case[f"ratio_{goal.measure}"]
        return ratio
    if goal.measure == "gflops":
        return float(case["gflops"])
    if goal.measure == "copy":
        return float(1e9 * case["gbps"] / case["roof"]["bandwidth"])
    if goal.measure == "own_f32":
        key = (goal.case.split()[0], case["pass"], case["threads"])
        for other in cases:
            if (other["label"], other["pass"], other["threads"]) == key and not other["fault"]:
                return float(other["times"]["striate"]["median"] / ours)
        return None
    rival = case["times"].get(goal.measure, {"fault": "not measured"})
    return None if "fault" in rival else float(rival["median"] / ours)


def verdicts(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One ``goal`` record per goal, pass and number of threads that the records speak of."""
    records = list(records)
    cases = [r for r in records if r["kind"] == "case" and r["family"] == "goals"]
    for goal in GOALS:
        for case in cases:
            wanted = goal.case == case["label"] and case["pass"] in goal.passes
            if not wanted or goal.threads not in (None, case["threads"]):
                continue
            yield _verdict(goal, case, _measured(goal, case, cases))
    for record in records:
        if record["kind"] == "overhead" and record["mode"] in OVERHEAD:
            limit, seconds = OVERHEAD[record["mode"]], record["times"]["striate"]["median"]
            yield {
                "kind": "goal",
                "case": f"call overhead, {record['mode']}",
                "pass": "",
                "threads": record["threads"],
                "goal": f"<= {limit * 1e6:g} us",
                "measured": seconds * 1e6,
                "verdict": "reached" if seconds <= limit else "missed",
                "note": "",
            }


def _verdict(goal: Goal, case: dict[str, Any], measured: float | None) -> dict[str, Any]:
    """A goal that the roofline forbids is answered with the roofline."""
    if measured is None:
        verdict, note = "not measured", case["fault"] or "the baseline has no time"
        faults = [t["fault"] for n, t in case["times"].items() if "fault" in t and n != "striate"]
        note = faults[0] if faults and not case["fault"] else note
    else:
        reached = measured >= goal.least
        roof = case["roof"]
        possible = measured / roof["share"]
        forbidden = not reached and goal.measure != "own_f32" and possible < goal.least
        verdict = "reached" if reached else "beyond the roofline" if forbidden else "missed"
        note = f"{roof['bound']} roof {possible:.3g}" if not reached else ""
        if goal.measure == "copy":
            new = roof["clone_bandwidth"] / roof["bandwidth"]
            note = f"a copy into new memory, as ours is: {new:.2g}"
    return {
        "kind": "goal",
        "case": f"{case['short']} {case['dtype']}",
        "pass": case["pass"],
        "threads": case["threads"],
        "goal": f">= {goal.least:g} {_WORDS[goal.measure]}",
        "measured": measured,
        "verdict": verdict,
        "note": note,
    }
