"""Charts: kernels as curves, and what committed records show."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canvas import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, Drawing

RECORDS = Path(__file__).resolve().parents[2] / "bench" / "record" / "epyc-2vcpu"
PASSES = {"fwd": ("forward", BLUE), "dx": ("input gradient", GREEN), "dw": ("weight gradient", ORANGE)}
Record = dict[str, Any]


def records(name: str) -> list[Record]:
    """The lines of a committed record."""
    return [json.loads(line) for line in (RECORDS / name).read_text().splitlines() if line]


def origin(lines: Sequence[Record]) -> str:
    """Which machine a chart is of, and when."""
    here = lines[0]
    shared = ", shared with other processes" if here.get("others") else ""
    return f"{here['cpu']}{shared}, torch {here['torch']}, {here['date']}"


@dataclass
class Axes:
    """Two logarithmic axes around an area of a drawing."""

    drawing: Drawing
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 62
    top: float = 26
    width: float = 440
    height: float = 260

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a value stands."""

        def share(value: float, ends: tuple[float, float]) -> float:
            return math.log(value / ends[0]) / math.log(ends[1] / ends[0])

        return self.left + share(x, self.x) * self.width, self.top + (1 - share(y, self.y)) * self.height

    def ticks(self, names: tuple[str, str], steps: tuple[Sequence[float], Sequence[float]]) -> None:
        """Lines and numbers of both axes, and what they are."""
        bottom, right = self.top + self.height, self.left + self.width
        for value in steps[0]:
            x, _ = self.at(value, self.y[0])
            self.drawing.line(x, self.top, x, bottom)
            self.drawing.text(x, bottom + 14, f"{value:g}", "middle")
        for value in steps[1]:
            _, y = self.at(self.x[0], value)
            self.drawing.line(self.left, y, right, y)
            self.drawing.text(self.left - 6, y + 4, f"{value:g}", "end")
        self.drawing.text((self.left + right) / 2, bottom + 30, names[0], "middle")
        self.drawing.text(8, 14, names[1])


def legend(drawing: Drawing, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
    """Names and colours, one below the other."""
    for number, (name, colour) in enumerate(entries):
        drawing.add("rect", x=x, y=y + 16.0 * number - 8, width=10.0, height=10.0, fill=colour)
        drawing.text(x + 15, y + 16 * number + 1, name)


def curves(panels: Sequence[tuple[str, Sequence[float]]]) -> Drawing:
    """Values in [-1, 1] over their index, one panel beside the other."""
    width, tall, gap = 150, 70, 20
    drawing = Drawing(len(panels) * (width + gap) + 12, tall + 46)
    for number, (name, values) in enumerate(panels):
        left = 10 + number * (width + gap)
        drawing.text(left, 14, name)
        drawing.line(left, 24 + tall / 2, left + width, 24 + tall / 2)
        drawing.path(
            [
                (left + width * i / (len(values) - 1), 24 + tall / 2 * (1 - value))
                for i, value in enumerate(values)
            ],
            BLUE,
        )
        drawing.text(left, tall + 38, f"0 ... {len(values) - 1} samples ago")
    return drawing


def roofline() -> Drawing:
    """Every case of the goals in float32 under the measured roofs, one thread."""
    lines = records("goals.jsonl")
    roof = next(rates for rates in lines[0]["roofline"] if rates["threads"] == 1)
    drawing = Drawing(690, 340)
    axes = Axes(drawing, (0.5, 500), (1, 200))
    axes.ticks(
        ("flop per byte that has to move", "Gflop/s"),
        ((0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500), (1, 2, 5, 10, 20, 50, 100, 200)),
    )
    peak, copy = roof["peak_f32"] / 1e9, roof["copy"] / 1e9
    ridge = peak / copy
    drawing.path([axes.at(0.5, copy / 2), axes.at(ridge, peak), axes.at(500, peak)], INK, 2)
    drawing.text(*axes.at(7, peak * 1.12), f"arithmetic: {peak:.0f} Gflop/s")
    drawing.text(*axes.at(0.55, 75), f"copying from memory: {copy:.0f} GB/s")
    for case in lines:
        if case["kind"] != "case" or case["dtype"] != "f32" or case["threads"] != 1 or case["fault"]:
            continue
        name, colour = PASSES[case["pass"]]
        flops = 2 * case["macs"]
        for who, fill in (("torch", GREY), ("striate", colour)):
            speed = flops / case["times"][who]["median"] / 1e9
            if speed >= axes.y[0]:
                drawing.dot(*axes.at(flops / case["bytes"], speed), fill, f"{case['short']}, {name}, {who}")
    entries = [*PASSES.values(), ("torch as called", GREY)]
    legend(drawing, 520, 60, entries)
    drawing.text(8, 334, f"{origin(lines)}, one thread; torch below 1 Gflop/s is not shown")
    return drawing


def crossover() -> Drawing:
    """Direct sums against transforms as the kernel grows, one thread."""
    lines = records("fft.jsonl")
    names = {
        "direct": ("conv1d, direct", ORANGE),
        "striate": ("fft_conv1d", BLUE),
        "torch.fft": ("torch.fft", PURPLE),
    }
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    for case in lines:
        taps, _, rest = str(case.get("label", "")).removeprefix("K=").partition(" ")
        if case["kind"] == "fft" and case["threads"] == 1 and rest == "L=16k 4x32" and taps.isdecimal():
            for name in names:
                if name in case["times"]:
                    found[name].append((int(taps), case["times"][name]["min"] * 1e3))
    drawing = Drawing(690, 340)
    axes = Axes(drawing, (24, 640), (1, 200))
    axes.ticks(("taps", "ms"), ((32, 64, 128, 192, 256, 512), (1, 2, 5, 10, 20, 50, 100, 200)))
    for key, (_, colour) in names.items():
        drawing.path([axes.at(*point) for point in found[key]], colour, 2)
        for count, time in found[key]:
            drawing.dot(*axes.at(count, time), colour, f"{count} taps: {time:.1f} ms")
    legend(drawing, 520, 60, list(names.values()))
    drawing.text(8, 334, f"{origin(lines)}; 4 x 32 x 16384, float32, one thread, fastest rounds")
    return drawing
