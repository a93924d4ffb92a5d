"""Gates, bias and activation inside the CUDA row of long convolutions: its text run on the host, and its gradients."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import cuda_nvrtc
import striate
from cuda_recipe import emulate
from fft_oracle import direct
from oracle import UNIT
from strategies import BF16, F16, F32, F64
from striate import _call, _core
from striate.ops import _cuda, _fft_gates
from striate.ops._fft import wide
from striate.ops._fft_gates import ACTIVATIONS
from test_cuda_conv import BUDGETS
from test_cuda_fft import drawn

pytestmark = pytest.mark.usefixtures("one_thread", "own_rows")
NAMES = ("input", "kernel", "pregate", "postgate", "bias", "skip")


@pytest.fixture(autouse=True)
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public functions take host tensors for those of a device."""
    monkeypatch.setattr(_fft_gates, "fused", lambda x, gates, activation: True)


def operands(dtype: torch.dtype, length: int = 61, taps: int = 61) -> dict[str, Tensor]:
    shape, wider = (2, 3, length), wide(dtype)
    return {
        "input": drawn(*shape, dtype=dtype),
        "kernel": drawn(3, taps, dtype=wider, seed=1) / taps,
        "pregate": drawn(*shape, dtype=dtype, seed=2),
        "postgate": drawn(*shape, dtype=dtype, seed=3),
        "bias": drawn(3, dtype=wider, seed=4),
        "skip": drawn(3, dtype=wider, seed=5),
    }


def definition(given: dict[str, Tensor], activation: str | None, padding: str) -> Tensor:
    """In float64, by sums."""
    it = {name: given[name].double() for name in given}
    v = it["input"] * it["pregate"] if "pregate" in it else it["input"]
    y = direct(v, it["kernel"], padding, "correlation")
    for name, factor in (("skip", v), ("bias", torch.ones_like(y))):
        if name in it:
            y = y + factor * it[name].reshape(-1, *[1] * (y.dim() - 2))
    y = ACTIVATIONS[activation](y) if activation else y
    return y * it["postgate"] if "postgate" in it else y


def check(given: dict[str, Tensor], activation: str | None, padding: str = "causal") -> None:
    """The output and all gradients against the definition, as near as the stored type allows."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in given.items()}
    wider = {name: tensor.double().requires_grad_() for name, tensor in given.items()}
    y = striate.fft_conv1d(**leaves, activation=activation, padding=padding)  # type: ignore[arg-type]
    want = definition(wider, activation, padding)
    g = drawn(*want.shape, dtype=y.dtype, seed=9)
    got = [y.detach(), *torch.autograd.grad(y, [*leaves.values()], g)]
    exact = [want.detach(), *torch.autograd.grad(want, [*wider.values()], g.double())]
    for name, a, b in zip(("y", *leaves), got, exact, strict=True):
        unit = UNIT[y.dtype] if y.dtype != wide(y.dtype) else 16 * UNIT[y.dtype]
        allowed = 12 * unit * float(b.abs().max())
        assert float((a.double() - b).abs().max()) <= allowed, (name, a.dtype)


@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16], ids=str)
def test_every_gate_in_every_type(dtype: torch.dtype, own_rows: Any) -> None:
    check(operands(dtype), "silu")
    assert own_rows.ran["fft_conv_gated"] == 1


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
def test_activations(activation: str | None) -> None:
    check(operands(F32), activation)


@pytest.mark.parametrize("name", ["pregate", "postgate", "bias"])
def test_gates_come_alone(name: str, own_rows: Any) -> None:
    given = operands(F32)
    check({part: given[part] for part in ("input", "kernel", name)}, None, "same")
    assert "fft_conv_gated" in own_rows.ran


def test_the_gradient_of_the_input_alone_is_one_operator(own_rows: Any) -> None:
    given = operands(F32)
    x = given["input"].requires_grad_()
    y = striate.fft_conv1d(x, given["kernel"], pregate=given["pregate"], postgate=given["postgate"])
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert own_rows.ran == {"fft_conv_gated": 2}
    wider = {name: given[name].detach().double() for name in ("input", "kernel", "pregate", "postgate")}
    wider["input"].requires_grad_()
    (want,) = torch.autograd.grad(definition(wider, None, "causal").sum(), wider["input"])
    assert (dx - want).abs().max() <= 1e-5 * want.abs().max()


def test_second_derivatives() -> None:
    """Of all tensors but the gates' own, which are as smooth."""
    given = {name: tensor.requires_grad_() for name, tensor in operands(F64, 7, 5).items()}
    tensors = tuple(given.values())

    def call(*tensors: Tensor) -> Tensor:
        return striate.fft_conv1d(**dict(zip(NAMES, tensors, strict=True)), activation="gelu")  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


def request(shape: tuple[int, ...], taps: int, dtype: torch.dtype, shared: int) -> tuple[Any, Any, Any]:
    """A recipe with everything in it, its operands and its result."""
    given = operands(dtype, shape[-1], taps)
    x = given["input"][: shape[0], : shape[1]].contiguous()
    bias, kernel = (given[name][: shape[1]].contiguous() for name in ("bias", "kernel"))
    result = torch.full_like(x, torch.nan)
    tensors = (x, kernel, torch.ones_like(x), torch.full_like(x, 2), bias)
    words = _call.words(shift=0, flip=False, periodic=False, shared=shared, activation="relu")
    described = [_call._given(tensor) for tensor in tensors]
    return _core.cuda_call_recipe("fft_conv", words, described, [_call._given(result)]), tensors, result


def test_nothing_outside_the_tensors_is_touched() -> None:
    recipe, tensors, result = request((2, 2, 121), 100, F32, 68 << 10)
    emulate(recipe, tensors, (result,), sanitize=True)
    exact = direct(tensors[0], tensors[1], "causal", "convolution") + tensors[4].double().unsqueeze(1)
    assert (result - 2 * exact.relu()).abs().max() < 1e-5
    made = []
    for seed in range(2):
        made.append(torch.full_like(result, torch.nan))
        emulate(recipe, tensors, (made[-1],), seed)
    assert torch.equal(made[0], made[1])


def test_gates_of_other_shapes_are_refused() -> None:
    x, k = drawn(2, 3, 40), drawn(3, 7, seed=1)
    words = _call.words(shift=0, flip=False, periodic=False)
    for place, name, wrong in (
        (2, "pregate", x[:, :2]),
        (3, "postgate", x.double()),
        (4, "bias", x[0, :2, 0]),
    ):
        given: list[Any] = [x, k, None, None, None]
        given[place] = wrong
        described = [None if tensor is None else _call._given(tensor) for tensor in given]
        with pytest.raises(ValueError, match=name):
            _core.cuda_call_recipe("fft_conv", words, described, [_call._given(x)])


@pytest.mark.parametrize(
    ("name", "length", "dtype"), [("1k", 1024, BF16), ("8k", 8192, F32), ("64k", 65536, F32)]
)
def test_kernels_compile_within_their_budget(name: str, length: int, dtype: torch.dtype) -> None:
    budget = json.loads(BUDGETS.read_text())[f"fft_conv gated {name}"]
    recipe = request((2, 1, length), length, dtype, _cuda.shared_bytes(torch.device("cpu")))[0]
    for arch in (80, 90):
        sources = {step["source"] for step in recipe["launches"] if "pregate = 1" in step["source"]}
        logs = [cuda_nvrtc.compile(source, arch)[1] for source in sources]
        spilled, registers = max(log.spilled for log in logs), max(log.registers for log in logs)
        assert spilled == 0 and registers <= budget, (name, arch, registers, spilled)
