"""One test for every row: size, reference, backends, gradients, features, compilation."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate import nn as nn_striate
from striate import zoo
from zoo_oracles import fingerprint, golden, has_oracle, oracle

THOROUGH = os.environ.get("STRIATE_TEST_PROFILE") == "thorough"
# Small inputs that every network of a skeleton can still halve as often as it wants to.
SMALL = {"Branch": 107, "Dense": 65, "SeqNet": 48}
# Overrides that take away bulk which no convolution of ours sees, or which every level repeats.
_HEADLESS = {"head": (("grid_pool", {"size": 1}),)}
_NARROW = {"widths": (8, 8, 16, 16, 16, 16)}
_TOY = {"width": 32, "depth": 2, "length": 64}
THIN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("AlexNet", "VGG", "VGG, partial padding"), _HEADLESS),
    **dict.fromkeys(("3-D U-Net", "STU-Net", "IS-Net", "U2-Net"), _NARROW),
    **dict.fromkeys(("Hyena", "LaughingHyena"), _TOY),
    "U-Net": {"widths": (8, 16, 32, 64, 64)},
    "SLaK": {"dims": (32, 32, 64, 64)},
    "HRNet": {"modules": (1, 1, 1), "depth": 1},
    "MIRNet": {"layers": ("c16k3!", ("streams", {"groups": 1, "blocks": 1}), "c3k3!")},
    "FCN (VGG)": {
        "backbone": ("Plain", {"layers": "c8k3p100 m2s2! c8k3 m2s2! c8k3 m2s2! | c16k3 m2s2! | c16k3 m2s2!"}),
        "head": ("skips", {"crops": (5, 9, 31), "hidden": 16}),
    },
}
SIDES = {"Xception": 96, "Xception (aligned)": 96, "MIRNet": 16, "IDF": 16, "FFNet (segmentation)": 32}
SIDES |= {"Hyena": 32, "LaughingHyena": 32}


def thin(row: zoo.Row, most: int = 2) -> dict[str, Any]:
    """Overrides that leave of a network what its parts are, but not how often they are repeated."""

    def shallow(args: Any) -> dict[str, Any]:
        # The blocks of some are of two or three kinds in turn.
        deep = 3 if row.family == "P3D ResNet" else 2 if row.skeleton == "MetaNet" else most
        return {"depths": tuple(min(n, deep) for n in args["depths"])} if "depths" in args else {}

    name, inner = row.args.get("backbone", ("", {}))
    within = {"backbone": (name, {**inner, **shallow(inner)})} if "depths" in inner else {}
    return {**within, **shallow(row.args), **THIN.get(row.family, {})}


def shape_of(row: zoo.Row) -> tuple[int, ...]:
    """A small input: one sample, the row's channels (none where it is tokens), short axes."""
    if row.fixed:
        return (1, row.channels, *row.size)
    if row.skeleton == "UNet" and len(row.size) == 3:
        return (1, row.channels, 32, 64, 32)
    if len(row.size) == 3:
        return (1, row.channels, min(row.size[0], 16), 32, 32)
    side = SIDES.get(row.family, SMALL.get(row.skeleton, 64))
    return (1, *([row.channels] if row.channels else []), *(min(n, side) for n in row.size))


def drawn(row: zoo.Row, dtype: torch.dtype = torch.float32) -> Tensor:
    """A random input of that shape, always the same."""
    generator = torch.Generator().manual_seed(1)
    if not row.channels:
        return torch.randint(row.classes, shape_of(row), generator=generator)
    return torch.randn(shape_of(row), generator=generator, dtype=dtype)


def signature(row: zoo.Row) -> tuple[Any, ...]:
    """Rows alike in everything but numbers share one representative."""
    words = sorted(
        (key, "" if isinstance(value, (int, float, str)) else kinds(value)) for key, value in row.args.items()
    )
    return (row.skeleton, row.family, tuple(words))


