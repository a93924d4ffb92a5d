"""Torch's contenders in a process of their own, for baselines that may never return.

On machines with AMX, torch's half-precision convolutions with large kernels can hang inside oneDNN. The child
speaks one JSON object per line: ``{"problem", "contender", "threads", "copies", "calls", "together"}`` is answered by
``{"seconds": [...]}`` or ``{"error": text}``.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any

START_SECONDS = 120.0


class Child:
    """The parent's end; started at the first request and again after it had to be killed."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._process: subprocess.Popen[str] | None = None
        self._pump: threading.Thread | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._lost: dict[tuple[str, str], str] = {}

    def ask(self, request: dict[str, Any]) -> list[float]:
        """Seconds of the calls; TimeoutError once a call has not come back within the limit.

        A contender that was lost is not tried again, whatever the number of threads.
        """
        key = (request["problem"], request["contender"])
        if key in self._lost:
            raise TimeoutError(self._lost[key])
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = self._read(self.limit)
        except TimeoutError:
            self._lost[key] = f"> {self.limit:g} s"
        except OSError:
            self._lost[key] = "did not return: its process ended"
        if key in self._lost:
            self.close()
            raise TimeoutError(self._lost[key])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"]

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._process, self._answers = process, queue.Queue()
        assert process.stdout is not None
        self._pump = threading.Thread(target=_pump, args=(process.stdout, self._answers), daemon=True)
        self._pump.start()
        self._read(START_SECONDS)
        return process

    def _read(self, limit: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError from None
        if not line:
            raise ConnectionError("the child process has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._pump is not None:
                self._pump.join()
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):  # what it did not read is flushed, in vain
                self._process.stdin.close()
            self._process = None


def _pump(stream: IO[str], answers: queue.Queue[str]) -> None:
    with stream:
        for line in stream:
            answers.put(line)
    answers.put("")


class Remote:
    """A contender that runs in the child."""

    def __init__(self, child: Child, problem: str, contender: str, threads: int, copies: int = 1) -> None:
        self.child = child
        self.request = {"problem": problem, "contender": contender, "threads": threads, "copies": copies}

    def sample(self, calls: int, together: bool) -> list[float]:
        """Seconds of each call, or one mean of them if ``together``; TimeoutError when it does not come back."""
        return self.child.ask({**self.request, "calls": calls, "together": together})


def _serve(requests: Iterator[str]) -> Iterator[dict[str, Any]]:
    import torch

    from .contenders import rival
    from .operands import make_operands
    from .problems import Problem
    from .timing import Rotating, sample

    yield {"seconds": []}
    key, call = None, None
    for line in requests:
        request = json.loads(line)
        try:
            if torch.get_num_threads() != request["threads"]:
                torch.set_num_threads(request["threads"])
            if call is None or key != (request["problem"], request["contender"]):
                key = request["problem"], request["contender"]
                operands = make_operands(Problem.parse(key[0]))
                call = Rotating([rival(key[1], operands.copy()) for _ in range(request["copies"])])
            yield {"seconds": sample(call, request["calls"], request["together"])}
        except (RuntimeError, ValueError) as error:
            yield {"error": str(error)}


if __name__ == "__main__":
    for reply in _serve(sys.stdin):
        print(json.dumps(reply), flush=True)
