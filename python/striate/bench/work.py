"""One thing to be measured: what it is called, what it costs, how it is verified, and who takes part.

A convolution has exact operands and raw operators (``operands.py``, ``contenders.py``); every other family gives
functions and inputs (``families``). The campaign in ``runner.py`` sees no difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .. import _core
from .._listen import listening
from .._problem import DTYPE_WORDS
from .child import Child, Remote
from .contenders import rival, rivals, striate, torch_pass
from .families import OTHERS, Contest, make
from .operands import Operands, make_operands
from .problems import PASSES, STEP, Entry, Problem
from .specs import SPEC_PASSES, Spec
from .timing import Call, Contender, Local, OnDevice, Rotating
from .verify import same, verify


class Work(ABC):
    """What the campaign needs to know: where it comes from, and multiply-adds of the pass."""

    entry: Entry
    problem: Problem | Spec
    macs: int

    @property
    @abstractmethod
    def row(self) -> str:
        """The kernel rows that run."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes read and written at least."""

    @abstractmethod
    def verify(self, threads: tuple[int, ...]) -> str:
        """What is wrong with striate's result; empty if nothing."""

    @abstractmethod
    def calls(self, vs: tuple[str, ...]) -> dict[str, Callable[[], Call]]:
        """What makes each contender's call."""

    @abstractmethod
    def copy(self) -> Work:
        """The same on tensors of its own."""


class Convolution(Work):
    """A pass of a convolution."""

    def __init__(self, entry: Entry, operands: Operands) -> None:
        self.entry, self.operands = entry, operands
        self.problem: Problem = operands.problem
        self.macs = self.problem.macs

    @property
    def bytes(self) -> int:
        """Both operands read once and the result written once."""
        return self.problem.bytes

    @cached_property
    def row(self) -> str:
        """The kernel row, or ``torch`` on a device that striate has no kernel for."""
        passes = PASSES if self.problem.pass_ == STEP else (self.problem.pass_,)
        try:
            rows = [_core.explain(str(self.problem.of(pass_)))["row"] for pass_ in passes]
        except RuntimeError:
            return "torch"
        return "+".join(dict.fromkeys(rows))

    def _ours(self) -> Call:
        return torch_pass(self.operands) if self.row == "torch" else striate(self.operands)

    def verify(self, threads: tuple[int, ...]) -> str:
        """What is wrong with striate's result; empty if nothing."""
        return "" if self.row == "torch" else verify(self.operands, threads)

    def calls(self, vs: tuple[str, ...]) -> dict[str, Callable[[], Call]]:
        """What makes each contender's call."""
        makers: dict[str, Callable[[], Call]] = {"striate": self._ours}
        for name in rivals(self.problem, vs):
            makers[name] = lambda name=name: rival(name, self.operands)  # type: ignore[misc]
        return makers

    def copy(self) -> Convolution:
        """The same on tensors of its own."""
        return Convolution(self.entry, self.operands.copy())


