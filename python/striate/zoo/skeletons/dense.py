"""Dense: the maps of any backbone of the zoo, a neck that relates them, and a head on each level or on the last."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .. import kit
from ..heads import HEADS, NECKS
from ..network import FeatureNet, Network


@dataclass(frozen=True)
class Plan:
    """Arguments of a dense network.

    Attributes:
        backbone: (skeleton, its arguments).
        levels: which features of the backbone are used.
        neck, head: what relates the maps, and what reads them.
    """

    classes: int
    channels: int
    backbone: tuple[str, dict[str, Any]]
    head: kit.Spec
    neck: kit.Spec = "none"
    levels: Sequence[int] = field(default=(-1,))


class DenseNetwork(Network):
    """head(neck(maps of the backbone)); features are the backbone's."""

    def __init__(self, backbone: FeatureNet, neck: nn.Module, head: nn.Module) -> None:
        info = backbone.feature_info
        features = [(f.channels, f.stride) for f in info]
        super().__init__(nn.Identity(), [nn.Identity()] * len(info), features, head=head)
        self.backbone, self.neck = backbone, neck

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.backbone.set_grad_checkpointing(enable)

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        return self.backbone(x)

    def forward_features(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """The maps that the neck gives, from fine to coarse."""
        return self.neck(self.forward_intermediates(x))

    def forward(self, x: Tensor) -> Any:
        """What the head gives: logits for each pixel, or (class logits, box offsets) for each level."""
        return self.head(self.forward_features(x), x.shape[2:])


def build(plan: Plan) -> Network:
    """Build the network of a plan."""
    name, args = plan.backbone
    skeleton = importlib.import_module(f".{name.lower()}", __package__)
    whole = skeleton.build(skeleton.Plan(classes=0, channels=plan.channels, **args))
    backbone = FeatureNet(whole, plan.levels)
    neck: Any = kit.build(NECKS, plan.neck, [f.channels for f in backbone.feature_info])
    return DenseNetwork(backbone, neck, kit.build(HEADS, plan.head, neck.widths, plan.classes))
