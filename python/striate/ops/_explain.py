"""What would run, and why: for a problem line or for a call of a public function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import _core
from .._problem import is_channels_last, layout_word
from ._resolve import Call, Plan, problem_line
from .conv import CALLS, plan_of, unfit


@dataclass(frozen=True)
class Explanation:
    """The kernel row of one problem, the rows that refused it, and what a call costs besides."""

    problem: str | None
    """the problem line; None for the row ``torch``"""
    row: str
    refusals: tuple[tuple[str, str], ...] = ()
    copies: tuple[str, ...] = ()
    workspace: int = 0
    """bytes"""
    why: str = ""

    def __str__(self) -> str:
        lines = [f"problem    {self.problem}"] if self.problem else []
        lines.append(f"row        {self.row}" + (f" ({self.why})" if self.why else ""))
        lines += [f"refused    {name}: {reason}" for name, reason in self.refusals]
        lines += [f"copy       {copy}" for copy in self.copies]
        if self.problem:
            lines.append(f"workspace  {self.workspace} bytes")
        return "\n".join(lines)


def explain(problem: str | Callable[..., Tensor], *args: Any, **kwargs: Any) -> Explanation:
    """Explain a problem line, or a call: ``explain(striate.conv2d, x, w, padding=1)``.

    Raises ValueError for a line that is not a problem, TypeError for anything but a public function of striate, and
    whatever the call itself would raise for its arguments.
    """
    if isinstance(problem, str):
        return _of_line(problem)
    call = CALLS.get(getattr(problem, "__name__", ""))
    if call is None:
        raise TypeError(f"explain: problem must be a problem line or a function of striate, not {problem!r}")
    return _of_call(call, *args, **kwargs)


def _of_line(line: str, copies: tuple[str, ...] = ()) -> Explanation:
    found = _core.explain(line)
    refusals = tuple((str(name), str(why)) for name, why in found["refusals"])
    return Explanation(found["problem"], found["row"], refusals, copies, int(found["workspace"]))


def _of_call(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    *rest: Any,
    **named: Any,
) -> Explanation:
    order = {"transpose": ("output_padding", "groups", "dilation"), "conv": ("dilation", "groups")}
    named = (
        {"output_padding": 0, "dilation": 1, "groups": 1}
        | dict(zip(order.get(call.kind, ("dilation",)), rest, strict=False))
        | named
    )
    plan = plan_of(
        call,
        input,
        weight,
        bias,
        stride,
        padding,
        named["dilation"],
        named["groups"],
        named["output_padding"],
    )
    if not plan.raw:
        return Explanation(None, "torch", why=plan.why)
    if why := unfit(plan, input):
        return Explanation(None, "torch", why=why)
    layout, copies = _copies(call, plan, input, weight)
    return _of_line(problem_line(call, plan, input, weight, layout), copies)


def _copies(call: Call, plan: Plan, input: Tensor, weight: Tensor) -> tuple[str, tuple[str, ...]]:
    batched = input if plan.batched else input.unsqueeze(0)
    layout = layout_word(batched)
    copies = []
    if not batched.is_contiguous() and not is_channels_last(batched):
        copies.append(f"input made contiguous: strides {tuple(input.stride())}")
    if not weight.is_contiguous():
        copies.append(f"weight made contiguous: strides {tuple(weight.stride())}")
    return layout, tuple(copies)
