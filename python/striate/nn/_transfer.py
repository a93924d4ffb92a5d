"""Weights from another implementation of the same network, without rename tables.

Two implementations of one network consume their parameters in the same order in a forward pass. A
TorchFunctionMode notes the order of first use on both sides, the orders are zipped, and shapes that differ by
more than axes of length one are an error.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Functions whose result stands for their first argument.
# fmt: off
_VIEWS = {"view", "reshape", "permute", "unsqueeze", "squeeze", "expand", "__getitem__", "transpose", "flatten", "t",
          "to", "contiguous", "movedim", "moveaxis", "type", "float", "view_as_complex", "interpolate", "detach"}
# fmt: on
_QUESTIONS = {"__get__", "__set__", "size", "dim", "numel", "is_contiguous", "stride"}


class _FirstUse(TorchFunctionMode):
    """Notes the order in which the tensors of a model are first consumed; views of a tensor stand for it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        named = model.state_dict(keep_vars=True)  # what belongs to a checkpoint: no constants
        self.names = {id(tensor): (name, tensor) for name, tensor in named.items()}
        self.order: dict[str, Tensor] = {}
        self.alive: list[Tensor] = []  # ids are only unique among living tensors

    def _visit(self, value: Any) -> None:
        if isinstance(value, Tensor) and id(value) in self.names:
            name, tensor = self.names[id(value)]
            self.order.setdefault(name, tensor)
        elif isinstance(value, (list, tuple)):
            for item in value:
                self._visit(item)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _QUESTIONS:
            return result
        if name in _VIEWS and args and id(args[0]) in self.names:
            self.names[id(result)] = self.names[id(args[0])]
            self.alive.append(result)
            return result
        self._visit(args)
        self._visit(list(kwargs.values()))
        return result


def first_use(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """Names and tensors of a model in the order in which one forward pass first consumes them."""
    training = model.training
    model.eval()
    with torch.no_grad(), _FirstUse(model) as uses:
        model(example)
    model.train(training)
    return uses.order


def _alike(a: Tensor, b: Tensor) -> bool:
    """Equal but for axes of length one, or a dense layer and a convolution over its whole input."""
    if a.squeeze().shape == b.squeeze().shape:
        return True
    return min(a.ndim, b.ndim) == 2 and a.numel() == b.numel() and a.shape[0] == b.shape[0]


def transfer(source: nn.Module, target: nn.Module, example: Tensor) -> None:
    """Copy the weights of ``source`` into ``target`` by order of first use.

    Raises:
        ValueError: the two models consume a different number of tensors, or tensors of different shapes.
    """
    ours, theirs = first_use(target, example), first_use(source, example)
    if len(ours) != len(theirs):
        raise ValueError(f"the source uses {len(theirs)} tensors, but this network uses {len(ours)}")
    with torch.no_grad():
        for (name, into), (other, value) in zip(ours.items(), theirs.items(), strict=True):
            if not _alike(into, value):
                shapes = f"{name} has shape {tuple(into.shape)}, but {other} has {tuple(value.shape)}"
                raise ValueError(f"the networks differ: {shapes}")
            into.copy_(value.reshape(into.shape))
