"""Accelerate networks of timm in place, prove that they compute the same, and print what it brings.

    python examples/accelerate_timm.py [--threads 1] [--batch 2] [--seconds 4] [NAME ...]

Both versions take turns, forward and one training step; least and median of the rounds are printed.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import timm
import torch

import striate
from striate.bench.timing import Local, race

NAMES = ("convnext_tiny", "mobilenetv2_100", "inception_next_tiny")
# The sums of a network of this depth differ by the order they are taken in.
TOLERANCE = 1e-4


def ratio(name: str, calls: dict[str, Callable[[], object]], budget: float) -> str:
    """One line: time of torch over time of striate, in turns."""
    times = race({key: Local(call) for key, call in calls.items()}, budget)
    torchs, ours = times["torch"], times["striate"]
    return (
        f"  {name:9} torch {1e3 * torchs.least:8.1f} ms   striate {1e3 * ours.least:8.1f} ms   "
        f"{torchs.least / ours.least:.2f}x (median {torchs.median / ours.median:.2f}x)"
    )


def step(model: torch.nn.Module, x: torch.Tensor) -> None:
    """Forward and backward of one training step."""
    model.zero_grad()
    model(x).square().mean().backward()


def compare(name: str, batch: int, budget: float) -> float:
    """Swap, verify and time one network; returns the largest difference of the outputs."""
    torch.manual_seed(0)
    plain = timm.create_model(name).eval()  # eval: no random depth, the same numbers in both versions
    with torch.no_grad():
        for key, parameter in plain.named_parameters():
            if key.endswith("gamma"):  # layer scales start at 1e-6, which would hide the blocks
                parameter.fill_(0.5)
    swapped = copy.deepcopy(plain)
    report = striate.accelerate(swapped)
    x = torch.randn(batch, 3, 224, 224)
    with torch.inference_mode():
        difference = float((plain(x) - swapped(x)).abs().max())
        forward = ratio("forward", {"torch": lambda: plain(x), "striate": lambda: swapped(x)}, budget)
    training = ratio("step", {"torch": lambda: step(plain, x), "striate": lambda: step(swapped, x)}, budget)
    print(
        f"{name}: {len(report.swapped)} of {len(report.rows)} layers swapped, outputs within {difference:.1e}"
    )
    print(forward)
    print(training)
    return difference


def main() -> None:
    """Compare the networks that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each comparison")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, batch {options.batch} at 224x224, torch {torch.__version__}")
    worst = max(compare(name, options.batch, options.seconds) for name in options.names)
    if worst > TOLERANCE:
        raise SystemExit(f"outputs differ by {worst}")


if __name__ == "__main__":
    main()
