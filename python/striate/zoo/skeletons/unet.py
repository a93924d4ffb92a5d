"""UNet: an encoder, a decoder and skips between them, in any rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ... import nn as layers
from .. import kit
from ..levels import DOWNS, LEVELS, UPS, merge
from ..network import Network


@dataclass(frozen=True)
class Plan:
    """Arguments of a U-shaped network; a list holds one entry for each level, from fine to coarse.

    Attributes:
        widths: channels of each level of the encoder; ``ups`` of the decoder if they differ.
        encoder, decoder: what stands on each level, with its arguments.
        down, up: what leads from level to level; "stride" lets the level of the encoder stride itself.
        merge: "add", "skip_up" or "up_skip" (the order of concatenation).
        stem: level in front of the first, and its width.
        out: (kernel, channels, bias) of the last layer; channels 0 mean the classes.
        tail: "none", "add" or "subtract": what the output does to the last ``channels`` of the input.
        deep: "decoder" gives every level of the decoder an output, "sides" the coarsest of the encoder too and enlarges
            them to the input, "fused" puts their weighted sum in front.
        form: "plain", "blind" (CBDNet: a noise estimate joins the input), "video" (FastDVDnet: two of these in a
            row) or "partial" (masked convolutions).
    """

    classes: int
    channels: int
    widths: Sequence[int]
    encoder: Any = ("convs", {})
    decoder: Any = ("convs", {})
    down: str = "max"
    up: str = "transpose"
    merge: str = "skip_up"
    ups: Sequence[int] | None = None
    stem: tuple[Any, int] | None = None
    out: tuple[int, int, bool] = (1, 0, True)
    tail: str = "none"
    deep: str = "none"
    form: str = "plain"


class UNet(Network):
    """Features are those of the encoder; the head is the whole decoder."""

    def __init__(self, plan: Plan, channels: int | None = None) -> None:
        i, last = channels or plan.channels, len(plan.widths) - 1
        stem: nn.Module = nn.Identity()
        if plan.stem:
            stem, i = kit.build(LEVELS, plan.stem[0], i, plan.stem[1]), plan.stem[1]
        stages: list[nn.Module] = []
        for n, w in enumerate(plan.widths):
            strides = plan.down == "stride"
            down = [DOWNS[plan.down](i, w)] if n and not strides else []
            enter = w if down and plan.down.startswith("conv") else i
            options = {"stride": 2} if n and strides else {}
            level = kit.build(LEVELS, kit.at(plan.encoder, n), enter, w, **options)
            stages.append(nn.Sequential(*down, level))
            i = w
        first = plan.stem[0][1].get("stride", 1) if plan.stem and isinstance(plan.stem[0], tuple) else 1
        super().__init__(stem, stages, [(w, first << n) for n, w in enumerate(plan.widths)])
        self.up, self.decode = nn.ModuleList(), nn.ModuleList()
        ups, outs = plan.ups or plan.widths, [plan.widths[-1]]
        for n in range(last - 1, -1, -1):
            skip, o = plan.widths[n], ups[n]
            self.up.append(UPS[plan.up](i, skip))
            arrives = i if plan.up in ("aligned", "bilinear") else skip
            joined = skip if plan.merge == "add" else skip + arrives
            options = {"mid": joined // 2} if plan.up == "aligned" else {}
            self.decode.append(kit.build(LEVELS, kit.at(plan.decoder, n), joined, o, **options))
            i = o
            outs.append(o)
        kernel, classes, bias = plan.out[0], plan.out[1] or plan.classes, plan.out[2]
        self.merge, self.tail, self.deep, self.classes = plan.merge, plan.tail, plan.deep, classes
        outs = outs[{"none": -1, "decoder": 1}.get(plan.deep, 0) :]
        self.out = nn.ModuleList(kit.conv(w, classes, kernel, bias=bias) for w in outs)
        self.fuse = kit.conv(classes * len(outs), classes, 1) if plan.deep == "fused" else None

    def forward_features(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """The maps of the encoder, from fine to coarse."""
        return self.forward_intermediates(x)

    def forward(self, x: Tensor) -> Any:
        """The output map; with deep supervision one for each level, the finest first."""
        maps = self.forward_features(x)
        y, outs = maps.pop(), list(self.out)
        outputs = [outs.pop(0)(y)] if len(outs) > len(self.decode) else []
        for up, decode, skip in zip(self.up, self.decode, reversed(maps), strict=True):
            y = merge(self.merge, up(y, skip), skip)
            y = checkpoint(decode, y, use_reentrant=False) if self.grad_checkpointing else decode(y)
            if len(outs) + len(outputs) > 1:
                outputs.insert(0, outs.pop(0)(y))
        outputs = outputs or [outs[0](y)]
        if self.deep in ("sides", "fused"):
            outputs = [F.interpolate(z, x.shape[2:], mode="bilinear", align_corners=False) for z in outputs]
        if self.fuse is not None:
            outputs.insert(0, self.fuse(torch.cat(outputs, 1)))
        if self.deep != "none":
            return outputs
        if self.tail == "none":
            return outputs[0]
        kept = x[:, -self.classes :]
        return kept + outputs[0] if self.tail == "add" else kept - outputs[0]


class Blind(UNet):
    """Five layers estimate the noise, which joins the input of the denoiser (CBDNet, arXiv 1807.04686)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, 2 * plan.channels)
        c = plan.channels
        widths = [c, 32, 32, 32, 32, c]
        self.estimate = nn.Sequential(*(kit.cna(a, b, 3, norm="none") for a, b in pairwise(widths)))

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        return super().forward_intermediates(torch.cat([x, self.estimate(x)], 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Video(Network):
    """Five frames and a noise map: one denoiser on each three neighbours, a second on its three results."""

    def __init__(self, plan: Plan) -> None:
        first, second = UNet(plan, 12), UNet(plan, 12)
        features = [(f.channels, f.stride) for f in first.feature_info]
        super().__init__(nn.Identity(), [nn.Identity()] * len(features), features)
        self.first, self.second = first, second

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        *frames, noise = x.split([3] * 5 + [1], 1)
        return self.first.forward_intermediates(_noisy(frames[1:4], noise))

    def forward(self, x: Tensor) -> Tensor:
        *frames, noise = x.split([3] * 5 + [1], 1)
        middle = [self._denoise(self.first, frames[n : n + 3], noise) for n in range(3)]
        return self._denoise(self.second, middle, noise)

    def _denoise(self, net: UNet, frames: Sequence[Tensor], noise: Tensor) -> Tensor:
        return frames[1] - net(_noisy(frames, noise))


def _noisy(frames: Sequence[Tensor], noise: Tensor) -> Tensor:
    return torch.cat([part for frame in frames for part in (frame, noise)], 1)


class PartialLevel(nn.Module):
    """A partial convolution, norm and activation; the mask goes along (arXiv 1804.07723)."""

    def __init__(
        self, i: int, o: int, kernel: int, *, stride: int = 1, act: kit.Spec = "relu", last: bool = False
    ) -> None:
        super().__init__()
        self.conv = layers.PartialConv2d(i, o, kernel, stride, kernel // 2, bias=last)
        normed = not last and kernel != 7  # neither the first nor the last layer has a norm
        self.after = nn.Sequential(kit.norm("bn" if normed else "none", o), kit.act("none" if last else act))

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y, mask = self.conv(*state)
        return self.after(y), mask.expand(y.shape[0], y.shape[1], -1, -1)


class Partial(Network):
    """Inpainting: an image and its mask (the last channel, one where valid) to a whole image."""

    def __init__(self, plan: Plan) -> None:
        widths, image = list(plan.widths), plan.channels - 1
        kernels = [7, 5, 5] + [3] * (len(widths) - 3)
        ends = zip([image, *widths], widths, kernels, strict=False)
        stages = [PartialLevel(a, b, k, stride=2) for a, b, k in ends]
        super().__init__(nn.Identity(), stages, [(w, 2 << n) for n, w in enumerate(widths)])
        decode = []
        for below, skip in zip(widths[::-1], [*widths[-2::-1], image], strict=True):
            decode.append(
                PartialLevel(
                    below + skip, skip, 3, act=("leaky_relu", {"negative_slope": 0.2}), last=skip == image
                )
            )
        self.decode = nn.ModuleList(decode)

    def _encode(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        image, mask = x[:, :-1], x[:, -1:]
        states = [(image, mask.expand_as(image))]
        for stage in self.stages:
            states.append(stage(states[-1]))
        return states

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        return [y for y, _ in self._encode(x)[1:]]

    def forward(self, x: Tensor) -> Tensor:
        states = self._encode(x)
        state = states.pop()
        for level, skip in zip(self.decode, reversed(states), strict=True):
            pairs = zip(state, skip, strict=True)
            state = level(tuple(torch.cat([F.interpolate(a, b.shape[2:]), b], 1) for a, b in pairs))
        return state[0]


def build(plan: Plan) -> Network:
    """Build the network of a plan."""
    return {"plain": UNet, "blind": Blind, "video": Video, "partial": Partial}[plan.form](plan)
