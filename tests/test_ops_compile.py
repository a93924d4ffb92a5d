"""torch.compile, torch.export and AOTInductor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing

import striate
from ops_cases import Case, every_case

close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


def _gradients(function: Any, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    y = function(*tensors)
    return (y.detach(), *torch.autograd.grad(y.square().sum(), tensors))


@every_case
def test_compile_fullgraph(case: Case) -> None:
    tensors = case.tensors(grad=True)
    compiled = torch.compile(case.ours, fullgraph=True, backend="aot_eager")
    for ours, true in zip(_gradients(compiled, tensors), _gradients(case.torchs, tensors), strict=True):
        close(ours, true)
    with torch.no_grad():
        close(compiled(*tensors), case.torchs(*tensors))


def test_compile_dynamic_shapes_without_recompiling() -> None:
    w = torch.randn(4, 1, 3)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(
        lambda x: striate.conv1d(x, w, None, 2, 1, 1, 4), fullgraph=True, backend=counter, dynamic=True
    )
    for batch, length in ((2, 16), (3, 17), (5, 40)):
        x = torch.randn(batch, 4, length)
        close(compiled(x), striate.conv1d(x, w, None, 2, 1, 1, 4))
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", ["conv2d", "depthwise_conv1d", "conv_transpose1d"])
def test_compile_of_transforms(name: str) -> None:
    from ops_cases import CASES

    case = next(c for c in CASES if c.name == name)
    x, w, b = case.tensors()

    def gradient(x: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda q: case.ours(q, w, b).square().sum())(x)

    def tangent(x: torch.Tensor) -> torch.Tensor:
        return torch.func.jvp(lambda q: case.ours(q, w, b), (x,), (x,))[1]

    def batch(x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(lambda q: case.ours(q, w, b))(x)

    for function, argument in ((gradient, x), (tangent, x), (batch, torch.stack([x, x * 2]))):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        close(compiled(argument), function(argument))


def test_inductor_forward_and_backward() -> None:
    def net(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        y = striate.conv2d(x.relu(), w, b, 1, "same", 1, 4)
        y = striate.depthwise_conv2d(y.to(memory_format=torch.channels_last), v, None, 2, 1) * 2
        return striate.conv_transpose2d(y, w, None, 2, 1, 1, 4).sin()

    tensors = [torch.randn(s, requires_grad=True) for s in ((2, 4, 8, 8), (4, 1, 3, 3), (4, 3, 3), (4,))]
    compiled = torch.compile(net, fullgraph=True)
    for ours, true in zip(_gradients(compiled, tensors), _gradients(net, tensors), strict=True):
        close(ours, true, rtol=1e-4, atol=1e-4)


class _Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = striate.nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.dense = striate.nn.Conv1d(4, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.depthwise(x).relu())


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_dynamic_batch_and_length(strict: bool) -> None:
    model, x = _Block(), torch.randn(2, 4, 16)
    shapes = ({0: torch.export.Dim("n", min=2, max=4096), 2: torch.export.Dim("length", min=4, max=4096)},)
    program = torch.export.export(model, (x,), dynamic_shapes=shapes, strict=strict)
    assert any("striate.conv" in str(node.target) for node in program.graph.nodes)
    longer = torch.randn(5, 4, 33)
    close(program.module()(longer), model(longer))


def test_aot_inductor_package(tmp_path: Path) -> None:
    model, x = _Block().eval(), torch.randn(2, 4, 16)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "block.pt2"))
        close(torch._inductor.aoti_load_package(path)(x), model(x))
