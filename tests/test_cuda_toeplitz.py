"""Toeplitz kernels on tensor cores: their real text, run on the host with the launches that a device would get."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cuda_nvrtc
from cuda_recipe import conv_recipe, emulate
from oracle import assert_equal, assert_within
from strategies import BF16, F16, Depthwise, normals, poisoned
from test_cuda_conv import run


def same(k, d=1):
    reach = d * (k - 1)
    return (reach // 2, reach - reach // 2)


def problem(size, kernel, batch=1, channels=2, dilation=None, padding=None, dtype=BF16, multiplier=1):
    rank = len(size)
    dilation = dilation or (1,) * rank
    padding = padding or tuple(map(same, kernel, dilation))
    return Depthwise(
        batch, channels, multiplier, size, kernel, (1,) * rank, dilation, padding, (dtype, dtype)
    )


def check(drawn, pass_, seed=1, sanitize=False):
    recipe = conv_recipe(drawn.line(pass_))
    assert recipe["row"] == "cuda.toeplitz", drawn.line(pass_)
    got, expected = run(drawn, pass_, "nchw", seed, sanitize)
    assert_equal(got, expected, drawn.line(pass_))


# Every mode, group and width of the kernel text, and planes whose rows are aligned to 16, 8, 4 and 2 bytes.
CASES = [
    problem((40,), (16,)),
    problem((130,), (64,), batch=2, channels=3),
    problem((900,), (129,), dtype=F16),
    problem((1001,), (33,), padding=((32, 0),)),
    problem((600,), (300,), channels=1, padding=((299, 0),)),
    problem((96,), (20,), dilation=(3,)),
    problem((7, 7), (7, 7), batch=11, channels=2),
    problem((14, 14), (13, 13), batch=2),
    problem((28, 28), (9, 9), dtype=F16),
    problem((20, 56), (7, 7)),
    problem((70, 16), (11, 11), channels=1),
    problem((33, 40), (31, 31), channels=1),
    problem((12, 72), (5, 51), channels=1),
    problem((40, 24), (51, 5), channels=1, batch=2),
    problem((80, 13), (49, 3), channels=1),
    problem((24, 24), (7, 7), dilation=(3, 1)),
    problem((24, 24), (7, 7), dilation=(2, 2), padding=((3, 5), (12, 0))),
    problem((18, 30), (17, 17), padding=((16, -1), (-2, 20)), multiplier=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("pass_", ["fwd", "dx"])
def test_integers_come_out_equal(case, pass_):
    check(case if pass_ == "fwd" else replace(case, multiplier=1), pass_)
