"""Layers: torch.nn's constructor, repr, parameters and results."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch

import striate

NAMES = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"groups": 4, "padding": 1},
    {"groups": 4, "bias": False, "dilation": 2},
    {"groups": 4, "padding": "same"},
    {"padding": "valid"},
    {"groups": 4, "padding": 1, "padding_mode": "reflect"},
    {"groups": 4, "padding": 1, "padding_mode": "replicate"},
    {"groups": 4, "padding": "same", "padding_mode": "circular"},
]


def _pairs() -> list[Any]:
    return [
        pytest.param(name, options, id=f"{name}-{'-'.join(f'{k}_{v}' for k, v in options.items())}")
        for name in NAMES
        for options in OPTIONS
        if "Transpose" not in name
        or (not isinstance(options.get("padding"), str) and "padding_mode" not in options)
    ]


@pytest.mark.parametrize(("name", "options"), _pairs())
def test_layers_equal_torchs(name: str, options: dict[str, Any]) -> None:
    rank = int(name[-2])
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(4, 8, 3, **options)
    torch.manual_seed(0)
    ours = getattr(striate.nn, name)(4, 8, 3, **options)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    for x in (torch.randn(2, 4, *[6] * rank), torch.randn(4, *[6] * rank)):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, z = ours(a), theirs(b)
        torch.testing.assert_close(y, z)
        upstream = torch.randn_like(z)
        y.backward(upstream)
        z.backward(upstream)
        torch.testing.assert_close(a.grad, b.grad)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_constructor_and_copies(name: str) -> None:
    ours, theirs = getattr(striate.nn, name), getattr(torch.nn, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    layer = ours(4, 4, 3, groups=4, device="meta", dtype=torch.float64)
    assert layer.weight.device.type == "meta" and layer.weight.dtype == torch.float64
    assert type(copy.deepcopy(layer)) is ours and isinstance(layer, theirs)


def test_output_size_of_transposed_layers() -> None:
    ours = striate.nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, groups=4)
    theirs = torch.nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, groups=4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(ours(x, output_size=[10, 9]), theirs(x, output_size=[10, 9]))
    with pytest.raises(ValueError, match="requested an output size"):
        ours(x, output_size=[20, 20])
    with pytest.raises(ValueError, match="zeros"):
        striate.nn.ConvTranspose2d(4, 4, 3, padding_mode="reflect")


def test_a_model_saved_with_torch_loads() -> None:
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.Conv2d(6, 6, 3, groups=6))
    ours = torch.nn.Sequential(striate.nn.Conv2d(3, 6, 3), striate.nn.Conv2d(6, 6, 3, groups=6))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))
