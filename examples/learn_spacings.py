"""Find the echoes of a sound with a kernel whose taps learn where they stand.

    python examples/learn_spacings.py [--steps 300] [--quick]

A sound arrives by five ways of different delay and strength. A layer of eight elements at learned positions (`Dcls1d`,
arXiv 2112.03740) finds both from the sound and the sum of its echoes; printed are its elements beside the echoes, as
delay (strength). Elements that share an echo share its strength. `--quick` only shows that everything runs.
"""

from __future__ import annotations

import argparse
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

import striate

REACH = 64
DELAYS, GAINS = (3.0, 11.0, 24.0, 38.0, 57.0), (1.0, -0.8, 0.6, 0.5, -0.4)


def room(x: Tensor) -> Tensor:
    """The sum of echoes of sounds ``[N, 1, L]``."""
    kernel = torch.zeros(1, 1, REACH)
    for delay, gain in zip(DELAYS, GAINS, strict=True):
        kernel[0, 0, REACH - 1 - int(delay)] = gain
    return F.conv1d(F.pad(x, (REACH - 1, 0)), kernel)


def train(layer: striate.nn.Dcls1d, steps: int) -> None:
    """Fit the layer to the room, with a new sound in every step."""
    groups = striate.nn.dcls_parameter_groups(layer, lr=0.02, position_lr_scale=40)
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    handle = striate.nn.clamp_after_step(optimizer, layer)  # positions stay on the grid
    for step in range(steps):
        # Wide at first, so that an element sees an echo from afar, then narrow.
        torch.nn.init.constant_(layer.SIG, 6 * (1 - step / steps) ** 2)
        x = torch.randn(8, 1, 256)
        loss = F.mse_loss(layer(F.pad(x, (REACH - 1, 0))), room(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            bar = "#" * (30 * (step + 1) // steps)
            print(f"\r[{bar:30}] loss {loss.item():.4f}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    handle.remove()


def main() -> int:
    """Train and print; 1 if an echo was not found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="few steps, no judgement")
    args = parser.parse_args()
    torch.manual_seed(0)
    learned = striate.nn.Dcls1d(1, 1, kernel_count=8, dilated_kernel_size=REACH, bias=False, version="gauss")
    learned.SIG.requires_grad_(False)
    with torch.no_grad():
        learned.P.copy_(torch.linspace(-28, 28, 8).view(1, 1, 1, 8))
    train(learned, 20 if args.quick else args.steps)
    places = (REACH - 1 - (learned.P[0, 0, 0] + REACH // 2)).tolist()
    found = sorted(zip(places, learned.weight[0, 0].tolist(), strict=True))
    print("elements:", ", ".join(f"{delay:.1f} ({gain:+.2f})" for delay, gain in found))
    print(
        "echoes:  ",
        ", ".join(f"{delay:.1f} ({gain:+.2f})" for delay, gain in zip(DELAYS, GAINS, strict=True)),
    )
    missed = [delay for delay in DELAYS if min(abs(delay - place) for place in places) > 0.5]
    return int(bool(missed) and not args.quick)


if __name__ == "__main__":
    sys.exit(main())
