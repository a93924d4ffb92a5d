"""CUDA without a device: inside the mode, striate's operators run on host tensors as a device would run them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cuda_recipe import conv_recipe, emulate
from strategies import channels_last
from striate._problem import conv_line, layout_word, read_config

_CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)


class EmulatedCuda(TorchDispatchMode):
    """Convolutions run the text of their CUDA rows; others what the dispatcher knows for CUDA tensors.

    ``ran`` counts the operators by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ran: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, name = func._schema.name.split("::")
        if namespace != "striate":
            return func(*args, **(kwargs or {}))
        self.ran[name] = self.ran.get(name, 0) + 1
        if name in ("conv", "conv_grad_input", "conv_grad_weight"):
            return _convolved(func, name, args)
        return func.redispatch(_CUDA, *args, **(kwargs or {}))


def _convolved(func: Any, name: str, args: Any) -> Tensor:
    made: Tensor = func(*args)  # for its shape, type and strides
    first, second = args[0], args[1]
    layout = layout_word(first)

    def dense(tensor: Tensor) -> Tensor:
        return channels_last(tensor) if layout == "nhwc" else tensor.contiguous()

    settings = read_config(args[-1])
    dims = len(settings.stride)
    if name == "conv":
        pass_, x, weight = "fwd", first, second.shape
    elif name == "conv_grad_input":
        pass_, x, weight = "dx", made, second.shape
    else:
        assert settings.kernel is not None
        pass_, x, weight = "dw", second, torch.Size((first.shape[1], 1, *settings.kernel))
    operands = (
        (dense(first), dense(second), None) if pass_ == "dw" else (dense(first), second.contiguous(), args[2])
    )
    kind = made.dtype if pass_ == "dw" else second.dtype
    groups = settings.groups or x.shape[1]
    channels = (x.shape[0], groups, x.shape[1] // groups, weight[0] // groups)
    pads = [side for pair in settings.padding for side in pair]
    axes = (tuple(x.shape[2:]), tuple(weight[-dims:]), settings.stride, settings.dilation, pads)
    line = conv_line(pass_, (first.dtype, kind), (layout, "cuda"), channels, axes) + " tf32" * settings.tf32
    out = torch.full_like(made, torch.nan)
    emulate(conv_recipe(line), operands, (out,), seed=1)
    return out
