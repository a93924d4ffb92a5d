"""Whole operators on a CUDA device beside torch and any published kernels that can be imported there.

    STRIATE_CUDA=1 python bench/gpu_rivals.py [--json FILE]

Every call is timed between two events of the device after its caches were overwritten, contenders in turns. A line of
JSON per case: seconds of each contender (median and least), the bytes that must move, the share of the measured copy
bandwidth that striate reaches (``bandwidth_share``; ``copy_share`` is beside a copy of the case's own input), and the
goals of the case beside what was measured; then the goals as a table. Without a device every case says SKIPPED.

natten is listed where it is importable and not timed: striate has no operator of the same function.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import striate
from striate.bench.families.dcls import ExpandShiftAdd
from striate.ops import dcls

Call = Callable[[], Any]
ROUNDS, WARM = 30, 5
FLUSHED = 512 << 20
"""bytes, several times the largest cache"""


@dataclass(frozen=True)
class Case:
    """An operator with its size; ``contenders`` makes the calls on the device."""

    name: str
    moved: int
    """bytes read and written at least"""
    contenders: Callable[[], dict[str, Call]]
    goals: dict[str, float] = field(default_factory=dict)
    """by contender, or "best" for the fastest but a copy: its time over striate's, at least"""


def optional(module: str, name: str) -> Any:
    """A member of a module that may be missing."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except (ImportError, OSError):
        return None


def depthwise(size: tuple[int, ...], kernel: tuple[int, ...], least: float, copy: float = 0.0) -> Case:
    """A depthwise convolution in bfloat16; "best" is torch in either memory order, compiled or not."""

    def contenders() -> dict[str, Call]:
        x, w, pads = *operands(size, kernel), tuple(k // 2 for k in kernel)
        conv = F.conv1d if len(kernel) == 1 else F.conv2d

        def plain(x: Tensor) -> Tensor:
            return conv(x, w, None, 1, pads, 1, size[1])

        own = striate.depthwise_conv1d if len(kernel) == 1 else striate.depthwise_conv2d
        compiled = torch.compile(plain, dynamic=False)
        return {
            "striate": lambda: own(x, w, padding=pads),
            "torch": lambda: plain(x),
            "torch.compile": lambda: compiled(x),
            "copy": x.clone,
        } | last(x, plain)

    goals = {"best": least} | ({"copy": copy} if copy else {})
    return Case(f"conv {named(size, kernel)} bf16", 4 * math.prod(size), contenders, goals)


def weights(size: tuple[int, ...], kernel: tuple[int, ...], least: float) -> Case:
    """The weight gradient of the same."""

    def contenders() -> dict[str, Call]:
        x, w, pads = *operands(size, kernel), [k // 2 for k in kernel]
        ones, none, g = [1] * len(kernel), [0] * len(kernel), torch.randn_like(x)
        axes = ("x".join(str(k) for k in part) for part in (ones, ones, [f"{p}+{p}" for p in pads], kernel))
        config = "s{} d{} p{} k{}".format(*axes) + f" g{size[1]}"

        def plain(x: Tensor, g: Tensor) -> Any:
            return torch.ops.aten.convolution_backward(
                g, x, w, None, ones, pads, ones, False, none, size[1], [False, True, False]
            )

        return {
            "striate": lambda: torch.ops.striate.conv_grad_weight(g, x, config),
            "torch": lambda: plain(x, g),
            "copy": x.clone,
        } | last(x, lambda x: plain(x, g))

    return Case(f"dw {named(size, kernel)} bf16", 4 * math.prod(size), contenders, {"best": least})


def operands(size: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Activations and a kernel for each of their channels."""
    made = torch.randn(size, device="cuda", dtype=torch.bfloat16)
    return made, torch.randn(size[1], 1, *kernel, device="cuda", dtype=torch.bfloat16)


def named(size: tuple[int, ...], kernel: tuple[int, ...]) -> str:
    """Kernel and size in words."""
    return f"k{'x'.join(map(str, kernel))} n{size[0]} c{size[1]} {'x'.join(map(str, size[2:]))}"


def last(x: Tensor, call: Callable[[Tensor], Any]) -> dict[str, Call]:
    """Torch with channels last, which lines have not."""
    if x.dim() != 4:
        return {}
    turned = x.to(memory_format=torch.channels_last)
    return {"torch.channels_last": lambda: call(turned)}


