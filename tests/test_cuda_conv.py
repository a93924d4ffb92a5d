"""The CUDA rows of convolution: their real text, run on the host with the launches that a device would get."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuda_recipe import conv_recipe, emulate
from oracle import UNIT
from strategies import DTYPES, Depthwise, channels_last, poisoned, problems

F32 = torch.float32


def run(problem: Depthwise, pass_: str, layout: str, seed: int = 0, sanitize: bool = False):
    """The result of a pass, and what it should be, on integers that every correct kernel adds without rounding."""
    x, w, bias, g = problem.operands()
    dx, dw = problem.gradients(x, w, g)
    lay = channels_last if layout == "nhwc" else torch.Tensor.contiguous
    recipe = conv_recipe(problem.line(pass_, layout))
    if pass_ == "fwd":
        operands, expected = (lay(x), w, bias), problem.exact.forward(x, w, bias)
    elif pass_ == "dx":
        operands, expected = (lay(g), w, None), dx
    else:
        operands, expected = (lay(g), lay(x), None), dw
    kind = problem.dtypes[1 if pass_ == "dw" else 0]
    out = poisoned(tuple(expected.shape), kind)
    out = lay(out) if pass_ != "dw" else out
    emulate(recipe, operands, (out,), seed, sanitize)
    return out, expected.to(kind)


def check(problem: Depthwise, pass_: str, layout: str, seed: int = 0, sanitize: bool = False) -> None:
    got, expected = run(problem, pass_, layout, seed, sanitize)
    assert torch.equal(got, expected), (problem.line(pass_, layout), (got != expected).nonzero()[:5])


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(problems(least_batch=1), st.sampled_from(["fwd", "dx", "dw"]), st.sampled_from(["nchw", "nhwc"]))
def test_drawn_problems_are_exact(problem, pass_, layout):
    check(problem, pass_, layout, seed=1)
