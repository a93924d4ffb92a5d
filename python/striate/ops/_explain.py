"""What would run, and why: for a problem line or for a call of a public function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_map

from .. import _core, ops
from .._listen import listening
from .._problem import is_channels_last, layout_word
from . import _cuda, _long
from ._resolve import Call, Plan, problem_line
from .conv import CALLS, plan_of, unfit

# What the names of functions hold that have rows on CUDA devices.
_WITH_ROWS = ("causal_conv1d", "fft_conv", "_pool", "dcls_kernel", "shiftwise")


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
    then: tuple[Explanation, ...] = ()
    """what else a call of several kernels runs, in order; then what it leaves to torch, and why"""

    def __str__(self) -> str:
        return "\n\n".join(choice._text() for choice in (self, *self.then))

    def _text(self) -> str:
        lines = [f"problem    {self.problem}"] if self.problem else []
        lines.append(f"row        {self.row}" + (f" ({self.why})" if self.why else ""))
        lines += [f"refused    {name}: {reason}" for name, reason in self.refusals]
        lines += [f"copy       {copy}" for copy in self.copies]
        if self.problem:
            lines.append(f"workspace  {self.workspace} bytes")
        return "\n".join(lines)


def explain(problem: str | Callable[..., Tensor], *args: Any, **kwargs: Any) -> Explanation:
    """Explain a problem line, or a call: ``explain(striate.conv2d, x, w, padding=1)``, ``explain(layer, x)``.

    Convolutions are planned and not run. Every other function of striate, and any module, is called once, on copies of
    its arguments, in the grad mode of the caller; the result says which kernels ran, in order, then what torch ran.

    Raises ValueError for a line that is not a problem, TypeError for anything but a public function of striate or a
    module, and whatever the call itself would raise for its arguments.
    """
    if isinstance(problem, str):
        return _of_line(problem)
    call = CALLS.get(getattr(problem, "__name__", ""))
    if call is not None:
        return _of_call(call, *args, **kwargs)
    if why := _composed_because(problem, (*args, *kwargs.values())):
        return Explanation(None, "torch", why=why)
    if isinstance(problem, Module) or _is_public(problem):
        return _of_run(problem, args, kwargs)
    raise TypeError(
        f"explain: problem must be a problem line, a function of striate or a module, not {problem!r}"
    )


def _of_run(function: Callable[..., object], args: Any, kwargs: Any) -> Explanation:
    def copied(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.detach().clone().requires_grad_(value.requires_grad)

    args, kwargs = tree_map(copied, (args, kwargs))
    with listening() as heard:
        function(*args, **kwargs)
    steps = [Explanation(None, "torch", why=why) for why in dict.fromkeys(heard.to_torch)]
    steps = [_choice(found) for found in heard.choices] + steps
    first, *then = steps or [Explanation(None, "torch", why="no kernel of striate took part")]
    return replace(first, then=tuple(then))


def _is_public(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    return name in ops.__all__ and getattr(ops, name) is function


def _composed_because(function: Any, values: tuple[Any, ...]) -> str:
    """Why a call of another public function is composed of torch's operators, or an empty string."""
    if not _is_public(function):
        return ""
    if not any(isinstance(value, Tensor) and value.is_cuda for value in values):
        return ""
    if any(word in function.__name__ for word in _WITH_ROWS):
        return _cuda.refusal(dense=False)
    return "device cuda has no row of this operator yet"


def _of_line(line: str, copies: tuple[str, ...] = ()) -> Explanation:
    return _choice(_core.explain(line), copies)


def _choice(found: _core.Explanation, copies: tuple[str, ...] = ()) -> Explanation:
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
    given = named
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
    direct = plan.direct or _long.unfit(input)
    if not direct:
        found = _of_run(getattr(ops, call.name), (input, weight, bias, stride, padding, *rest), given)
        return replace(found, why=f"{weight.shape[-1]} taps: transforms pay from {_long.TAPS} on")
    layout, copies = _copies(call, plan, input, weight)
    found = _of_line(problem_line(call, plan, input, weight, layout), copies)
    if call.rank != 1 or call.kind == "transpose":
        return found
    return replace(found, refusals=(*found.refusals, ("fft_conv", direct)))


def _copies(call: Call, plan: Plan, input: Tensor, weight: Tensor) -> tuple[str, tuple[str, ...]]:
    batched = input if plan.batched else input.unsqueeze(0)
    layout = layout_word(batched)
    copies = []
    if not batched.is_contiguous() and not is_channels_last(batched):
        copies.append(f"input made contiguous: strides {tuple(input.stride())}")
    if not weight.is_contiguous():
        copies.append(f"weight made contiguous: strides {tuple(weight.stride())}")
    return layout, tuple(copies)
