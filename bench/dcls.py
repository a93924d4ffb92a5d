"""Built kernels and re-parameterised layers against the published ways to compute them, in interleaved turns.

    python bench/dcls.py --json bench/record/<machine>/dcls.jsonl [--threads 1 2] [--seconds 20]

The contenders of a case compute the same numbers, which is checked before anything is timed. `torch` is the
operator written in torch's own operators; `dcls` is the published package.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import striate
from striate.bench.environment import environment
from striate.bench.records import Recorder
from striate.bench.timing import Local, race
from striate.ops.dcls import formula

Call = Callable[[], Any]
FILTERS, SIZE, ELEMENTS = 768, 17, 34


def published(name: str) -> Any:
    """A class of the package, without what it logs about itself."""
    logging.disable(logging.CRITICAL)
    from DCLS.construct import modules

    return getattr(modules, name)


def constructions(filters: int = FILTERS) -> dict[str, Call]:
    """Forward and backward of the kernel of ConvNeXt-dcls' last stage."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(filters, 1, ELEMENTS, generator=generator).requires_grad_()
    P = (3 * torch.randn(2, filters, 1, ELEMENTS, generator=generator)).requires_grad_()
    SIG = torch.full((2, filters, 1, ELEMENTS), 0.23, requires_grad=True)
    upstream = torch.randn(filters, 1, SIZE, SIZE, generator=generator)
    theirs = published("ConstructKernel2d")(filters, 1, 1, ELEMENTS, (SIZE, SIZE), "gauss")
    builders: dict[str, Callable[[], Tensor]] = {
        "striate": lambda: striate.dcls_kernel(weight, P, SIG, dilated_kernel_size=SIZE),
        "torch": lambda: formula(weight, P, SIG, ((SIZE, SIZE), "gauss", 0.27, (1, 0))),
        "dcls": lambda: theirs(weight, P, SIG),
    }

    def step(build: Callable[[], Tensor]) -> Call:
        return lambda: torch.autograd.grad(build(), (weight, P, SIG), upstream)

    return {name: step(build) for name, build in builders.items()}


def training(layer: torch.nn.Module, x: Tensor) -> Call:
    """One step: every gradient of a sum of squares."""
    wanted = [x.requires_grad_(), *layer.parameters()]

    def step() -> Any:
        y = layer(x)
        return torch.autograd.grad(y, wanted, y.detach())

    return step


