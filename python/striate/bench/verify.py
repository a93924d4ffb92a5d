"""Is a result right? Equal, element by element, to the float64 result of small integers.

The operands are integers whose sums every accumulator represents, so no order of summation and no fused operation
can change a result: a right kernel is exact, and there is no tolerance to hide behind. Half types round once, when
the sum is stored, and so does the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .contenders import striate, torch_pass
from .operands import Operands


def difference(result: Tensor, operands: Operands) -> str:
    """How a result differs from float64; empty if it does not."""
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


def verify(operands: Operands, threads: tuple[int, ...]) -> str:
    """What is wrong with striate's result for each number of threads; empty if nothing."""
    call, before = striate(operands), torch.get_num_threads()
    results: list[Tensor] = []
    try:
        for count in threads:
            torch.set_num_threads(count)
            results.append(call())
    finally:
        torch.set_num_threads(before)
    fault = difference(results[0], operands)
    if not fault and not all(torch.equal(results[0], other) for other in results[1:]):
        return f"differs between {' and '.join(map(str, threads))} threads"
    return fault