def kinds(value: Any) -> str:
    """The words inside nested data."""
    if isinstance(value, dict):
        return " ".join(f"{key} {kinds(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(sorted({kinds(inner) for inner in value}))
    return re.sub(r"\d+", "", value) if isinstance(value, str) else ""


@cache
def representatives() -> list[str]:
    """The smallest row of each signature; with references, all rows in the thorough profile."""
    names = [name for name in zoo.list_models() if zoo.info(name).params < 2e8]
    best: dict[tuple[Any, ...], str] = {}
    for name in sorted(names, key=lambda name: zoo.info(name).params):
        best.setdefault(signature(zoo.info(name)), name)
    chosen = set(best.values())
    return [name for name in names if name in chosen or (THOROUGH and has_oracle(zoo.info(name)))]


# One row of each skeleton, with overrides that make its graph short.
COMPILED: dict[str, dict[str, Any]] = {
    "vgg11_bn": {"head": (("grid_pool", {"size": 1}),), "layers": "c16k3 m2s2 | c32k3"},
    "resnet18": {"depths": (1, 1, 1, 1)},
    "mobilenetv3_small_100": {"blocks": "ds_r1_k3_s2_e1_c16_se0.25_nre ir_r2_k5_s2_e4_c24_se0.25"},
    "convnext_atto": {"depths": (1, 1, 1, 1)},
    "inception_v3": {"stages": [(4, ["max2", "80, 48 64k1x7 64k7x1, avg 32"])]},
    "hrnet_w18_small": {"modules": (1,), "depth": 1, "head_widths": (32, 64)},
    "unet": {"widths": (8, 16, 32)},
    "multiresnet_scifar": {"depth": 1, "length": 16},
    "scnn_vgg16": {"backbone": ("Plain", {"layers": "c16k3s2 c16k3s2 | c32k3s2 c32k3s2d2p2"})},
}


def shaken(model: nn.Module) -> nn.Module:
    """The model in evaluation mode with no weight, no running mean and no scale at its neutral value."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
        for name, buffer in model.named_buffers():
            if "running_mean" in name:
                buffer.normal_(0, 0.1)
            elif "running_var" in name:
                buffer.uniform_(0.5, 1.5)
    return model.eval()


def tensors(value: Any) -> list[Tensor]:
    """The tensors of a nested output."""
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value
    return [tensor for item in inner for tensor in tensors(item)]


def close(got: Any, want: Any, tolerance: float) -> None:
    """Equal relative to the largest value of each tensor; one that is next to nothing counts a little more."""
    ours, theirs = tensors(got), tensors(want)
    assert len(ours) == len(theirs)
    floor = 1e-4 * max(b.abs().max() for b in theirs)  # a bias in front of a norm has no gradient but noise
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=floor)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", zoo.list_models())
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        model = zoo.create_model(name)
    assert count(model) == zoo.info(name).params


@pytest.mark.parametrize("name", representatives())
def test_its_own_example_fits(name: str) -> None:
    row = zoo.info(name)
    with torch.device("meta"):
        model = zoo.create_model(name, **thin(row)).eval()
    with torch.no_grad():
        model(row.example(most=SIDES.get(row.family, 96)).to("meta"))


@pytest.mark.parametrize("name", representatives())
def test_reference(name: str) -> None:
    row = zoo.info(name)
    if not has_oracle(row):
        want = golden()[name]
        assert fingerprint(row, shape_of(row), **thin(row)) == pytest.approx(want, rel=1e-7, abs=1e-9)
        return
    reference, call = oracle(row)
    model = zoo.create_model(name).eval()
    x = drawn(row)
    zoo.transfer(shaken(reference), model, x) if call is None else transfer_called(reference, model, x, call)
    with torch.no_grad():
        want = reference(x) if call is None else call(reference, x)
        close(model(x), want, 1e-5)


def transfer_called(reference: nn.Module, model: nn.Module, x: Tensor, call: Callable[..., Any]) -> None:
    """Transfer from a reference of which only a part is called."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = reference

        def forward(self, x: Tensor) -> Any:
            return call(self.whole, x)

    zoo.transfer(shaken(Part()), model, x)


def step(model: nn.Module, x: Tensor) -> tuple[Any, list[Tensor]]:
    """Outputs in training mode and the gradients of a fixed mixture of them, norms frozen."""
    model.train()
    torch.manual_seed(2)  # what training draws
    for module in model.modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            module.eval()
    out = model(x)
    loss = sum((y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum() for y in tensors(out))
    parameters = [p for p in model.parameters() if p.requires_grad]
    given = [x] if x.requires_grad else []
    grads = torch.autograd.grad(loss, [*given, *parameters], allow_unused=True)  # type: ignore[arg-type]
    return out, [g for g in grads if g is not None]


@pytest.mark.parametrize("name", representatives())
def test_backends_and_gradients(name: str) -> None:
    row = zoo.info(name)
    small = thin(row, most=1)
    if row.skeleton == "Branch":  # each module once
        once = [(s, [(1, *m[1:]) if isinstance(m, tuple) else m for m in ms]) for s, ms in row.args["stages"]]
        small["stages"] = [(s, list(dict.fromkeys(ms))) for s, ms in once]
    model = shaken(zoo.create_model(name, **small)).double()
    fast = zoo.create_model(name, conv="striate", **small).double()
    fast.load_state_dict(model.state_dict())
    x = drawn(row, torch.double)
    x.requires_grad_(x.is_floating_point())
    (want, slow_grads), (got, fast_grads) = step(model, x), step(fast, x)
    close(got, want, 1e-10)
    close(fast_grads, slow_grads, 1e-8)


@pytest.mark.parametrize("name", representatives())
def test_features(name: str) -> None:
    row = zoo.info(name)
    model = zoo.create_model(name, features_only=True, **thin(row)).eval()
    x = drawn(row)
    maps = model(x)
    assert len(maps) == len(model.feature_info) > 0
    slack = 100 if row.family == "FCN (VGG)" else 0  # it pads by so much
    for feature, y in zip(model.feature_info, maps, strict=True):
        strides = (feature.stride,) * len(row.size) if isinstance(feature.stride, int) else feature.stride
        assert y.shape[1] == feature.channels
        for n, m, s in zip(x.shape[-len(row.size) :], y.shape[2:], strides, strict=True):
            n += 2 * slack
            # Unpadded stems lose a few pixels, pools in ceil mode gain one.
            assert (
                -2.5 <= n / s - m <= 4
                if row.skeleton in ("Branch", "Plain") or "Xception" in row.family
                else -1 <= m - n / s < 1
            )


@pytest.mark.parametrize("name", COMPILED)
def test_compile(name: str) -> None:
    row = zoo.info(name)
    model = zoo.create_model(name, conv="striate", **COMPILED[name]).eval()
    x = drawn(row)
    torch.compiler.reset()
    with torch.no_grad():
        close(torch.compile(model, backend="aot_eager")(x), model(x), 1e-5)


@pytest.mark.parametrize(
    "name", ["resnet18", "hrnet_w18_small", "nafnet_gopro_w32", "fastdvdnet", "fcn_resnet50"]
)
def test_features_leave_no_parameter_without_gradient(name: str) -> None:
    row = zoo.info(name)
    model = zoo.create_model(name, features_only=True, **thin(row)).eval()
    sum(y.sum() for y in model(torch.randn(shape_of(row)))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_checkpointing_changes_nothing() -> None:
    model = shaken(zoo.create_model("resnet18", num_classes=4)).double()
    x = torch.randn(1, 3, 32, 32, dtype=torch.double, requires_grad=True)
    want = step(model, x)
    model.set_grad_checkpointing()
    got = step(model, x)
    assert all(torch.equal(a, b) for a, b in zip(tensors(got), tensors(want), strict=True))


def test_head() -> None:
    model = zoo.create_model("fasternet_t0", num_classes=7, in_chans=1).eval()
    x = torch.zeros(2, 1, 64, 64)
    assert model(x).shape == (2, 7)
    assert torch.equal(model.forward_head(model.forward_features(x)), model(x))
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, 1280)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3) and model.get_classifier().out_features == 3
    model.reset_classifier(0)
    assert model(x).shape == (2, 1280)
    with pytest.raises(ValueError, match="has been removed"):
        model.reset_classifier(5)


def test_out_indices() -> None:
    model = zoo.create_model("convnext_atto", features_only=True, out_indices=(-1, 1))
    assert [f.stride for f in model.feature_info] == [32, 8]
    assert [y.shape[1] for y in model(torch.zeros(1, 3, 32, 32))] == [320, 80]
    with pytest.raises(ValueError, match="out_indices must lie in"):
        zoo.create_model("convnext_atto", features_only=True, out_indices=(4,))
    with pytest.raises(ValueError, match="features_only"):
        zoo.create_model("convnext_atto", out_indices=(1,))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="convnext_tiny"):
        zoo.create_model("convnext_tinny")
    with pytest.raises(TypeError, match="deptths"):
        zoo.create_model("convnext_atto", deptths=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="no classifier"):
        zoo.create_model("espcn_x3", num_classes=3)
    with pytest.raises(ValueError, match='"torch", "striate"'):
        zoo.create_model("convnext_atto", conv="torhc")
    with pytest.raises(ValueError, match="unknown part 'depthwize'"):
        zoo.create_model("convnext_atto", mixer="depthwize")