def stage(channels: int, side: int, batch: int) -> dict[str, Call]:
    """A depthwise layer of ConvNeXt-T with learned spacings, and the plain one with as large a kernel."""
    x = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0))
    layer = striate.nn.Dcls2d(
        channels,
        channels,
        ELEMENTS,
        padding=SIZE // 2,
        dilated_kernel_size=SIZE,
        groups=channels,
        version="v0",
    )
    plain = striate.nn.Conv2d(channels, channels, SIZE, padding=SIZE // 2, groups=channels)
    return {"striate": training(layer, x), "plain": training(plain, x)}


class ExpandShiftAdd(torch.nn.Module):
    """The shift-wise layer as published: nk maps per channel, each shifted, then added.

    The maps are permuted all at once and taken apart along the slots, because slices and single look-ups of so
    large a tensor cost torch a hundred times more in the backward pass.
    """

    def __init__(self, layer: striate.nn.ShiftwiseConv2d) -> None:
        super().__init__()
        self.layer = layer
        nk = math.ceil(layer.big_kernel / layer.small_kernel)
        base = torch.arange(layer.channels).unsqueeze(1) * nk
        self.across, self.down = ((maps + base).flatten(1) for maps in layer.permutations[:2])
        self.same = layer.identity + base.flatten()

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers as the layer."""
        layer = self.layer
        small, big, channels = layer.small_kernel, layer.big_kernel, layer.channels
        slots, pad, extra = math.ceil(big / small), small - 1, small - 1 - small // 2
        maps = sum(F.conv2d(x, conv.weight, padding=pad, groups=channels) for conv in layer.LoRAs)
        wide = tall = same = torch.zeros(())
        for across, down, identity in zip(self.across, self.down, self.same, strict=True):
            pairs = zip(self.apart(maps, across, slots), self.apart(maps, down, slots), strict=True)
            for slot, (left, up) in enumerate(pairs):
                shift = slot * small + pad - big // 2  # this far to the right of the output position it reads
                ends = (-shift, shift - 2 * extra)
                wide = wide + F.pad(left, (*ends, -extra, -extra))
                tall = tall + F.pad(up, (-extra, -extra, *ends))
            same = same + F.pad(maps.index_select(1, identity), (-extra,) * 4)
        return layer.bn_lora1(wide) + layer.bn_lora2(tall) + layer.bn_small(same) + x

    @staticmethod
    def apart(maps: Tensor, order: Tensor, slots: int) -> tuple[Tensor, ...]:
        """The maps of every slot, ``[N, C, H, W]`` each."""
        return maps.index_select(1, order).unflatten(1, (-1, slots)).unbind(2)


def shiftwise(batch: int) -> dict[str, Call]:
    """A training step of the shift-wise layer, K = 51, C = 160, 28 x 28."""
    torch.manual_seed(0)
    layer = striate.nn.ShiftwiseConv2d(160, 51)
    x = torch.randn(batch, 160, 28, 28)
    return {"striate": training(layer, x), "torch": training(ExpandShiftAdd(layer), x)}


def inception(channels: int, side: int, batch: int) -> dict[str, Call]:
    """A forward pass of InceptionNeXt's mixer."""
    from timm.models.inception_next import InceptionDWConv2d

    torch.manual_seed(0)
    theirs = InceptionDWConv2d(channels).eval()
    mine = striate.nn.InceptionDWConv2d(channels).eval()
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(batch, channels, side, side)

    def run(layer: torch.nn.Module) -> Call:
        @torch.no_grad()
        def call() -> Tensor:
            y: Tensor = layer(x)
            return y

        return call

    return {"striate": run(mine), "torch": run(theirs)}


def delays(channels: int, batch: int) -> dict[str, Call]:
    """A time step of a layer of delays, and the same from the last K samples by the dense kernel."""
    torch.manual_seed(0)
    layer = striate.nn.Dcls1d(channels, channels, 1, dilated_kernel_size=25, version="v0")
    layer.round_positions_()
    kernel, past = layer.kernel().detach(), torch.randn(batch, channels, 25)
    state = layer.initial_state(batch)

    @torch.no_grad()
    def step() -> Tensor:
        return layer.step(past[..., -1], state)[0]

    @torch.no_grad()
    def dense() -> Tensor:
        return F.conv1d(past, kernel, layer.bias)[..., 0]

    for sample in past[..., :-1].unbind(-1):
        layer.step(sample, state)
    expected = step()
    assert torch.allclose(expected, dense(), atol=1e-4)
    return {"striate": step, "plain": dense}


CASES: dict[str, Callable[[], dict[str, Call]]] = {
    f"construct C{FILTERS} K{SIZE} m{ELEMENTS} gauss, forward and backward": constructions,
    **{
        f"Dcls2d step N{n} C{c} {s}x{s} K{SIZE} m{ELEMENTS}": lambda c=c, s=s, n=n: stage(c, s, n)
        for n in (8, 64)
        for c, s in ((96, 56), (192, 28), (384, 14), (768, 7))
        if n == 8 or s <= 14
    },
    **{
        f"Dcls1d one time step N{n} C{c} K25": lambda c=c, n=n: delays(c, n) for c, n in ((256, 1), (256, 32))
    },
    "ShiftwiseConv2d step N4 C160 28x28 K51": lambda: shiftwise(4),
    **{
        f"InceptionDWConv2d forward N8 C{c} {s}x{s}": lambda c=c, s=s: inception(c, s, 8)
        for c, s in ((96, 56), (192, 28), (384, 14))
    },
}


def agree(calls: dict[str, Call]) -> float:
    """The largest relative difference between striate's results and any other's; a plain layer is no contender."""

    def flat(found: Any) -> list[Tensor]:
        return [found] if isinstance(found, Tensor) else list(found)

    expected, worst = flat(calls["striate"]()), 0.0
    for name, call in calls.items():
        if name in ("striate", "plain"):
            continue
        for mine, theirs in zip(expected, flat(call()), strict=True):
            scale = float(theirs.detach().abs().max()) or 1.0
            worst = max(worst, float((mine - theirs).detach().abs().max()) / scale)
    return worst


def peak(contender: str) -> int:
    """Bytes that a construction adds to the peak of a process of its own."""
    command = [sys.executable, __file__, "--peak", contender]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def own_peak(contender: str) -> int:
    """The same, inside that process: after one filter has loaded what is loaded once."""
    torch.set_num_threads(1)
    calls = constructions()
    constructions(1)[contender]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what is resident now
    before = resident("VmHWM")
    calls[contender]()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """A size that Linux keeps of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", default="")
    parser.add_argument("--peak", choices=["striate", "torch", "dcls"])
    given = parser.parse_args()
    if given.peak:
        print(own_peak(given.peak))
        return
    with Recorder(given.json) as recorder:
        recorder.write(
            {"kind": "environment", "command": " ".join(["bench/dcls.py", *sys.argv[1:]]), **environment()}
        )
        for label, make in CASES.items():
            if given.only not in label:
                continue
            calls = make()
            fault = agree(calls)
            for threads in given.threads:
                torch.set_num_threads(threads)
                times = race({name: Local(call) for name, call in calls.items()}, given.seconds)
                times = {name: timing.record() for name, timing in times.items()}
                recorder.write(
                    {"kind": "case", "label": label, "threads": threads, "difference": fault, "times": times}
                )
                ratios = {n: t["median"] / times["striate"]["median"] for n, t in times.items()}
                print(
                    label, f"{threads} threads", {n: f"{t['median'] * 1e3:.3f} ms" for n, t in times.items()}
                )
                print("   over striate:", {n: f"{ratio:.2f}" for n, ratio in ratios.items()}, f"{fault:.1e}")
        if given.only in "peak memory":
            peaks = {name: peak(name) for name in ("striate", "torch", "dcls")}
            recorder.write({"kind": "peak", "label": next(iter(CASES)), "bytes": peaks})
            print("peak", {name: f"{value / 1e6:.1f} MB" for name, value in peaks.items()})
        recorder.write({"kind": "end"})


if __name__ == "__main__":
    main()
