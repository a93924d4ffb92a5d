"""Train a ten-layer DnCNN on photographs and write what it does to one that it has not seen.

    pip install striate scikit-image
    python examples/denoise.py [--steps 400] [--sigma 25] [--out .] [--quick]

The photographs come with scikit-image. Writes noisy.png and denoised.png of the cameraman, and prints their distance
to the original in dB (peak signal to noise ratio). DnCNN is Zhang et al., arXiv 1608.03981. `--quick` takes two steps
of training, only to show that everything runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from skimage import color, data
from torch import Tensor

import striate


def photographs() -> list[Tensor]:
    """Grey photographs [H, W] in [0, 1], the cameraman not among them."""
    coloured = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.hubble_deep_field())
    grey = (data.brick(), data.coins(), data.grass(), data.gravel(), data.moon())
    images = [color.rgb2gray(image) for image in coloured] + [image / 255 for image in grey]
    return [torch.tensor(image, dtype=torch.float32) for image in images]


def patches(images: Sequence[Tensor], count: int, side: int = 40) -> Tensor:
    """Random square pieces [count, 1, side, side], turned and mirrored."""
    pieces = []
    for _ in range(count):
        image = images[int(torch.randint(len(images), ()))]
        y, x = (int(torch.randint(n - side + 1, ())) for n in image.shape)
        piece = torch.rot90(image[y : y + side, x : x + side], int(torch.randint(4, ())))
        pieces.append(piece.flip(0) if torch.rand(()) < 0.5 else piece)
    return torch.stack(pieces).unsqueeze(1)


def decibels(x: Tensor, truth: Tensor) -> float:
    """Peak signal to noise ratio of images in [0, 1]."""
    return float(-10 * torch.log10(F.mse_loss(x, truth)))


def save(x: Tensor, path: Path) -> None:
    """Write an image [1, 1, H, W] in [0, 1]."""
    Image.fromarray((x[0, 0].clamp(0, 1) * 255).round().byte().numpy()).save(path)


def main() -> int:
    """Train, denoise, write, print; 1 if denoising did not help."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--sigma", type=float, default=25, help="deviation of the noise, of 255")
    parser.add_argument("--conv", choices=("torch", "striate"), default="striate")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--quick", action="store_true", help="two steps, no judgement")
    args = parser.parse_args()
    steps = 2 if args.quick else args.steps
    torch.manual_seed(0)
    sigma, images = args.sigma / 255, photographs()
    layers = "c32k3 " * 9 + "c1k3!"
    model = striate.zoo.create_model("dncnn_b", layers=layers, conv=args.conv)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for step in range(1, steps + 1):
        clean = patches(images, 16)
        loss = F.mse_loss(model(clean + sigma * torch.randn_like(clean)), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            bar = "#" * (30 * step // steps)
            print(f"\r[{bar:30}] loss {loss.item():.5f}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    truth = torch.tensor(data.camera() / 255, dtype=torch.float32).view(1, 1, 512, 512)
    noisy = truth + sigma * torch.randn_like(truth)
    with torch.no_grad():
        denoised = model.eval()(noisy)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, image in (("noisy", noisy), ("denoised", denoised)):
        save(image, args.out / f"{name}.png")
        print(f"{name:10}{decibels(image, truth):6.2f} dB  {args.out / f'{name}.png'}")
    return int(decibels(denoised, truth) <= decibels(noisy, truth) and not args.quick)


if __name__ == "__main__":
    sys.exit(main())
