"""How the three operators reach the Rust core.

Route A: Rust registers its kernels with torch's dispatcher through libtorch's stable C shim.
Route B (``STRIATE_BRIDGE=python``, or when a symbol of the shim is missing): Python kernels allocate the result and
hand raw pointers to the core. Same kernels, same results, a few microseconds more per call.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import _core
from ._call import dense
from ._problem import DTYPE_WORDS, conv_line, is_channels_last, pad_pairs

_libraries: list[torch.library.Library] = []


def install() -> str:
    """Register the kernels of the three operators; returns the name of the route taken.

    The Python route has no CUDA kernels: there torch says that the operator is missing.
    """
    _core.cuda_search_in(cuda_folders())
    if os.environ.get("STRIATE_BRIDGE", "") == "python":
        _install_python()
        return "python"
    try:
        _core.register(libtorch_path())
    except RuntimeError as error:
        warnings.warn(
            f"striate: kernels cannot be registered from Rust ({error}); using the slower Python route. "
            "Set STRIATE_BRIDGE=python to choose it without this warning.",
            stacklevel=3,
        )
        _install_python()
        return "python"
    return "rust"


def cuda_folders() -> list[str]:
    """Where wheels keep NVIDIA's libraries: beside torch, and in packages of their own."""
    site = Path(torch.__file__).parent.parent
    inside = (
        "nvidia/cu13/lib",
        "nvidia/cu12/lib",
        "nvidia/cuda_nvrtc/lib",
        "nvidia/cuda_nvrtc/bin",
        "torch/lib",
    )
    return [str(folder) for name in inside if (folder := site / name).is_dir()]


def libtorch_path() -> str:
    """The libtorch_cpu that torch itself has loaded."""
    name = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
    return str(Path(torch.__file__).parent / "lib" / name)


def _install_python() -> None:
    library = torch.library.Library("striate", "IMPL")
    library.impl("conv", _conv, "CPU")
    library.impl("conv_grad_input", _conv_grad_input, "CPU")
    library.impl("conv_grad_weight", _conv_grad_weight, "CPU")
    _libraries.append(library)


def _check(
    op: str,
    tensors: tuple[Tensor, Tensor, Tensor | None],
    lists: tuple[Sequence[int], ...],
    padding: Sequence[int],
    bias_size: int,
) -> None:
    """What raw pointers must be able to rely on; the public functions have explained most of it before."""
    first, second, bias = tensors
    rank = first.dim() - 2
    if rank not in (1, 2, 3) or second.dim() != rank + 2:
        raise RuntimeError(
            f"striate::{op}: expected two tensors of 3 to 5 axes, got {first.dim()} and {second.dim()}"
        )
    if any(len(values) != rank for values in lists) or len(padding) not in (rank, 2 * rank):
        raise RuntimeError(f"striate::{op}: expected lists of {rank} ints, got {[*lists, padding]}")
    if first.dtype not in DTYPE_WORDS:
        raise RuntimeError(
            f"striate::{op}: expected a floating dtype of 16, 32 or 64 bits, got {first.dtype}"
        )
    mixed = op != "conv_grad_weight" and first.dtype.itemsize == 2 and second.dtype == torch.float32
    if second.dtype != first.dtype and not mixed:
        raise RuntimeError(f"striate::{op}: expected matching dtypes, got {first.dtype} and {second.dtype}")
    if bias is not None and (bias.dtype != second.dtype or tuple(bias.shape) != (bias_size,)):
        raise RuntimeError(
            f"striate::{op}: expected bias of {bias_size} elements in {second.dtype}, "
            f"got {tuple(bias.shape)} in {bias.dtype}"
        )


def _expect(op: str, what: str, got: Sequence[int], wanted: Sequence[int]) -> None:
    if tuple(got) != tuple(wanted):
        raise RuntimeError(f"striate::{op}: expected {what} {tuple(wanted)}, got {tuple(got)}")


def _groups(op: str, groups: int, *channels: int) -> None:
    if groups < 1 or any(c % groups for c in channels):
        raise RuntimeError(f"striate::{op}: groups={groups} must divide the channels {channels}")


def _dense(tensor: Tensor, channels_last: bool) -> Tensor:
    return dense(tensor.movedim(1, -1) if channels_last else tensor)


def _empty(like: Tensor, channels: int, spatial: Sequence[int], channels_last: bool) -> Tensor:
    if channels_last:
        return like.new_empty((like.shape[0], *spatial, channels)).movedim(-1, 1)
    return like.new_empty((like.shape[0], channels, *spatial))


