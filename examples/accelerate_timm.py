"""Accelerate networks of timm in place, prove that they compute the same, and print what it brings.

    python examples/accelerate_timm.py [--threads 1] [--batch 2] [--rounds 5] [NAME ...]

Every round gives both versions a turn, forward and one training step; least and median of the rounds are printed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import timm
import torch

import striate

NAMES = ("convnext_tiny", "mobilenetv2_100", "inception_next_tiny")
# The sums of a network of this depth differ by the order they are taken in.
TOLERANCE = 1e-4


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def contest(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round, after one call each to warm up."""
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(seconds(call))
    return found


def ratio(name: str, found: dict[str, list[float]]) -> str:
    """One line: time of torch over time of striate."""
    least = {key: min(values) for key, values in found.items()}
    middle = {key: statistics.median(values) for key, values in found.items()}
    return (
        f"  {name:9} torch {1e3 * least['torch']:8.1f} ms   striate {1e3 * least['striate']:8.1f} ms   "
        f"{least['torch'] / least['striate']:.2f}x (median {middle['torch'] / middle['striate']:.2f}x)"
    )


def step(model: torch.nn.Module, x: torch.Tensor) -> None:
    """Forward and backward of one training step."""
    model.zero_grad()
    model(x).square().mean().backward()


def compare(name: str, batch: int, rounds: int) -> float:
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
        forward = contest({"torch": lambda: plain(x), "striate": lambda: swapped(x)}, rounds)
    training = contest({"torch": lambda: step(plain, x), "striate": lambda: step(swapped, x)}, rounds)
    print(
        f"{name}: {len(report.swapped)} of {len(report.rows)} convolutions swapped, outputs within {difference:.1e}"
    )
    print(ratio("forward", forward))
    print(ratio("step", training))
    return difference


def main() -> None:
    """Compare the networks that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, batch {options.batch} at 224x224, torch {torch.__version__}")
    worst = max(compare(name, options.batch, options.rounds) for name in options.names)
    if worst > TOLERANCE:
        raise SystemExit(f"outputs differ by {worst}")


if __name__ == "__main__":
    main()
