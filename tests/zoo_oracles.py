"""Reference implementations of the zoo's rows, from packages that happen to be installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from striate import zoo
from striate.zoo import weights

Call = Callable[[nn.Module, Any], Any]


def oracle(row: zoo.Row) -> tuple[nn.Module, Call | None]:
    """The reference of a row, and how to call it if not like any module; skips where there is none."""
    package = row.oracle.partition(":")[0]
    if package not in ("timm", "torchvision", "spandrel", "monai"):
        pytest.skip(f"no installable reference: {row.oracle}")
    try:
        pytest.importorskip(package)
    except Exception as error:  # torchvision beside a torch of another build fails in many ways
        pytest.skip(f"{package} does not import: {error}")
    return weights.reference(row.oracle, **OPTIONS.get(row.name, {})), CALLS.get(row.name)


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


BARE = {"weights_backbone": None}
SEGMENTING = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "dncnn_b": {"nb": 20, "act_mode": "R"},
    "dncnn_b_color": {"nb": 20, "act_mode": "R", "in_nc": 3, "out_nc": 3},
    "retinanet_resnet50_fpn": BARE,
    "ssdlite320_mobilenet_v3_large": BARE,
    **dict.fromkeys(SEGMENTING, BARE),
}
CALLS: dict[str, Call] = {
    "retinanet_resnet50_fpn": retina,
    "ssdlite320_mobilenet_v3_large": ssdlite,
    **dict.fromkeys(SEGMENTING, segmented),
}
