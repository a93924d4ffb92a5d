"""How much faster, and how sure: intervals of the ratio of two medians, from rounds in which both took their turns.

Within one record, striate and a rival were timed in turns, so the ratio of a round does not know how fast the machine
was just then. Two records are compared by those ratios. Intervals are percentile bootstraps of the median of
logarithms, from a fixed seed, so that the same records give the same verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
LEAST_ROUNDS = 5
_RESAMPLES = 2000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """A ratio of times, new over old, with its interval; without one where the rounds are too few."""

    ratio: float
    low: float | None
    high: float | None
    note: str = ""

    def verdict(self, tolerance: float) -> str:
        """FASTER or SLOWER if the whole interval lies beyond the tolerance, SAME if within, UNSURE if it straddles."""
        if self.low is None or self.high is None:
            return "UNSURE"
        edge = 1 + tolerance
        if self.high < 1 / edge:
            return "FASTER"
        if self.low > edge:
            return "SLOWER"
        return "SAME" if self.low >= 1 / edge and self.high <= edge else "UNSURE"


def logarithms(ours: dict[str, Any], rival: dict[str, Any] | None) -> Floats | None:
    """Logarithms of the rounds, over those of the rival in the same rounds; None if the record has no rounds."""
    if "samples" not in ours or (rival is not None and "samples" not in rival):
        return None
    logs = np.log(np.asarray(ours["samples"], dtype=np.float64))
    if rival is None:
        return logs
    theirs = np.log(np.asarray(rival["samples"], dtype=np.float64))
    rounds = min(len(logs), len(theirs))
    return logs[:rounds] - theirs[:rounds]


def _medians(logs: Floats, generator: np.random.Generator) -> Floats:
    drawn = generator.integers(0, len(logs), (_RESAMPLES, len(logs)))
    medians: Floats = np.median(logs[drawn], axis=1)
    return medians


def from_rounds(new: Floats, old: Floats | None) -> Change:
    """The change between two sets of rounds, or from 1 if there is no old one."""
    middle = float(np.median(new)) - (0.0 if old is None else float(np.median(old)))
    rounds = len(new) if old is None else min(len(new), len(old))
    if rounds < LEAST_ROUNDS:
        return Change(math.exp(middle), None, None, f"{rounds} round{'s' * (rounds != 1)}: too few")
    generator = np.random.default_rng(0)
    spread = _medians(new, generator) - (0.0 if old is None else _medians(old, generator))
    low, high = np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Change(math.exp(middle), math.exp(low), math.exp(high))


def from_quartiles(times: list[tuple[dict[str, Any], int]]) -> Change:
    """The change from (time, +1 or -1) pairs of a record without rounds: normal errors from the quartiles."""
    middle = sum(sign * math.log(time["median"]) for time, sign in times)
    few = any(time.get("rounds", 0) < LEAST_ROUNDS for time, _ in times)
    if few or any("iqr" not in time for time, _ in times):
        return Change(math.exp(middle), None, None, "too few rounds")
    # The error of a median is 1.25 sigma / sqrt(n), and sigma is the distance of the quartiles over 1.35.
    errors = [0.93 * t["iqr"] / t["median"] / math.sqrt(t["rounds"]) for t, _ in times]
    half = 1.96 * math.hypot(*errors)
    return Change(math.exp(middle), math.exp(middle - half), math.exp(middle + half), "from quartiles")