def test_conv_factory_is_asked_for_every_convolution() -> None:
    asked: list[tuple[int, ...]] = []

    def factory(
        i: int, o: int, kernel: tuple[int, ...], stride: tuple[int, ...], **options: Any
    ) -> nn.Module:
        asked.append(kernel)
        return nn.Conv2d(i, o, kernel, stride, **options)

    model = zoo.create_model("convnext_atto", conv=factory)
    assert len(asked) == sum(isinstance(m, nn.Conv2d) for m in model.modules()) > 20
    assert (7, 7) in asked


def test_load_from(tmp_path: Any) -> None:
    source = shaken(zoo.create_model("mobilenetv2_050"))
    torch.save(source.state_dict(), tmp_path / "ours.pt")
    target = zoo.create_model("mobilenetv2_050")
    zoo.load_from(target, tmp_path / "ours.pt")
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
    with pytest.raises(ValueError, match="tensors"):
        zoo.load_from(zoo.create_model("convnext_atto"), source)


def test_load_from_safetensors(tmp_path: Any) -> None:
    timm = pytest.importorskip("timm")
    save_file = pytest.importorskip("safetensors.torch").save_file
    theirs = shaken(timm.create_model("mobilenetv3_small_100"))
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours = zoo.create_model("mobilenetv3_small_100").eval()
    zoo.load_from(ours, tmp_path / "theirs.safetensors")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        close(ours(x), theirs(x), 1e-6)


