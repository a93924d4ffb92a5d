"""The kernels of a network one by one: what each must do, what it took, and which block it belongs to.

This is what a waterline is drawn from (arXiv 2404.03617): the intensity of each kernel of a sequence against the
machine's balance, and the same after every block has become one kernel that reads its input and its weights and
writes its output. Operations that make no new memory (views) are no kernels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from .. import zoo
from .zoo import sample_input

ROWS = ("convnext_atto", "mobilenetv2_100")
HEAD = f"{'network':24}{'':8}{'kernels':>8}{'ms':>9}{'GMACs':>9}{'MB':>9}{'MB fused':>10}"
ROUNDS = 9


@dataclass
class _Kernel:
    """One operation of the sequence."""

    op: str
    block: str
    flops: int
    bytes: int
    seconds: list[float] = field(default_factory=list)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _flops(op: Any, given: tuple[Any, dict[str, Any]], result: Any) -> int:
    """Of products, as torch counts them; of everything else one for each element of the result."""
    formula = flop_registry.get(op.overloadpacket)
    if formula is not None:
        return int(formula(*given[0], **given[1], out_val=result))
    return sum(tensor.numel() for tensor in _tensors(result))


class _Watch(TorchDispatchMode):
    """Notes and times every operation; the same ones come in the same order in every round."""

    def __init__(self, place: list[str]) -> None:
        super().__init__()
        self.place, self.kernels, self.at, self.ran = place, list[_Kernel](), 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        start = time.perf_counter()
        result = func(*args, **named)
        seconds = time.perf_counter() - start
        read, made = _tensors((args, named)), _tensors(result)
        memory = {tensor.untyped_storage().data_ptr() for tensor in read}
        fresh = [tensor for tensor in made if tensor.untyped_storage().data_ptr() not in memory]
        written = fresh or (made if func._schema.is_mutable else [])
        if not written:
            return result
        if not self.ran:
            moved = sum(t.numel() * t.element_size() for t in (*read, *written))
            name = str(func.overloadpacket).replace("aten.", "")
            self.kernels.append(_Kernel(name, self.place[-1], _flops(func, (args, named), result), moved))
        self.kernels[self.at].seconds.append(seconds)
        self.at += 1
        return result


def _blocks(model: nn.Module) -> dict[nn.Module, str]:
    """The modules that could each become one kernel: the members of stages, or of the network."""
    found: dict[nn.Module, str] = {}
    for name, module in model.named_children():
        for stage_name, stage in module.named_children() if name == "stages" else ():
            for part_name, part in stage.named_children():
                found[part] = f"{name}.{stage_name}.{part_name}"
            if not list(stage.children()):
                found[stage] = f"{name}.{stage_name}"
        if name != "stages":
            found[module] = name
    return found


def watch(model: nn.Module, x: Tensor, rounds: int = ROUNDS) -> tuple[list[_Kernel], dict[str, int]]:
    """The kernels of a forward pass, and the bytes of each block as one kernel."""
    place, bytes_of, handles = ["(rest)"], dict[str, int](), []
    for module, name in _blocks(model).items():

        def before(module: nn.Module, args: Any, name: str = name) -> None:
            place.append(name)

        def after(module: nn.Module, args: Any, result: Any, name: str = name) -> None:
            place.pop()
            weights = [*module.parameters(), *module.buffers()]
            moved = (*_tensors(args), *_tensors(result), *weights)
            bytes_of[name] = sum(t.numel() * t.element_size() for t in moved)

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    mode = _Watch(place)
    try:
        with torch.no_grad():
            model(x)  # what is done once
            for _ in range(rounds):
                mode.at = 0
                with mode:
                    model(x)
                mode.ran = True
    finally:
        for handle in handles:
            handle.remove()
    return mode.kernels, bytes_of


def measure(names: Sequence[str], threads: Sequence[int], seconds: float) -> Iterator[dict[str, Any]]:
    """One record for each network and number of threads, with striate's convolutions."""
    for name in names or ROWS:
        x, model = sample_input(name), zoo.create_model(name, conv="striate").eval()
        for count in threads:
            before = torch.get_num_threads()
            torch.set_num_threads(count)
            try:
                kernels, blocks = watch(model, x)
            finally:
                torch.set_num_threads(before)
            yield {
                "kind": "sequence",
                "name": name,
                "threads": count,
                "shape": list(x.shape),
                "blocks": blocks,
                "kernels": [
                    {
                        "op": kernel.op,
                        "block": kernel.block,
                        "flops": kernel.flops,
                        "bytes": kernel.bytes,
                        "median": float(f"{sorted(kernel.seconds)[len(kernel.seconds) // 2]:.4g}"),
                        "min": float(f"{min(kernel.seconds):.4g}"),
                    }
                    for kernel in kernels
                ],
            }


def fused(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The sequence once every block is one kernel: operations add up, what lies between is not moved."""
    result: list[dict[str, Any]] = []
    for kernel in record["kernels"]:
        block = kernel["block"]
        if block not in record["blocks"]:
            result.append(kernel)
        elif result and result[-1]["block"] == block and result[-1]["op"] == "block":
            result[-1]["flops"] += kernel["flops"]
        else:
            moved = record["blocks"][block]
            result.append({"op": "block", "block": block, "flops": kernel["flops"], "bytes": moved})
    return result


def line(record: dict[str, Any]) -> str:
    """One printed line."""
    kernels = record["kernels"]
    total = {key: sum(kernel[key] for kernel in kernels) for key in ("flops", "bytes", "median")}
    after = sum(kernel["bytes"] for kernel in fused(record))
    return (
        f"{record['name']:24}{record['threads']:>4} thr{len(kernels):>8}{total['median'] * 1e3:>9.2f}"
        f"{total['flops'] / 2e9:>9.3f}{total['bytes'] / 1e6:>9.1f}{after / 1e6:>10.1f}"
    )
