"""Interleaved timing: every round gives each contender a turn, so that a slow minute of the machine hits them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch

Call = Callable[[], Any]

# A turn repeats a call until about this much time has passed, so that a fast call is timed with warm caches.
TURN_SECONDS = 0.003
MOST_CALLS, MOST_ROUNDS = 25, 25
# Shorter calls than this are timed by the dozen, longer ones one by one.
SHORT_SECONDS = 50e-6
# Calls slower than this are measured fewer times: their ratio is not decided by a percent.
SLOW_SECONDS = 0.1


class Contender(Protocol):
    """Something whose calls can be timed, in this process or in another."""

    def sample(self, calls: int, together: bool) -> list[float]:
        """Seconds of each call, or one mean of them if ``together``; OSError when it does not come back."""
        ...


class Local:
    """A call in this process."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def sample(self, calls: int, together: bool) -> list[float]:
        """Seconds of each call, or one mean of them if ``together``."""
        return sample(self.call, calls, together)


class OnDevice:
    """A call whose work runs on a CUDA device: its seconds lie between two events of the device's own clock."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def sample(self, calls: int, together: bool) -> list[float]:
        """Seconds of each call, or one mean of them if ``together``."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2 if together else calls + 1)]
        torch.cuda.synchronize()
        events[0].record()
        for number in range(calls):
            self.call()
            if not together:
                events[number + 1].record()
        if together:
            events[1].record()
        torch.cuda.synchronize()
        share = calls if together else 1
        return [1e-3 * a.elapsed_time(b) / share for a, b in pairwise(events)]


class Rotating:
    """The same call on one set of tensors after another, so that none is in the caches when its turn comes."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls, self._next = calls, 0

    def __call__(self) -> Any:
        """The next of the calls."""
        self._next = (self._next + 1) % len(self._calls)
        return self._calls[self._next]()


def sample(call: Callable[[], Any], calls: int, together: bool) -> list[float]:
    """Seconds of each call, or one mean of them if ``together``. Results are dropped at once, as in a network."""
    clock = time.perf_counter
    if together:
        start = clock()
        for _ in range(calls):
            call()
        return [(clock() - start) / calls]
    seconds = []
    for _ in range(calls):
        start = clock()
        call()
        seconds.append(clock() - start)
    return seconds


@dataclass
class Timing:
    """Seconds per call: one median per round; ``first`` is the call that warmed up. ``fault`` replaces all."""

    rounds: list[float] = field(default_factory=list)
    first: float = 0.0
    calls: int = 0
    fault: str = ""

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        """The fastest round."""
        return min(self.rounds)

    def record(self) -> dict[str, Any]:
        """What the JSON lines keep, in seconds; ``samples`` are the rounds, in which all contenders took turns."""
        if self.fault:
            return {"fault": self.fault}
        low, _, high = statistics.quantiles(self.rounds, n=4) if len(self.rounds) > 1 else [self.median] * 3
        return {
            "median": self.median,
            "min": self.least,
            "iqr": high - low,
            "rounds": len(self.rounds),
            "calls": self.calls,
            "first": self.first,
            "samples": [float(f"{seconds:.4g}") for seconds in self.rounds],
        }


class _Turn:
    """One contender's part in a race."""

    def __init__(self, contender: Contender, budget: float) -> None:
        self.contender, self.budget, self.timing = contender, budget, Timing()
        self.spent = self.guess = 0.0
        self.done = False

    def warm_up(self) -> None:
        try:
            self.guess = self.timing.first = self.contender.sample(1, together=False)[0]
            if self.guess < SLOW_SECONDS:
                self.guess = min(self.contender.sample(2, together=False))
            elif self.guess > max(self.budget, 4 * SLOW_SECONDS):
                # Nothing that happens once takes a share of so long a call: it counts as a round.
                self.timing.rounds, self.timing.calls, self.done = [self.guess], 1, True
        except (OSError, RuntimeError, ValueError) as error:
            # The first line of what torch says: the rest is a stack of its own.
            self.timing.fault, self.done = str(error).splitlines()[0], True

    def take(self) -> None:
        calls = max(1, min(MOST_CALLS, int(TURN_SECONDS / max(self.guess, 1e-7))))
        try:
            seconds = self.contender.sample(calls, together=self.guess < SHORT_SECONDS)
        except OSError as error:
            self.timing.fault, self.done = str(error), True
            return
        self.timing.rounds.append(statistics.median(seconds))
        self.timing.calls += calls
        self.spent += calls * statistics.fmean(seconds)
        enough = 1 if self.guess > SLOW_SECONDS / 5 else 3
        rounds = len(self.timing.rounds)
        self.done = rounds >= MOST_ROUNDS or (rounds >= enough and self.spent >= self.budget)


def race(contenders: Mapping[str, Contender], budget: float) -> dict[str, Timing]:
    """Time contenders in turns A B C A B C ... within about ``budget`` seconds.

    Each may use an equal share; a contender too slow for its share still runs one
    to three rounds. One that fails or does not return has a ``fault`` instead of times.
    """
    turns = {name: _Turn(contender, budget / len(contenders)) for name, contender in contenders.items()}
    for turn in turns.values():
        turn.warm_up()
    while any(not turn.done for turn in turns.values()):
        for turn in turns.values():
            if not turn.done:
                turn.take()
    return {name: turn.timing for name, turn in turns.items()}
