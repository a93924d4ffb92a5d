"""Calls of every public function, small enough for gradcheck, with torch's function for the same mathematics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import striate


@dataclass(frozen=True)
class Case:
    name: str
    input: tuple[int, ...]
    weight: tuple[int, ...]
    bias: int | None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> str:
        return self.name.split("-")[0]

    @property
    def ours(self) -> Callable[..., torch.Tensor]:
        function, options = getattr(striate, self.function), self.options
        return lambda x, w, b=None: function(x, w, b, **options)

    @property
    def torchs(self) -> Callable[..., torch.Tensor]:
        rank = int(self.function[-2])
        options = dict(self.options)
        lift = len(self.weight) == rank + 1
        if self.function.startswith("depthwise"):
            options["groups"] = self.input[-rank - 1]
        function = getattr(F, self.function.removeprefix("depthwise_"))
        return lambda x, w, b=None: function(x, w.unsqueeze(1) if lift else w, b, **options)

    def tensors(self, dtype: torch.dtype = torch.float64, grad: bool = False) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        shapes: list[tuple[int, ...]] = [self.input, self.weight]
        if self.bias is not None:
            shapes.append((self.bias,))
        made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
        return [t.requires_grad_(grad) for t in made]


CASES = [
    Case("conv1d", (2, 3, 8), (6, 1, 3), 6, {"stride": 2, "padding": 1, "groups": 3}),
    Case("conv1d-same_even", (2, 2, 7), (2, 1, 4), 2, {"padding": "same", "groups": 2}),
    Case("conv2d", (2, 2, 6, 5), (2, 1, 3, 2), 2, {"stride": (2, 1), "padding": (1, 0), "groups": 2}),
    Case(
        "conv2d-dilated", (1, 2, 7, 6), (4, 1, 3, 2), 4, {"padding": (2, 1), "dilation": (2, 3), "groups": 2}
    ),
    Case("conv2d-unbatched", (2, 5, 5), (2, 1, 3, 3), 2, {"padding": "valid", "groups": 2}),
    Case("conv2d-dense", (2, 2, 5, 5), (3, 2, 3, 3), 3, {"padding": 1}),
    Case("conv3d", (1, 2, 4, 4, 3), (2, 1, 2, 3, 2), 2, {"stride": (1, 2, 1), "padding": 1, "groups": 2}),
    Case("conv_transpose1d", (2, 4, 5), (4, 1, 3), 2, {"stride": 2, "output_padding": 1, "groups": 2}),
    Case(
        "conv_transpose1d-dilated", (2, 2, 5), (2, 1, 3), 2, {"output_padding": 2, "dilation": 3, "groups": 2}
    ),
    Case(
        "conv_transpose2d", (1, 2, 3, 4), (2, 1, 3, 2), 2, {"stride": (2, 3), "padding": (1, 0), "groups": 2}
    ),
    Case("conv_transpose2d-dense", (1, 2, 3, 4), (2, 3, 3, 2), 3, {"stride": 2, "padding": 1}),
    Case("conv_transpose3d", (1, 2, 2, 3, 2), (2, 1, 2, 2, 3), 2, {"stride": 2, "padding": 1, "groups": 2}),
    Case("depthwise_conv1d", (2, 3, 7), (6, 3), 6, {"padding": 1}),
    Case("depthwise_conv2d", (2, 2, 5, 6), (2, 1, 3, 3), 2, {"stride": 2, "padding": 1}),
    Case("depthwise_conv2d-unbatched", (2, 5, 6), (4, 2, 3), None, {"padding": "same"}),
    Case("depthwise_conv3d", (1, 2, 4, 3, 4), (2, 2, 3, 2), 2, {"padding": 1}),
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
