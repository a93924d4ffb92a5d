"""Does `explain` follow every kind of call to the kernels it runs, without touching the arguments?"""

from __future__ import annotations

import pytest
import torch

import striate


def rows(found: striate.ops._explain.Explanation) -> list[str]:
    return [choice.row for choice in (found, *found.then)]


def test_operations_name_their_rows() -> None:
    x = torch.randn(2, 8, 32, 32)
    found = striate.explain(striate.max_pool2d, x, 3, 1, 1)
    assert found.row.startswith("pool") and found.problem and found.problem.startswith("pool")
    assert f"row        {found.row}" in str(found)
    sequence, weight = torch.randn(2, 8, 64), torch.randn(8, 4)
    assert any(
        row.startswith("causal") for row in rows(striate.explain(striate.causal_conv1d, sequence, weight))
    )
    assert any(
        "fft" in row for row in rows(striate.explain(striate.fft_conv1d, sequence, torch.randn(8, 64)))
    )


def test_state_is_left_alone() -> None:
    x, state, weight = torch.randn(2, 8), torch.randn(2, 8, 4), torch.randn(8, 4)
    before = state.clone()
    striate.explain(striate.causal_conv1d_update, x, state, weight)
    assert torch.equal(state, before)


def test_what_torch_runs_is_said() -> None:
    maps = torch.randn(2, 8, 12, 12).to(memory_format=torch.channels_last)
    found = striate.explain(striate.max_pool2d, maps, 2, 2)
    assert (found.problem, found.row, found.why) == (None, "torch", "channels last, 1 windows to a number")
    assert (
        striate.explain(striate.max_pool2d, torch.ones(1, 2, 8, 8, dtype=torch.int64), 2).why
        == "dtype torch.int64"
    )
    dense = torch.nn.Sequential(striate.nn.Conv2d(8, 64, 3), torch.nn.ReLU())
    assert "not depthwise" in striate.explain(dense, maps).why


def test_modules_run_several_kernels() -> None:
    model = torch.nn.Sequential(
        striate.nn.Conv2d(8, 8, 7, padding=3, groups=8),
        striate.nn.MaxPool2d(3, 1, 1),
        torch.nn.Conv2d(8, 8, 1),
    )
    found = striate.explain(model, torch.randn(1, 8, 16, 16))
    first, second = rows(found)
    assert first.startswith("depthwise") and second.startswith("pool")
    assert str(found).count("row        ") == 2
    assert striate.explain(torch.nn.ReLU(), torch.randn(2)).why == "no kernel of striate took part"


def test_every_call_is_heard() -> None:
    """Calls that look alike are planned once and remembered; each is told nevertheless, also to the next listener."""
    layer = striate.nn.Conv2d(8, 8, 5, padding=2, groups=8)
    x = torch.randn(1, 8, 16, 16)
    layer(x)
    for _ in range(2):
        assert len(rows(striate.explain(torch.nn.Sequential(layer, layer, layer), x))) == 3


def test_only_striate_is_explained() -> None:
    with pytest.raises(TypeError, match="a function of striate or a module"):
        striate.explain(torch.relu, torch.randn(2))
