"""Rows of data, and the functions that turn a row into a network."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..nn._transfer import transfer
from . import kit
from .network import FeatureNet, Network, initialise

# The modules under rows/, in the order of the generated table.
_TABLES = ("plain", "residual", "irb", "metanet", "branch", "multires", "unet", "dense", "seqnet")


@dataclass(frozen=True)
class Row:
    """One network as data.

    Attributes:
        family: the architecture of which this is a variant.
        skeleton: which of the nine skeletons interprets ``args``.
        args: keyword arguments of the skeleton.
        size: input extents per spatial axis for which ``macs`` and ``accuracy`` are published.
        name: unique name, in timm's spelling where timm has the network.
        params: exact number of parameters with ``classes`` classes.
        paper: arXiv number or citation.
        oracle: what the row was compared with, as ``package:name`` or ``github:owner/name`` (see docs/zoo.md).
        licence: of the reference implementation.
        macs: published multiply-adds in 1e9, 0 where none was found.
        accuracy: published top-1 on ImageNet-1k in percent, or the paper's own measure.
        classes: outputs of the classifier; 0 for networks without one.
        channels: input channels; 0 where the input is tokens, ``classes`` different ones.
        fixed: whether the network takes inputs of ``size`` alone.
    """

    family: str
    skeleton: str
    args: Mapping[str, Any] = field(repr=False)
    size: tuple[int, ...] = (224, 224)
    name: str = ""
    params: int = 0
    paper: str = ""
    oracle: str = ""
    licence: str = ""
    macs: float = 0.0
    accuracy: str = ""
    classes: int = 1000
    channels: int = 3
    fixed: bool = False

    def example(self, batch: int = 1, most: int = 96) -> Tensor:
        """A random input whose axes are no longer than ``most`` unless they must: maps, or tokens [batch, length]."""
        extents = [n if self.fixed else min(n, most) for n in self.size]
        if not self.channels:
            return torch.randint(self.classes, (batch, *extents))
        return torch.randn(batch, self.channels, *extents)


@cache
def rows() -> dict[str, Row]:
    """All rows by name."""
    found: dict[str, Row] = {}
    for table in _TABLES:
        for row in importlib.import_module(f".rows.{table}", __package__).ROWS:
            if row.name in found:
                raise ValueError(f"two rows are called {row.name}")
            found[row.name] = row
    return found


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern."""
    return fnmatch.filter(rows(), pattern)


def info(name: str) -> Row:
    """The row of a network.

    Raises:
        ValueError: there is no such row; the message names the closest ones.
    """
    if name not in rows():
        import difflib

        close = ", ".join(difflib.get_close_matches(name, rows())) or "nothing similar"
        raise ValueError(f"no network is called {name!r}; closest: {close}")
    return rows()[name]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    conv: kit.Factory = "torch",
    **overrides: Any,
) -> Network | FeatureNet:
    """Build a network from its row, with fresh weights.

    Args:
        name: a name from :func:`list_models`.
        num_classes: outputs of the classifier; the row's own number (1000 for ImageNet networks) by default.
        in_chans: input channels; the row's own number (mostly 3) by default.
        features_only: return a list of maps instead of logits.
        out_indices: which maps, negative ones from the end; all by default. Only with ``features_only``.
        conv: "torch", "striate", or a callable with the signature of torch.nn.Conv2d (kernel sizes are tuples, whose
            length is the rank).
        overrides: arguments of the skeleton that replace those of the row.

    Raises:
        ValueError: an unknown name, an index out of range, or classes asked of a network without classifier.
        TypeError: an override that the skeleton does not know.
    """
    row = info(name)
    if out_indices is not None and not features_only:
        raise ValueError("out_indices needs features_only=True")
    if num_classes is not None and not row.classes:
        raise ValueError(f"{name} has no classifier, but num_classes={num_classes} was given")
    args = {**row.args, **overrides}
    # Defaults belong to the row, so that a skeleton never guesses them.
    args["classes"] = row.classes if num_classes is None else num_classes
    args["channels"] = row.channels if in_chans is None else in_chans
    skeleton = importlib.import_module(f".skeletons.{row.skeleton.lower()}", __package__)
    with kit.using(conv=conv, rank=len(row.size), partial=args.pop("partial_padding", False)):
        model = skeleton.build(skeleton.Plan(**args))
    initialise(model, small=row.skeleton == "MetaNet")
    model.row = row
    return FeatureNet(model, out_indices) if features_only else model


def load_from(model: nn.Module, source: nn.Module | Mapping[str, Tensor] | str | Path) -> None:
    """Fill a network of this zoo with foreign weights, in place.

    A module is read by order of first use (see :func:`striate.zoo.transfer`). A state dict, a safetensors file or a
    file written by torch.save is loaded directly if its names are ours; otherwise it is interpreted by the reference
    implementation that the row names, which must be installed.

    Raises:
        ValueError: the weights belong to another network.
    """
    row: Row = model.row  # type: ignore[assignment]
    example = row.example().to(next(model.parameters()).device)
    if isinstance(source, nn.Module):
        transfer(source, model, example)
        return
    state = _read(source)
    if state.keys() == model.state_dict().keys():
        model.load_state_dict(state)
        return
    foreign = reference(row.oracle)
    foreign.load_state_dict(state)
    transfer(foreign.to(example.device), model, example)


def _read(source: Mapping[str, Tensor] | str | Path) -> dict[str, Tensor]:
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


def family(base: Row, *variants: Mapping[str, Any]) -> list[Row]:
    """Rows that share what ``base`` says; see :func:`variant`."""
    made = []
    for given in variants:
        new = dict(given)
        new["args"] = {**base.args, **new["args"]}
        if base.oracle.endswith(":"):
            new.setdefault("oracle", base.oracle + new["name"])
        made.append(replace(base, **new))
    return made


def variant(name: str, params: int, macs: float = 0.0, accuracy: str = "", **rest: Any) -> dict[str, Any]:
    """What one row says of its own: fields of :class:`Row`, and arguments of its skeleton by any other name."""
    own = {key: rest.pop(key) for key in list(rest) if key in Row.__dataclass_fields__}
    return {"name": name, "params": params, "macs": macs, "accuracy": accuracy, "args": rest, **own}