class Calls(Work):
    """A line of another family."""

    def __init__(self, entry: Entry, spec: Spec) -> None:
        self.entry = entry
        self.problem: Spec = spec
        self.contest: Contest = make(spec)
        self.macs = self.contest.macs * (3 if spec.pass_ == "fwdbwd" else 1)
        self._rows: list[str] = []
        self._bytes = 0

    @property
    def row(self) -> str:
        """Every row that ran when the result was verified; ``layer`` if it was convolution passes inside a layer."""
        return "+".join(dict.fromkeys(self._rows)) or ("layer" if self.contest.layer else "torch")

    @property
    def bytes(self) -> int:
        """Bytes of inputs, parameters and results, and of what gradients read; known once it was verified."""
        return self._bytes

    def _call(self, function: Callable[..., Any], inputs: Sequence[Tensor] | None = None) -> Call:
        """The pass of a function of the inputs."""
        given = self.contest.inputs if inputs is None else tuple(inputs)
        if self.problem.pass_ == "fwd":

            def forward() -> Any:
                with torch.no_grad():
                    return function(*given)

            return forward
        leaves = [tensor.detach().requires_grad_() for tensor in given]
        wanted = [*leaves, *(function.parameters() if isinstance(function, nn.Module) else ())]
        kept: list[Tensor] = []

        def step() -> Any:
            y = function(*leaves)
            if not kept:  # drawn once, in the shape of the result
                generator = torch.Generator().manual_seed(1)
                kept.append(torch.randn(y.shape, generator=generator).to(y))
            return torch.autograd.grad(y, wanted, kept[0])

        return step

    def verify(self, threads: tuple[int, ...]) -> str:
        """What is wrong with striate's result; empty if nothing."""
        call, before, results = self._call(self.contest.calls["striate"]), torch.get_num_threads(), []
        with listening() as heard:
            try:
                for count in threads:
                    torch.set_num_threads(count)
                    # A stateful operator is asked once; what it would return next is another step.
                    results.append(_parts(call()))
                    if self.problem.op.endswith("update"):
                        break
            except (NotImplementedError, RuntimeError) as error:
                return str(error).splitlines()[0]
            finally:
                torch.set_num_threads(before)
        self._rows = [choice["row"] for choice in heard.choices]
        given = [tensor for tensor in self.contest.inputs if torch.is_floating_point(tensor)]
        function = self.contest.calls["striate"]
        weights = list(function.parameters()) if isinstance(function, nn.Module) else []
        passes = 2 if self.problem.pass_ == "fwdbwd" else 1
        self._bytes = passes * sum(t.nbytes for t in (*given, *weights)) + sum(t.nbytes for t in results[0])
        inputs = [tensor.double() for tensor in self.contest.inputs]
        exact = _parts(self._call(self.contest.reference, inputs)())
        for result in results if self.contest.layer else results[:1]:
            fault = _apart(result, exact, self.contest.limit)
            if fault:
                return fault
        if not self.contest.layer and not all(same(results[0], other) for other in results[1:]):
            return f"differs between {' and '.join(map(str, threads))} threads"
        return ""

    def calls(self, vs: tuple[str, ...]) -> dict[str, Callable[[], Call]]:
        """What makes each contender's call; a family's contenders always all take part."""
        return {
            name: lambda function=function: self._call(function)  # type: ignore[misc]
            for name, function in self.contest.calls.items()
        }

    def copy(self) -> Calls:
        """The same on tensors of its own."""
        twin = Calls(self.entry, self.problem)
        twin._rows, twin._bytes = self._rows, self._bytes
        return twin


def _parts(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _apart(results: Sequence[Tensor], exact: Sequence[Tensor], limit: float) -> str:
    """How results differ from those in float64 by more than the limit, in units of their largest element."""
    for number, (mine, wanted) in enumerate(zip(results, exact, strict=True)):
        if mine.shape != wanted.shape:
            return f"result {number} has shape {tuple(mine.shape)}, expected {tuple(wanted.shape)}"
        scale = float(wanted.detach().abs().max()) or 1.0
        error = float((mine.detach().double() - wanted.detach()).abs().max()) / scale
        if not error <= limit:  # not-a-number is wrong too
            return f"result {number} is {error:.2g} of its largest element from float64, allowed {limit:.2g}"
    return ""


def works(entry: Entry, passes: tuple[str, ...] | None) -> Iterator[Work]:
    """The works of an entry: the passes that were asked for, or all of a convolution and a spec's own."""
    problem = entry.problem
    if isinstance(problem, Spec):
        chosen = [problem.pass_] if passes is None else [p for p in SPEC_PASSES if p in passes]
        for pass_ in chosen:
            yield Calls(entry, problem.of(pass_))
        return
    operands = make_operands(problem)
    for pass_ in passes_of(entry, passes):
        yield Convolution(entry, replace(operands, problem=problem.of(pass_)))


def passes_of(entry: Entry, passes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of the passes that ``works`` yields, without making anything."""
    problem = entry.problem
    if isinstance(problem, Spec):
        return (problem.pass_,) if passes is None else tuple(p for p in SPEC_PASSES if p in passes)
    return PASSES if passes is None else passes


def contenders(work: Work, vs: tuple[str, ...], child: Child, copies: int) -> dict[str, Contender]:
    """Who takes part in the race; half types of torch's convolutions run in a process that may be lost."""
    sets = [work, *(work.copy() for _ in range(copies - 1))]
    makers = [each.calls(vs) for each in sets]
    timed = OnDevice if work.problem.device == "cuda" else Local
    fragile = (
        isinstance(work, Convolution) and work.problem.dtype.itemsize < 4 and work.problem.device == "cpu"
    )
    found: dict[str, Contender] = {}
    for name in makers[0]:
        if fragile and name.startswith("torch"):
            found[name] = Remote(child, str(work.problem), name, torch.get_num_threads(), copies)
            continue
        calls = [each[name]() for each in makers]
        found[name] = timed(calls[0] if copies == 1 else Rotating(calls))
    return found


def is_rival(name: str) -> bool:
    """Whether a contender is another way to the same result, not one of ours."""
    return name.split(".", 1)[0] not in ("striate", *OTHERS)


def dtype_word(problem: Problem | Spec) -> str:
    """The dtype as the line says it."""
    return str(problem).split()[2] if isinstance(problem, Problem) else DTYPE_WORDS[problem.dtype]