def test_language_model_sees_only_the_past_and_ties_its_ends() -> None:
    model = zoo.create_model("hyena_small", num_classes=11, **_TOY).double().eval()
    tokens = torch.randint(11, (2, 64))
    logits = model(tokens)
    assert logits.shape == (2, 64, 11)
    tokens[:, 40:] = (tokens[:, 40:] + 1) % 11
    changed = (model(tokens) - logits).abs().amax((0, 2))
    assert changed[:40].max() < 1e-10 and changed[40:].min() > 1e-6
    ends = [p for p in model.parameters() if p.shape == (11, 32)]
    assert len(ends) == 1 and model.get_submodule("head.tokens") is model.stem


def test_hyena_distilled_is_laughing_hyena() -> None:
    torch.manual_seed(0)
    smooth = {"mixer": ("hyena", {"emb_dim": 3, "w": 1})}  # filters that few oscillations make
    hyena = zoo.create_model("hyena_small", num_classes=11, **_TOY, **smooth).double().eval()
    tokens = torch.randint(11, (2, 64))
    want = hyena(tokens)
    for module in hyena.modules():
        if isinstance(module, nn_striate.HyenaOperator):
            module.distill(8)
    close(hyena(tokens), want, 1e-3)
    laughing = zoo.create_model("laughing_hyena_small", num_classes=11, **_TOY).double().eval()
    laughing.load_state_dict(hyena.state_dict())
    assert torch.equal(laughing(tokens), hyena(tokens))


def test_importing_striate_does_not_import_the_zoo() -> None:
    import subprocess
    import sys

    code = "import sys, striate; assert 'striate.zoo' not in sys.modules; striate.zoo.info('resnet18')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_networks_are_timed_in_both_steps() -> None:
    from striate.bench import zoo as timed

    records = list(timed.measure(("mobilenetv3_small_100",), (1,), 0.01))
    assert [record["step"] for record in records] == ["forward", "step"]
    for record in records:
        assert all(times["median"] > 0 for times in record["times"].values())
        assert timed.line(record).startswith("mobilenetv3_small_100")
