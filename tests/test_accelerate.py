"""striate.accelerate on whole models."""

from __future__ import annotations

import pytest
import torch

import striate


def _depthwise(model: torch.nn.Module) -> int:
    convs = [m for m in model.modules() if isinstance(m, torch.nn.modules.conv._ConvNd)]
    return sum(m.groups == m.in_channels and m.weight.shape[1] == 1 for m in convs)


@pytest.mark.parametrize("name", ["convnext_tiny", "mobilenetv2_100", "inception_next_tiny"])
def test_real_models_keep_their_outputs(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        keys = list(model.state_dict())
        report = striate.accelerate(model)
        after = model(x)
        assert (after - before).abs().max() <= 1e-4
        assert list(model.state_dict()) == keys
        assert len(report.swapped) == _depthwise(model) > 0
        assert "swapped: depthwise" in str(report) and "not depthwise" in str(report)
        assert len(striate.accelerate(model).swapped) == 0
        report.restore()
        assert not any(isinstance(m, striate.nn.Conv2d) for m in model.modules())
        assert torch.equal(model(x), before)


def test_training_step_matches() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("inception_next_tiny").eval()
    x = torch.randn(1, 3, 64, 64)
    gradients = []
    for accelerated in (False, True):
        if accelerated:
            striate.accelerate(model)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        scale = a.abs().max().item() + 1e-12
        assert (a - b).abs().max().item() <= 1e-3 * scale + 1e-6


class _Standardised(torch.nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * 2


class _Plain(torch.nn.Conv2d):
    """Adds a method but no computation."""

    def flops(self) -> int:
        return self.weight.numel()


def test_subclasses_hooks_and_unsuitable_layers() -> None:
    depthwise = {"groups": 4, "padding": 1}
    model = torch.nn.Sequential(
        torch.nn.Conv2d(4, 4, 3, **depthwise),
        _Standardised(4, 4, 3, **depthwise),
        _Plain(4, 4, 3, **depthwise),
        torch.nn.Conv2d(4, 4, 1),
        torch.nn.Conv2d(4, 4, 3, device="meta", **depthwise),
        striate.nn.Conv2d(4, 4, 3, **depthwise),
        torch.nn.ConvTranspose2d(4, 4, 3, **depthwise),
    )
    seen: list[int] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    weight = model[0].weight
    report = striate.accelerate(model)
    assert [row.swapped for row in report.rows] == [True, False, True, False, False, False, True]
    for row, reason in zip(
        report.rows,
        (
            "multiplier 1",
            "own forward",
            "multiplier 1",
            "not depthwise",
            "device meta",
            "already",
            "multiplier 1",
        ),
        strict=True,
    ):
        assert reason in row.why
    assert model[0].weight is weight and model[2].flops() == 36 and isinstance(model[2], _Plain)
    model[0](torch.randn(1, 4, 5, 5))
    assert seen == [1]
    report.restore()
    assert type(model[0]) is torch.nn.Conv2d and type(model[2]) is _Plain


def test_measure_times_both_ways() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 7, groups=8, padding=3), torch.nn.Conv2d(8, 8, 1), torch.nn.Flatten()
    )
    x = torch.randn(1, 8, 16, 16)
    before = model(x)
    report = striate.accelerate(model, measure=x)
    assert "ms, torch" in report.rows[0].why and "not depthwise" in report.rows[1].why
    assert report.rows[0].swapped == isinstance(model[0], striate.nn.Conv2d)
    torch.testing.assert_close(model(x), before)
    assert str(striate.accelerate(torch.nn.Linear(2, 2))) == "no convolutions or pooling layers found"
