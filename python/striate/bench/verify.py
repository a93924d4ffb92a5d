"""Is a result right? Equal, element by element, to the float64 result of small integers.

The operands are integers whose sums every accumulator represents, so no order of summation and no fused operation
can change a result: a right kernel is exact, and there is no tolerance to hide behind. Half types round once, when
the sum is stored, and so does the reference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .contenders import striate, torch_pass
from .operands import Operands
from .problems import PASSES


def difference(result: Tensor | tuple[Tensor, ...], operands: Operands) -> str:
    """How a result (of ``fwdbwd`` the three results) differs from float64; empty if it does not."""
    if not isinstance(result, Tensor):
        for part, pass_ in zip(result, PASSES, strict=True):
            fault = difference(part, replace(operands, problem=operands.problem.of(pass_)))
            if fault:
                return f"{pass_}: {fault}"
        return ""
    result = result.detach().cpu()
    exact = torch_pass(operands.first_groups())().to(result.dtype)
    dim = 0 if operands.problem.pass_ == "dw" else 1
    repeats = [1] * exact.dim()
    repeats[dim] = -(-result.shape[dim] // exact.shape[dim])
    exact = exact.repeat(repeats).narrow(dim, 0, result.shape[dim])
    if exact.shape != result.shape:
        return f"has shape {tuple(result.shape)}, expected {tuple(exact.shape)}"
    wrong = result != exact
    if not bool(wrong.any()):
        return ""
    first = tuple(int(i) for i in wrong.nonzero()[0])
    got, expected = float(result[first]), float(exact[first])
    return f"{int(wrong.sum())} of {wrong.numel()} elements differ from float64, at {first} {got:g} for {expected:g}"


def same(a: Any, b: Any) -> bool:
    """Equal bits, tensor by tensor."""
    pairs = [(a, b)] if isinstance(a, Tensor) else list(zip(a, b, strict=True))
    return all(torch.equal(one, other) for one, other in pairs)


def verify(operands: Operands, threads: tuple[int, ...]) -> str:
    """What is wrong with striate's result for each number of threads; empty if nothing."""
    call, before = striate(operands), torch.get_num_threads()
    results: list[Any] = []
    try:
        for count in threads:
            torch.set_num_threads(count)
            results.append(call())
    except (NotImplementedError, RuntimeError) as error:
        return str(error).splitlines()[0]
    finally:
        torch.set_num_threads(before)
    fault = difference(results[0], operands)
    if not fault and not all(same(results[0], other) for other in results[1:]):
        return f"differs between {' and '.join(map(str, threads))} threads"
    return fault
