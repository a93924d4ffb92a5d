"""Where weights come from: files, and the reference implementations that rows name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def read(source: Mapping[str, Tensor] | str | Path) -> dict[str, Tensor]:
    """A state dict from a mapping, a safetensors file or a file that torch.save wrote."""
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    return dict(state.get("state_dict", state))


def reference(oracle: str, **options: Any) -> nn.Module:
    """The reference implementation that a row names, such as ``timm:resnet50``, if its package is installed.

    Raises:
        ValueError: the row names no package from which a model could be built.
    """
    package, _, name = oracle.partition(":")
    homes = {
        "timm": "timm.models",
        "torchvision": f"torchvision.models.{name.rpartition('.')[0]}".rstrip("."),
        "spandrel": f"spandrel.architectures.{name}",
    }
    if package in homes:
        home = importlib.import_module(homes[package])
        return getattr(home, name.rpartition(".")[2])(**options)
    raise ValueError(f"{oracle!r} names no installed package that could interpret a foreign state dict")
