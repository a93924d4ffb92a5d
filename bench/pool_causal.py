"""Measure pooling and the causal convolution beside torch and beside copying.

    python bench/pool_causal.py bench/record/<machine>/pool_causal.jsonl

Contenders take turns, one call each; the record has the median and the minimum over the turns, in seconds.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import striate

Case = tuple[str, dict[str, Callable[[], Any]]]


def turns(contenders: dict[str, Callable[[], Any]], seconds: float = 0.8) -> dict[str, dict[str, float]]:
    """Times of contenders that take turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {
        name: {"median": statistics.median(each), "min": min(each), "calls": len(each)}
        for name, each in times.items()
    }


def trained(function: Callable[..., Tensor], *tensors: Tensor) -> Callable[[], Any]:
    """A forward and a backward pass."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    upstream = torch.ones_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, upstream)


def pooling() -> Iterator[Case]:
    """Windows of 3 and 7, and a long one."""
    for last in (False, True):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(8, 64, 112, 112).to(dtype)
            x = x.contiguous(memory_format=torch.channels_last) if last else x
            for k in (3, 7):
                for mode in ("max", "avg"):
                    ours, theirs = (getattr(m, f"{mode}_pool2d") for m in (striate, F))
                    args = (k, 1, k // 2)
                    label = f"{mode}_pool2d 8x64x112x112 k{k} {str(dtype)[6:]} {'nhwc' if last else 'nchw'}"
                    yield (
                        label,
                        {
                            "striate": lambda f=ours, x=x, a=args: f(x, *a),
                            "torch": lambda f=theirs, x=x, a=args: f(x, *a),
                            "clone": lambda x=x: x.clone(),
                        },
                    )
                    if dtype == torch.float32 and k == 3:
                        yield (
                            label + " forward and backward",
                            {
                                "striate": trained(lambda x, f=ours, a=args: f(x, *a), x),
                                "torch": trained(lambda x, f=theirs, a=args: f(x, *a), x),
                            },
                        )
    line = torch.randn(8, 16, 65536)
    yield (
        "avg_pool1d 8x16x65536 k1024 float32 nchw",
        {
            "striate": lambda: striate.avg_pool1d(line, 1024, 1),
            "torch": lambda: F.avg_pool1d(line, 1024, 1),
            "clone": lambda: line.clone(),
        },
    )


def by_torch(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The line of torch that the causal convolution replaces."""
    y = F.conv1d(x, w.unsqueeze(1), b, padding=w.shape[1] - 1, groups=w.shape[0])
    return F.silu(y[..., : x.shape[2]])


def by_striate(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The same in one pass."""
    return striate.causal_conv1d(x, w, b, activation="silu")


def causal() -> Iterator[Case]:
    """A short and a long filter, and a step."""
    for batch, channels, length, width in ((2, 1536, 2048, 4), (1, 64, 8192, 128)):
        for dtype in (torch.float32, torch.bfloat16):
            for last in (False, True):
                x = torch.randn(batch, channels, length).to(dtype)
                x = x.transpose(1, 2).contiguous().transpose(1, 2) if last else x
                w, b = torch.randn(channels, width).to(dtype), torch.randn(channels).to(dtype)
                shape = f"{batch}x{channels}x{length} w{width} {str(dtype)[6:]} {'nlc' if last else 'ncl'}"
                yield (
                    f"causal_conv1d silu {shape}",
                    {
                        "striate": lambda x=x, w=w, b=b: by_striate(x, w, b),
                        "torch": lambda x=x, w=w, b=b: by_torch(x, w, b),
                        "clone": lambda x=x: x.clone(),
                    },
                )
                if dtype == torch.float32 and not last and width == 4:
                    yield (
                        f"causal_conv1d silu {shape} forward and backward",
                        {"striate": trained(by_striate, x, w, b), "torch": trained(by_torch, x, w, b)},
                    )
    x, w, b = torch.randn(32, 2048), torch.randn(2048, 4), torch.randn(2048)
    state = torch.zeros(32, 2048, 3)

    def step() -> Tensor:
        joined = torch.cat([state, x.unsqueeze(-1)], -1)
        state.copy_(joined[..., 1:])
        return F.silu((joined * w).sum(-1) + b)

    yield (
        "causal_conv1d_update silu 32x2048 w4 float32",
        {
            "striate": lambda: striate.causal_conv1d_update(x, state, w, b, activation="silu"),
            "torch": step,
        },
    )


def main() -> None:
    """Measure everything with one and two threads."""
    lines: list[dict[str, Any]] = [
        {
            "schema": 1,
            "kind": "environment",
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "command": "python bench/pool_causal.py",
            "striate": striate.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "note": "other jobs shared the cores",
        }
    ]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for label, contenders in (*pooling(), *causal()):
            times = turns(contenders)
            ours = times["striate"]["min"]
            ratios = {name: each["min"] / ours for name, each in times.items() if name != "striate"}
            lines.append(
                {
                    "schema": 1,
                    "kind": "case",
                    "label": label,
                    "threads": threads,
                    "times": times,
                    "ratios": ratios,
                }
            )
            print(threads, label, {name: round(ratio, 2) for name, ratio in ratios.items()}, flush=True)
    lines.append({"schema": 1, "kind": "end", "load": os.getloadavg()})
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
