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


OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "dncnn_b": {"nb": 20, "act_mode": "R"},
    "dncnn_b_color": {"nb": 20, "act_mode": "R", "in_nc": 3, "out_nc": 3},
}
CALLS: dict[str, Call] = {}
