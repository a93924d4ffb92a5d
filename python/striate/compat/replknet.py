"""The depthwise layer of the RepLKNet example under its name."""

from __future__ import annotations

from typing import Any

from ..nn._built import Ints, pair
from ..nn.conv import Conv2d

__all__ = ["DepthWiseConv2dImplicitGEMM"]


class DepthWiseConv2dImplicitGEMM(Conv2d):
    """A depthwise convolution that keeps the size of maps, in any floating dtype and layout.

    ``padding`` says what is padded, K // 2, where the published layer says 0, so that code which merges branches
    by the attributes of the layer works.

    Args:
        channels: C of ``[N, C, H, W]``.
        kernel: K or (kh, kw).
        bias: as in :class:`torch.nn.Conv2d`; device and dtype may follow as keywords.
    """

    def __init__(self, channels: int, kernel: Ints, bias: bool = False, **factory: Any) -> None:
        size = pair(kernel)
        padding = (size[0] // 2, size[1] // 2)
        super().__init__(channels, channels, size, padding=padding, groups=channels, bias=bias, **factory)