def shiftwise(batch: int, channels: int, side: int, size: int) -> Case:
    """A training step of the layer against maps that are expanded, shifted and added, in float32."""

    def contenders() -> dict[str, Call]:
        ours = striate.nn.ShiftwiseConv2d(channels, size, 3).cuda()
        theirs = ExpandShiftAdd(ours)
        x = torch.randn(batch, channels, side, side, device="cuda", requires_grad=True)

        def step(layer: torch.nn.Module) -> Call:
            def run() -> None:
                with torch.enable_grad():
                    layer(x).square().mean().backward()

            return run

        return {"striate": step(ours), "torch": step(theirs)}

    moved = 8 * batch * channels * side * side
    return Case(f"shift-wise step n{batch} c{channels} {side} k{size} f32", moved, contenders, {"torch": 15})


def causal(batch: int, channels: int, length: int, width: int) -> Case:
    """The short causal convolution of state-space models, with its activation, in bfloat16."""

    def contenders() -> dict[str, Call]:
        x = torch.randn(batch, channels, length, device="cuda", dtype=torch.bfloat16)
        w = torch.randn(channels, width, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(channels, device="cuda", dtype=torch.bfloat16)

        def plain() -> Tensor:
            return F.silu(F.conv1d(F.pad(x, (width - 1, 0)), w.unsqueeze(1), b, groups=channels))

        found: dict[str, Call] = {
            "striate": lambda: striate.causal_conv1d(x, w, b, activation="silu"),
            "torch": plain,
            "torch.compile": torch.compile(plain, dynamic=False),
            "copy": x.clone,
        }
        published = optional("causal_conv1d", "causal_conv1d_fn")
        if published is not None:
            found["causal-conv1d"] = lambda: published(x, w, b, activation="silu")
        # Without the bias, which its older releases do not take.
        other = optional("subquadratic_ops_torch.causal_conv1d", "causal_conv1d")
        if other is not None:
            found["subquadratic-ops"] = lambda: F.silu(other(x, w))
        return found

    name = f"causal b{batch} d{channels} l{length} w{width} bf16"
    return Case(name, 4 * batch * channels * length, contenders, {"copy": 0.85})


def transform(batch: int, channels: int, length: int) -> Case:
    """A causal convolution as long as its signal, in bfloat16."""

    def contenders() -> dict[str, Call]:
        x = torch.randn(batch, channels, length, device="cuda", dtype=torch.bfloat16)
        k = torch.randn(channels, length, device="cuda") / length

        def pipeline() -> Tensor:
            spectrum = torch.fft.rfft(x.float(), 2 * length) * torch.fft.rfft(k, 2 * length)
            return torch.fft.irfft(spectrum, 2 * length)[..., :length].to(x.dtype)

        found: dict[str, Call] = {
            "striate": lambda: striate.fft_conv1d(x, k, order="convolution"),
            "torch.rfft": pipeline,
            "torch.compile": torch.compile(pipeline, dynamic=False),
            "copy": x.clone,
        }
        published = optional("flashfftconv", "FlashFFTConv")
        if published is not None:
            module = published(2 * length, dtype=torch.bfloat16).to("cuda")
            found["flash-fft-conv"] = lambda: module(x, k)
        other = optional("subquadratic_ops_torch.fft_causal_conv1d", "fft_causal_conv1d")
        if other is not None:
            half = k.to(x.dtype)
            found["subquadratic-ops"] = lambda: other(x, half)
        return found

    least = 8 if length <= 8192 else 5 if length <= 16384 else 2.5
    name, moved = f"fft b{batch} d{channels} l{length} bf16", 4 * batch * channels * length
    return Case(name, moved, contenders, {"torch.rfft": least})


def construction(filters: int, elements: int, size: int) -> Case:
    """The kernel of a layer with learnable spacings, in float32."""

    def contenders() -> dict[str, Call]:
        w = torch.randn(filters, 1, elements, device="cuda")
        at, spread = (
            torch.randn(2, filters, 1, elements, device="cuda"),
            torch.randn(2, filters, 1, elements, device="cuda"),
        )

        def build() -> Tensor:
            return striate.dcls_kernel(w, at, spread, dilated_kernel_size=size, version="max")

        def formula() -> Tensor:
            return dcls.formula(w, at, spread, ([size, size], "triangle", 1.0, list(dcls.axes_of("max", 2))))

        return {"striate": build, "torch": formula, "torch.compile": torch.compile(formula, dynamic=False)}

    moved = 4 * filters * (size * size + 5 * elements)
    return Case(f"dcls o{filters} m{elements} k{size} f32", moved, contenders, {"torch": 30})


CASES = [
    depthwise((64, 96, 56, 56), (3, 3), 1, 0.8),
    depthwise((64, 96, 56, 56), (7, 7), 3, 0.8),
    depthwise((64, 768, 14, 14), (13, 13), 8),
    depthwise((32, 128, 56, 56), (31, 31), 15),
    depthwise((32, 128, 56, 56), (51, 5), 10),
    depthwise((32, 128, 56, 56), (5, 51), 10),
    depthwise((8, 1024, 8192), (129,), 10),
    weights((64, 96, 56, 56), (7, 7), 10),
    weights((64, 768, 14, 14), (13, 13), 10),
    weights((32, 128, 56, 56), (31, 31), 10),
    weights((8, 1024, 8192), (129,), 10),
    shiftwise(16, 160, 28, 51),
    *(causal(*size, 4) for size in ((8, 2048, 2048), (1, 4096, 16384), (64, 1536, 512))),
    *(transform(8, 768, 1 << bits) for bits in (10, 12, 13, 14)),
    *(transform(1, 256, 1 << bits) for bits in (16, 18, 20)),
    *(construction(384, elements, 17) for elements in (26, 34)),
]


def seconds_of(contenders: dict[str, Call]) -> dict[str, Any]:
    """Median and least seconds of each contender, in turns, or the first line of what it says."""
    flushed = torch.empty(FLUSHED, dtype=torch.uint8, device="cuda")
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    faults: dict[str, str] = {}
    for turn in range(WARM + ROUNDS):
        for name, call in contenders.items():
            if name in faults:
                continue
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            try:
                flushed.zero_()
                start.record()
                call()
                end.record()
                torch.cuda.synchronize()
            except (RuntimeError, ValueError, TypeError, AssertionError) as error:
                faults[name] = str(error).partition("\n")[0]
                continue
            if turn >= WARM:
                taken[name].append(1e-3 * start.elapsed_time(end))
    return {
        name: {"fault": faults[name]}
        if name in faults
        else {"median": statistics.median(rounds), "min": min(rounds), "rounds": len(rounds)}
        for name, rounds in taken.items()
    }


def copy_bandwidth() -> float:
    """Bytes read and written per second by a copy far beyond the caches."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    return 2 * source.numel() / float(seconds_of({"copy": source.clone})["copy"]["median"])


def judged(goals: dict[str, float], ratios: dict[str, float]) -> Iterator[dict[str, Any]]:
    """What was to be reached beside what was."""
    for against, least in goals.items():
        rivals = [ratio for name, ratio in ratios.items() if name != "copy"]
        measured = min(rivals, default=None) if against == "best" else ratios.get(against)
        reached = None if measured is None else measured >= least
        yield {"against": against, "least": least, "measured": measured, "reached": reached}


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """A line for every goal."""
    words = {True: "reached", False: "missed", None: "not measured"}
    for record in found:
        for goal in record.get("goals", ()):
            measured = "-" if goal["measured"] is None else f"{goal['measured']:.2f}"
            which = f"{record['case']:<40} {goal['against']:<20}"
            yield f"{which} >= {goal['least']:<5g} {measured:>7}  {words[goal['reached']]}"


def records() -> Iterator[dict[str, Any]]:
    """A record per case, the environment first."""
    there = torch.cuda.is_available()
    packages = ("causal_conv1d", "flashfftconv", "subquadratic_ops_torch", "natten")
    bandwidth = copy_bandwidth() if there else None
    yield {
        "kind": "environment",
        "copy_bandwidth": bandwidth,
        "device": torch.cuda.get_device_name() if there else None,
        "torch": torch.__version__,
        "striate": striate.__version__,
        "importable": [name for name in packages if importlib.util.find_spec(name) is not None],
    }
    for case in CASES:
        if not there:
            yield {"kind": "rival", "case": case.name, "status": "SKIPPED", "why": "no CUDA device"}
            continue
        times = seconds_of(case.contenders())
        record: dict[str, Any] = {"kind": "rival", "case": case.name, "bytes": case.moved, "times": times}
        ours = times["striate"].get("median")
        if ours:
            others = {
                name: t["median"] / ours for name, t in times.items() if name != "striate" and "median" in t
            }
            record["ratios"] = others
            record["bandwidth_share"] = case.moved / ours / bandwidth if bandwidth else None
            if "copy" in others:
                record["copy_share"] = others["copy"]
            record["goals"] = [*judged(case.goals, others)]
        yield record
        torch.cuda.empty_cache()


def main() -> int:
    """Print, and keep where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the records as JSON lines")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    found = []
    with torch.no_grad():
        for record in records():
            found.append(record)
            print(json.dumps(record), flush=True)
            if options.json:
                # At once, for whoever runs this may have no time for the rest.
                with open(options.json, "w") as file:
                    file.writelines(json.dumps(one) + "\n" for one in found)
    print(*table(found), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