def _spatial_out(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
) -> list[int]:
    if min(*stride, *dilation, *kernel) < 1:
        raise RuntimeError(
            f"striate: stride, dilation and kernel must be positive, got {[*stride]}, {[*dilation]}, {[*kernel]}"
        )
    pads = pad_pairs(padding, len(stride))
    out = [
        (i + lo + hi - d * (k - 1) - 1) // s + 1
        for i, k, s, d, (lo, hi) in zip(size, kernel, stride, dilation, pads, strict=True)
    ]
    if min(out) < 1:
        raise RuntimeError(f"striate: the kernel {[*kernel]} is larger than the padded input {[*size]}")
    return out


def _run(line: str, out: Tensor, first: Tensor, second: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else dense(bias)
    address = 0 if bias is None else bias.data_ptr()
    try:
        _core.run(line, out.data_ptr(), first.data_ptr(), second.data_ptr(), address, torch.get_num_threads())
    except ValueError as error:
        raise RuntimeError(f"{error} [{line}]") from None
    return out


def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    _check("conv", (input, weight, bias), (stride, dilation), padding, weight.shape[0])
    _groups("conv", groups, weight.shape[0])
    _expect("conv", "input channels", (input.shape[1],), (weight.shape[1] * groups,))
    last = is_channels_last(input)
    size, kernel = input.shape[2:], weight.shape[2:]
    spatial = _spatial_out(size, kernel, stride, dilation, padding)
    out = _empty(input, weight.shape[0], spatial, last)
    line = conv_line(
        "fwd",
        (input.dtype, weight.dtype),
        ("nhwc" if last else "nchw", "cpu"),
        (input.shape[0], groups, weight.shape[1], weight.shape[0] // groups),
        (size, kernel, stride, dilation, padding),
    )
    return _run(line, out, _dense(input, last), dense(weight), bias)


def _conv_grad_input(
    grad: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    rank = len(stride)
    _check(
        "conv_grad_input",
        (grad, weight, bias),
        (stride, dilation, output_padding),
        padding,
        weight.shape[1] * groups,
    )
    _groups("conv_grad_input", groups, weight.shape[0])
    _expect("conv_grad_input", "grad channels", (grad.shape[1],), (weight.shape[0],))
    last = is_channels_last(grad)
    kernel = weight.shape[2:]
    pads = pad_pairs(padding, rank)
    spatial = [
        (o - 1) * s - lo - hi + d * (k - 1) + 1 + extra
        for o, k, s, d, (lo, hi), extra in zip(
            grad.shape[2:], kernel, stride, dilation, pads, output_padding, strict=True
        )
    ]
    forward = _spatial_out(spatial, kernel, stride, dilation, padding)
    _expect("conv_grad_input", "output_padding below the stride for grad of size", grad.shape[2:], forward)
    out = _empty(grad, groups * weight.shape[1], spatial, last)
    line = conv_line(
        "dx",
        (grad.dtype, weight.dtype),
        ("nhwc" if last else "nchw", "cpu"),
        (grad.shape[0], groups, weight.shape[1], weight.shape[0] // groups),
        (spatial, kernel, stride, dilation, padding),
    )
    return _run(line, out, _dense(grad, last), dense(weight), bias)


def _conv_grad_weight(
    grad: Tensor,
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    wide: bool,
) -> Tensor:
    _check("conv_grad_weight", (grad, input, None), (stride, dilation, kernel_size), padding, 0)
    _groups("conv_grad_weight", groups, grad.shape[1], input.shape[1])
    spatial = _spatial_out(input.shape[2:], kernel_size, stride, dilation, padding)
    _expect("conv_grad_weight", "grad of size", grad.shape[2:], spatial)
    _expect("conv_grad_weight", "batch", (grad.shape[0],), (input.shape[0],))
    last = is_channels_last(grad)
    c_in, c_out = input.shape[1] // groups, grad.shape[1] // groups
    wide = wide and input.dtype in (torch.bfloat16, torch.float16)
    out = torch.empty(
        (grad.shape[1], c_in, *kernel_size), dtype=torch.float32 if wide else input.dtype, device=input.device
    )
    line = conv_line(
        "dw",
        (input.dtype, input.dtype),
        ("nhwc" if last else "nchw", "cpu"),
        (grad.shape[0], groups, c_in, c_out),
        (input.shape[2:], kernel_size, stride, dilation, padding),
    )
    return _run(line + " wide" if wide else line, out, _dense(grad, last), _dense(input, last), None)
