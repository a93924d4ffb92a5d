"""Train small networks on handwritten digits, with torch's convolutions and with striate's.

    pip install striate scikit-learn
    python examples/train_digits.py [--epochs 6] [--only depthwise] [--quick]

The 1797 digits of scikit-learn are 8x8; they are enlarged to 16x16. Each network is trained twice from the same
weights on the same batches, and the times of both runs are printed beside each other. `--quick` trains on two batches,
only to show that everything runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import striate

Data = tuple[Tensor, Tensor]


def digits() -> tuple[Data, Data]:
    """Training and test images [N, 1, 16, 16] with mean zero and deviation one, and their classes."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    x = F.interpolate(x, (16, 16), mode="bilinear", align_corners=False)
    x = (x - x.mean()) / x.std()
    parts = train_test_split(x, torch.tensor(labels), test_size=0.2, random_state=0, stratify=labels)
    return (parts[0], parts[2]), (parts[1], parts[3])


def network(mixer: object) -> Callable[[str], nn.Module]:
    """A small four-block network of the zoo with this token mixer, as a function of the convolutions."""

    def build(conv: str) -> nn.Module:
        torch.manual_seed(0)
        norm = {"norm": "bn", "kernel": 2, "stride": 2}
        shape = {"depths": (2, 2), "dims": (32, 64), "stem": ("conv_norm", norm), "down": ("norm_conv", norm)}
        options = {"norm": "bn", "layer_scale": None, "mixer": mixer, "mlp": ("mlp", {"ratio": 2}), **shape}
        return striate.zoo.create_model("convnext_atto", num_classes=10, in_chans=1, conv=conv, **options)

    return build


def shiftwise(channels: int) -> nn.Module:
    """A 9x9 reach made of 3x3 kernels that are shifted."""
    return striate.nn.ShiftwiseConv2d(channels, 9, 3)


def sequence(conv: str) -> nn.Module:
    """A network over the flattened image whose layers each see all of it."""
    torch.manual_seed(0)
    options = {"width": 64, "depth": 3, "length": 256, "mixer": ("structured", {"kernel": 16})}
    return nn.Sequential(nn.Flatten(2), striate.zoo.create_model("sgconv_lra_image", conv=conv, **options))


# Name -> (the layer that striate needs for it, how to build it).
NETWORKS: dict[str, tuple[str, Callable[[str], nn.Module]]] = {
    "depthwise": ("Conv2d", network(("depthwise", {"kernel": 7}))),
    "inception": ("Conv2d", network(("inception", {"band_kernel_size": 7, "branch_ratio": 0.25}))),
    "dcls": ("Dcls2d", network(("dcls", {"kernel": 9, "count": 12}))),
    "shiftwise": ("ShiftwiseConv2d", network(shiftwise)),
    "sgconv": ("SGConv1d", sequence),
}


def batches(data: Data, size: int, seed: int) -> Iterator[Data]:
    """Shuffled batches; the same seed gives the same order."""
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(seed))
    for index in order.split(size):
        yield data[0][index], data[1][index]


def train(model: nn.Module, data: Data, epochs: int, label: str) -> float:
    """Seconds of training, with a progress bar on the way."""
    steps = epochs * -(-len(data[0]) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps)
    start, done = time.perf_counter(), 0
    for epoch in range(epochs):
        for x, labels in batches(data, 64, epoch):
            loss = F.cross_entropy(model(x), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
        bar = "#" * (30 * done // steps)
        print(f"\r{label:20} [{bar:30}] loss {loss.item():.3f}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return time.perf_counter() - start


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Share of the digits that are recognised."""
    model.eval()
    return (model(data[0]).argmax(1) == data[1]).float().mean().item()


def main() -> int:
    """Train every network, or one of them; 1 if one stays below 97 %."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--quick", action="store_true", help="two batches, no judgement")
    args = parser.parse_args()
    data, test = digits()
    if args.quick:
        args.epochs, data, test = 1, (data[0][:128], data[1][:128]), (test[0][:64], test[1][:64])
    print(f"{'network':12}{'parameters':>12}{'torch':>18}{'striate':>18}{'ratio':>8}")
    worst = 1.0
    for name, (needs, build) in NETWORKS.items():
        if args.only not in (None, name):
            continue
        if not hasattr(striate.nn, needs):
            print(f"{name:12}needs striate.nn.{needs}, which this version does not have")
            continue
        found = {}
        for conv in ("torch", "striate"):
            model = build(conv)
            seconds = train(model, data, args.epochs, f"{name}, {conv}")
            found[conv] = (seconds, accuracy(model, test))
            worst = min(worst, found[conv][1])
        cells = "".join(f"{seconds:>8.1f} s {share:>6.1%}" for seconds, share in found.values())
        count = sum(p.numel() for p in model.parameters())
        print(f"{name:12}{count:>12,}{cells}{found['torch'][0] / found['striate'][0]:>8.2f}")
    return int(worst < 0.97 and not args.quick)


if __name__ == "__main__":
    sys.exit(main())
