"""Direct sums, transforms and torch over the kernel's size, a panel for each length: where they change places."""

from __future__ import annotations

import re
from typing import Any

from ..report import plural
from .style import BLUE, GREEN, ORANGE, RED, Chosen, Drawn, figure, machine_line

_CONV = re.compile(r"^conv fwd f32 nchw cpu n(\d+) g(\d+) ci1 co1 i(\d+) k(\d+) s1 d1 ")
_LONG = re.compile(r"^fft_conv1d fwd f32 nchw cpu n(\d+) c(\d+) i(\d+) k(\d+)$")
# Names in the record, by what the line is: a direct convolution or one by transforms.
_NAMES = {
    "conv": {"striate": "direct", "striate.fft": "fft", "torch": "torch", "torch.fft": "torch.fft"},
    "fft": {"striate": "fft", "striate.direct": "direct", "torch.fft": "torch.fft"},
}
_STYLES = {
    "direct": ("striate, direct", BLUE, "o-"),
    "fft": ("striate, transforms", GREEN, "s-"),
    "torch": ("torch conv1d", RED, "x--"),
    "torch.fft": ("torch.fft", ORANGE, "+--"),
}
Lines = dict[str, dict[int, float]]


def _collect(chosen: Chosen) -> dict[tuple[int, int], Lines]:
    """Milliseconds by (length, signals), contender and taps."""
    panels: dict[tuple[int, int], Lines] = {}
    for case in chosen.cases():
        for kind, pattern in (("conv", _CONV), ("fft", _LONG)):
            found = pattern.match(case["problem"])
            if found is None:
                continue
            batch, channels, length, taps = map(int, found.groups())
            lines = panels.setdefault((length, batch * channels), {})
            for name, shown in _NAMES[kind].items():
                time = case["times"].get(name, {})
                if "median" in time:
                    lines.setdefault(shown, {})[taps] = 1e3 * time["median"]
    wanted = {key: lines for key, lines in panels.items() if {"direct", "fft"} <= lines.keys()}
    return {key: lines for key, lines in sorted(wanted.items()) if len(lines["direct"]) > 2}


def crossing(lines: Lines) -> int | None:
    """The fewest taps from which transforms stay faster than direct sums; None if they never are."""
    both = sorted(lines["direct"].keys() & lines["fft"].keys(), reverse=True)
    faster = None
    for taps in both:
        if lines["fft"][taps] >= lines["direct"][taps]:
            return faster
        faster = taps
    return faster


def _panel(axes: Any, lines: Lines) -> None:
    for name, (label, colour, mark) in _STYLES.items():
        points = sorted(lines.get(name, {}).items())
        if points:
            axes.plot(
                [k for k, _ in points],
                [ms for _, ms in points],
                mark,
                color=colour,
                label=label,
                markersize=4,
            )
    taps = crossing(lines)
    if taps is not None:
        axes.axvline(taps, color=GREEN, linewidth=0.8, linestyle=":")
        axes.annotate(
            f" transforms from {taps}", (taps, 0.02), xycoords=("data", "axes fraction"), fontsize=7
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("taps of the kernel")


def draw(chosen: Chosen) -> Drawn:
    """None if the records have no kernel sizes that both were timed at."""
    panels = _collect(chosen)
    if not panels:
        return None
    fig, grid = figure((3.2 * len(panels) + 0.6, 3.8), 1, len(panels), sharey=True)
    for axes, ((length, signals), lines) in zip(grid[0], panels.items(), strict=True):
        _panel(axes, lines)
        axes.set_title(f"{signals} signals of length {length}", fontsize=9, loc="left")
    grid[0][0].set_ylabel("ms, forward")
    handles, labels = grid[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
    machine_line(fig, chosen, plural(chosen.cases()[0]["threads"]))
    return fig
