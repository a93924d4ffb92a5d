"""What all networks have in common: features with declared strides, one head, checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import kit


@dataclass(frozen=True)
class Feature:
    """What stage ``index`` gives: ``channels`` maps, each axis divided by ``stride``."""

    index: int
    channels: int
    stride: int | tuple[int, ...]


class Head(nn.Module):
    """``before`` the classifier (pooling, norms, hidden layers), the classifier, and what comes after it."""

    def __init__(self, before: nn.Module, classifier: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.before = before
        self.classifier = classifier
        self.after = after or nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.before(x)
        return x if pre_logits else self.after(self.classifier(x))

    def reset(self, num_classes: int) -> None:
        """A new classifier of the same kind for another number of classes; 0 removes it."""
        old = self.classifier
        if isinstance(old, nn.Identity) and num_classes:
            raise ValueError("the classifier has been removed; create the model again")
        if num_classes == 0:
            self.classifier = nn.Identity()
            return
        like = next(old.parameters())
        if isinstance(old, nn.Linear):
            self.classifier = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
        else:
            c = cast(Any, old)
            self.classifier = type(old)(c.in_channels, num_classes, c.kernel_size, bias=c.bias is not None)
        self.classifier.to(device=like.device, dtype=like.dtype)


# What a head is made of: each step takes the number of channels and returns a layer and the new number.
_Step = Callable[..., tuple[nn.Module, int]]
_STEPS: dict[str, _Step] = {
    "pool": lambda c, keepdim=False: (kit.Mean(keepdim), c),
    "max_pool": lambda c: (nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), c),
    "grid_pool": lambda c, size: (nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Flatten()), c * size * size),
    "norm": lambda c, kind="ln": (kit.norm(kind, c), c),
    "layer_norm": lambda c, eps=1e-6: (nn.LayerNorm(c, eps), c),
    "batch_norm": lambda c: (nn.BatchNorm1d(c), c),
    "act": lambda c, kind: (kit.act(kind), c),
    "linear": lambda c, width=None, ratio=1: (nn.Linear(c, width or ratio * c), width or ratio * c),
    "conv": lambda c, width, **options: (kit.cna(c, width, 1, **options), width),
    "flatten": lambda c: (nn.Flatten(), c),
    "dropout": lambda c, rate=0.5: (nn.Dropout(rate), c),
}


def make_head(channels: int, num_classes: int, steps: Iterable[kit.Spec]) -> Head:
    """A head from steps such as ``("pool", "layer_norm")``, closed by a linear classifier."""
    layers: list[nn.Module] = []
    for spec in steps:
        name, options = (spec, {}) if isinstance(spec, str) else cast("tuple[str, dict[str, Any]]", spec)
        made, channels = _STEPS[name](channels, **options)
        layers.append(made)
    classifier = nn.Linear(channels, num_classes) if num_classes else nn.Identity()
    return Head(nn.Sequential(*layers), classifier)


class Network(nn.Module):
    """A stem, stages that each end at a declared feature, a last layer and a head.

    Attributes:
        feature_info: one :class:`Feature` for each stage.
        grad_checkpointing: whether stages are recomputed in the backward pass.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        features: Sequence[tuple[int, int | tuple[int, ...]]],
        **ends: Any,
    ):
        super().__init__()
        if len(stages) != len(features):
            raise ValueError(f"{len(stages)} stages need as many features, but got {len(features)}")
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.final: nn.Module = ends.get("final") or nn.Identity()
        self.head: nn.Module = ends.get("head") or nn.Identity()
        self.feature_info = tuple(Feature(i, c, s) for i, (c, s) in enumerate(features))
        self.grad_checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each stage in the backward pass instead of keeping what is inside it."""
        self.grad_checkpointing = enable

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        """The map at the end of each stage."""
        maps, x = [], self.stem(x)
        for stage in self.stages:
            again = self.grad_checkpointing and torch.is_grad_enabled()
            x = checkpoint(stage, x, use_reentrant=False) if again else stage(x)
            maps.append(x)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, before pooling."""
        return self.final(self.forward_intermediates(x)[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """From the last map to logits, or to what the classifier would see."""
        return self.head(x, pre_logits) if isinstance(self.head, Head) else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or whatever the head gives."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last layer of the head."""
        return self._classifying().classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a fresh one; 0 leaves the features before it."""
        self._classifying().reset(num_classes)

    def _classifying(self) -> Head:
        if not isinstance(self.head, Head):
            raise TypeError(f"{type(self).__name__} has no classifier")
        return self.head


def initialise(model: nn.Module, small: bool) -> None:
    """Fresh weights: He's deviation for convolutions, or 0.02 for them and dense layers where blocks are normed."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd) or (small and isinstance(module, nn.Linear)):
            fan = module.weight[0].numel()
            deviation = 0.02 if small else (2 / fan) ** 0.5
            nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


# Parts of networks that features do not pass through, and that would keep parameters without gradients.
_BEYOND = {"head", "final", "neck", "up", "decode", "out", "fuse", "second"}


class FeatureNet(nn.Module):
    """A network that returns the maps of chosen stages instead of logits."""

    def __init__(self, model: Network, out_indices: Sequence[int] | None) -> None:
        super().__init__()
        count = len(model.feature_info)
        chosen = range(count) if out_indices is None else out_indices
        wrong = [i for i in chosen if not -count <= i < count]
        if wrong:
            raise ValueError(f"out_indices must lie in [-{count}, {count - 1}], but got {list(chosen)}")
        self.out_indices = tuple(i % count for i in chosen)
        self.feature_info = tuple(model.feature_info[i] for i in self.out_indices)
        for network in [module for module in model.modules() if isinstance(module, Network)]:
            for name in _BEYOND & network._modules.keys():
                setattr(network, name, nn.Identity())
        last = max(self.out_indices, default=-1)
        if type(model).forward_intermediates is Network.forward_intermediates:
            del model.stages[last + 1 :]
        self.model = model

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each stage in the backward pass."""
        self.model.set_grad_checkpointing(enable)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The chosen maps, in the order of ``out_indices``."""
        maps = self.model.forward_intermediates(x)
        return [maps[i] for i in self.out_indices]
