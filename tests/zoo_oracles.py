"""Reference implementations of the zoo's rows, from packages that happen to be installed.

Rows without such a package leave a fingerprint of our own outputs in zoo_golden.json, which guards against change;
``python tests/zoo_oracles.py`` writes it anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate import zoo
from striate.zoo.registry import reference

Call = Callable[[nn.Module, Any], Any]


GOLDEN = Path(__file__).with_name("zoo_golden.json")
PACKAGES = ("timm", "torchvision", "spandrel", "dynamic_network_architectures")


def has_oracle(row: zoo.Row) -> bool:
    """Whether a package on PyPI holds this network."""
    return row.oracle.partition(":")[0] in PACKAGES


@cache
def golden() -> dict[str, list[float]]:
    """The fingerprints that were written."""
    return json.loads(GOLDEN.read_text())


def leaves(value: Any) -> list[Tensor]:
    """The tensors of a nested output."""
    return [value] if isinstance(value, Tensor) else [leaf for item in value for leaf in leaves(item)]


def fingerprint(row: zoo.Row, shape: tuple[int, ...], **overrides: Any) -> list[float]:
    """Moments and some values of the outputs, in float64, for weights and an input that a formula gives.

    The formula numbers tensors by first use and looks at their shape without axes of one, not at names or at the order
    in which a constructor made them.
    """
    model = zoo.create_model(row.name, **overrides).double().eval()
    x = torch.sin(torch.arange(math.prod(shape), dtype=torch.double) * 0.0137).view(shape)
    x = x if row.channels else torch.arange(math.prod(shape)).view(shape) * 7 % row.classes
    with torch.no_grad():
        for k, (name, tensor) in enumerate(zoo.first_use(model, x).items()):
            wave = torch.cos(torch.arange(tensor.numel(), dtype=torch.double) * 0.7390851 + k)
            plain = tensor.squeeze()
            if plain.ndim > 1:
                wave = wave * math.sqrt(3 / plain[0].numel())
            else:
                wave = wave * 0.1 + (1 if "var" in name or name.endswith("weight") else 0)
            tensor.copy_(wave.view(tensor.shape))
        y = torch.cat([leaf.flatten() for leaf in leaves(model(x))])
    picks = y[torch.linspace(0, y.numel() - 1, 5).long()]
    return [y.mean().item(), y.std().item(), *picks.tolist()]


def oracle(row: zoo.Row) -> tuple[nn.Module, Call | None]:
    """The reference of a row, and how to call it if not like any module; skips where there is none."""
    package = row.oracle.partition(":")[0]
    if package == "dynamic_network_architectures":
        return plain_conv_unet(), None
    if package not in ("timm", "torchvision", "spandrel"):
        pytest.skip(f"no installable reference: {row.oracle}")
    try:
        pytest.importorskip(package)
    except Exception as error:  # torchvision beside a torch of another build fails in many ways
        pytest.skip(f"{package} does not import: {error}")
    options = identity_former(row) if row.family == "IdentityFormer" else OPTIONS.get(row.name, {})
    return reference(row.oracle, **options), CALLS.get(row.name)


def identity_former(row: zoo.Row) -> dict[str, Any]:
    """timm has the mixer's frame, but registers no network without a mixer."""
    from timm.models.metaformer import GroupNorm1NoBias

    sizes = {"depths": row.args["depths"], "dims": row.args["dims"]}
    return {**sizes, "token_mixers": nn.Identity, "norm_layers": GroupNorm1NoBias, "use_mlp_head": False}


def plain_conv_unet() -> nn.Module:
    """nnU-Net's default volume network."""
    home = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    norm = {"norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"eps": 1e-5, "affine": True}}
    shape = {
        "kernel_sizes": 3,
        "strides": (1, 2, 2, 2, 2, 2),
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": 2,
    }
    style = {"conv_bias": True, "nonlin": nn.LeakyReLU, "deep_supervision": True, **norm, **shape}
    return home.PlainConvUNet(1, 6, (32, 64, 128, 256, 320, 320), nn.Conv3d, num_classes=2, **style)


def naf(width: int, middle: int, encoder: list[int], decoder: list[int]) -> dict[str, Any]:
    """Arguments of spandrel's NAFNet."""
    return {"width": width, "middle_blk_num": middle, "enc_blk_nums": encoder, "dec_blk_nums": decoder}


def retina(model: Any, x: Any) -> list[Any]:
    """Raw outputs of the two towers on each level."""
    levels = list(model.backbone(x).values())
    towers = model.head.classification_head, model.head.regression_head
    return [(towers[0].cls_logits(towers[0].conv(y)), towers[1].bbox_reg(towers[1].conv(y))) for y in levels]


def ssdlite(model: Any, x: Any) -> list[Any]:
    """Raw outputs of the predictors on each level."""
    levels = model.backbone(x).values()
    heads = model.head.classification_head.module_list, model.head.regression_head.module_list
    return [(a(y), b(y)) for a, b, y in zip(*heads, levels, strict=True)]


def segmented(model: Any, x: Any) -> Any:
    """The main output; auxiliary heads are for training."""
    return model(x)["out"]


BARE = {"weights": None, "weights_backbone": None}
SEGMENTING = (
    "fcn_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
)
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "dncnn_b": {"nb": 20, "act_mode": "R"},
    "dncnn_b_color": {"nb": 20, "act_mode": "R", "in_nc": 3, "out_nc": 3},
    "retinanet_resnet50_fpn": BARE,
    "ssdlite320_mobilenet_v3_large": BARE,
    **dict.fromkeys(SEGMENTING, BARE),
    "nafnet_sidd_w32": naf(32, 12, [2, 2, 4, 8], [2, 2, 2, 2]),
    "nafnet_sidd_w64": naf(64, 12, [2, 2, 4, 8], [2, 2, 2, 2]),
    "nafnet_gopro_w32": naf(32, 1, [1, 1, 1, 28], [1, 1, 1, 1]),
    "nafnet_gopro_w64": naf(64, 1, [1, 1, 1, 28], [1, 1, 1, 1]),
}
CALLS: dict[str, Call] = {
    "retinanet_resnet50_fpn": retina,
    "ssdlite320_mobilenet_v3_large": ssdlite,
    **dict.fromkeys(SEGMENTING, segmented),
}


if __name__ == "__main__":
    from test_zoo import representatives, shape_of, thin

    torch.set_num_threads(1)

    names = [name for name in representatives() if not has_oracle(zoo.info(name))]
    rows = {name: zoo.info(name) for name in names}
    prints = {name: fingerprint(r, shape_of(r), **thin(r)) for name, r in rows.items()}
    lines = (f"{json.dumps(name)}: {json.dumps(values)}" for name, values in prints.items())
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
