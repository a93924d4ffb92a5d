"""Serve a causal model token by token, after a whole prompt, with several requests in one batch of states.

    python examples/serve_causal.py [--tokens 200] [--quick]

A small stack of causal convolutions reads a prompt of any length in one call, then goes on one step at a time from the
states that the prompt left. Every output must equal, bit for bit, what the whole sequence gives in one call. Printed is
how long a step takes beside running the whole sequence again.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor, nn

import striate


class Block(nn.Module):
    """A causal convolution with silu and a skip connection; its state is one tensor."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.conv = striate.nn.CausalConv1d(channels, taps, activation="silu")

    def prompt(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, D, L]`` to the same and the state behind it."""
        y, state = self.conv(x, return_final_states=True)
        return x + y, state

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """``[B, D]`` to the same; the state moves on in place."""
        return x + self.conv.step(x, state)


def whole(blocks: nn.ModuleList, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A sequence in one call, and the states behind it."""
    states = []
    for block in blocks:
        x, state = block.prompt(x)
        states.append(state)
    return x, states


def main() -> int:
    """Serve, compare, time; 1 if a bit differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="a small model and few tokens")
    args = parser.parse_args()
    torch.manual_seed(0)
    channels, tokens = (16, 12) if args.quick else (512, args.tokens)
    blocks = nn.ModuleList(Block(channels, taps=4) for _ in range(4))
    x = torch.randn(8, channels, 64 + tokens)
    with torch.no_grad():
        expected, _ = whole(blocks, x)
        _, states = whole(blocks, x[..., :64])
        outputs, start = [], time.perf_counter()
        for t in range(64, 64 + tokens):
            y = x[..., t]
            for block, state in zip(blocks, states, strict=True):
                y = block.step(y, state)
            outputs.append(y)
        step = (time.perf_counter() - start) / tokens
        start = time.perf_counter()
        whole(blocks, x)
        again = time.perf_counter() - start
    equal = torch.equal(torch.stack(outputs, -1), expected[..., 64:])
    print(
        f"{tokens} steps of 8 sequences, {channels} channels: every bit {'equal' if equal else 'NOT equal'}"
    )
    print(f"a step takes {step * 1e3:.3f} ms, the whole sequence {again * 1e3:.3f} ms")
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
