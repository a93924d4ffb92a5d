"""Whole operators on a CUDA device beside torch and any published kernels that can be imported there.

    STRIATE_CUDA=1 python bench/gpu_rivals.py [--json FILE]

Every call is timed between two events of the device after its caches were overwritten, contenders in turns. A line of
JSON per case: seconds of each contender (median and least), the bytes that must move, and the share of the measured
copy bandwidth that striate reaches. Without a device every case says SKIPPED.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import striate

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


def optional(module: str, name: str) -> Any:
    """A member of a package that may be missing."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except (ImportError, OSError):
        return None


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
        return found

    return Case(
        f"causal b{batch} d{channels} l{length} w{width} bf16", 4 * batch * channels * length, contenders
    )


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
        return found

    return Case(f"fft b{batch} d{channels} l{length} bf16", 4 * batch * channels * length, contenders)


def construction(filters: int, elements: int, size: int) -> Case:
    """The kernel of a layer with learnable spacings, in float32."""

    def contenders() -> dict[str, Call]:
        w = torch.randn(filters, 1, elements, device="cuda")
        at, spread = (
            torch.randn(2, filters, 1, elements, device="cuda"),
            torch.randn(2, filters, 1, elements, device="cuda"),
        )

        def build() -> Tensor:
            return striate.dcls_kernel(w, at, spread, dilated_kernel_size=size)

        return {"striate": build, "torch.compile": torch.compile(build, dynamic=False)}

    return Case(
        f"dcls o{filters} m{elements} k{size} f32", 4 * filters * (size * size + 5 * elements), contenders
    )


CASES = [
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


def records() -> Iterator[dict[str, Any]]:
    """A record per case, the environment first."""
    there = torch.cuda.is_available()
    packages = ("causal_conv1d", "flashfftconv", "subquadratic_ops", "natten")
    yield {
        "kind": "environment",
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
            if "copy" in others:
                record["copy_share"] = others["copy"]
        yield record
        torch.cuda.empty_cache()


def main() -> int:
    """Print, and keep where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the records as JSON lines")
    options = parser.parse_args()
    lines = []
    with torch.no_grad():
        for record in records():
            lines.append(json.dumps(record))
            print(lines[-1], flush=True)
    if options.json:
        with open(options.json, "w") as file:
            file.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
