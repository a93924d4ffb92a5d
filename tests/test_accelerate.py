"""striate.accelerate on whole models."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import striate
from striate.bench.problems import Problem
from striate.bench.records import read
from striate.nn import _accelerate


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


def test_measure_true_takes_a_sample() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 7, groups=8, padding=3), torch.nn.Conv2d(8, 8, 3)
    ).eval()
    x = torch.randn(1, 8, 16, 16)
    report = striate.accelerate(model, measure=True, sample=x)
    row = report.rows[0]
    assert row.measured and row.gain is not None and row.swapped == (row.gain > 1)
    assert report.rows[1].gain is None
    assert f"{row.gain:.2g}x" in str(report) and "~" not in str(report)
    report.restore()
    assert type(model[0]) is torch.nn.Conv2d
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert striate.accelerate(model, measure=True, sample=(x,)).rows[0].measured
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"measure": True}, "needs sample"),
        ({"measure": 3}, "measure must be a bool or a sample input, not int"),
        ({"measure": True, "sample": "x"}, "sample must be a tensor"),
        ({"measure": torch.ones(1), "sample": torch.ones(1)}, "both samples"),
    ],
)
def test_what_cannot_be_measured_is_said(settings: dict[str, object], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        striate.accelerate(torch.nn.Conv2d(4, 4, 3, groups=4), **settings)  # type: ignore[arg-type]


def test_the_report_predicts_from_the_record() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 7, groups=8), torch.nn.Conv2d(8, 8, 1), torch.nn.Conv1d(8, 8, 5, groups=8)
    )
    report = striate.accelerate(model)
    assert [row.gain for row in report.rows] == [
        _accelerate.RECORDED[2, False][49],
        None,
        _accelerate.RECORDED[1, False][4],
    ]
    assert "layer" in str(report) and "shape" in str(report) and "gain" in str(report)
    assert "~4.9x" in str(report) and f"recorded on {_accelerate.RECORDED_ON}" in str(report)


def test_predicted_gains_are_those_of_the_record() -> None:
    record = Path(__file__).parents[1] / "bench" / "record" / "epyc-2vcpu" / "goals.jsonl"
    sums: dict[str, list[float]] = {}
    keys: dict[str, tuple[int, bool, int]] = {}
    for case in (
        r for r in read(record) if r["kind"] == "case" and r["threads"] == 2 and r["dtype"] == "f32"
    ):
        problem = Problem.parse(case["problem"])
        keys[case["label"]] = (problem.rank, set(problem.dilation) != {1}, math.prod(problem.kernel))
        total = sums.setdefault(case["label"], [0.0, 0.0])
        for at, name in enumerate(("torch", "striate")):
            total[at] += case["times"][name]["median"]
    least: dict[tuple[int, bool], dict[int, float]] = {}
    for label, (theirs, ours) in sums.items():
        rank, dilated, taps = keys[label]
        known = least.setdefault((rank, dilated), {})
        known[taps] = min(known.get(taps, math.inf), theirs / ours)
    assert _accelerate.RECORDED.keys() == least.keys()
    for key, table in _accelerate.RECORDED.items():
        assert table == {taps: float(f"{gain:.3g}") for taps, gain in least[key].items()}
