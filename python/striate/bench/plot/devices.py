"""CPU beside GPU: striate and torch on both, case by case."""

from __future__ import annotations

from typing import Any

from ..report import by_device
from .style import BLUE, GREEN, ORANGE, SKY, Chosen, Drawn, figure, machine_line

_BARS = (
    ("cpu", "torch", "torch, CPU", SKY),
    ("cpu", "striate", "striate, CPU", BLUE),
    ("cuda", "torch", "torch, GPU", ORANGE),
    ("cuda", "striate", "striate, GPU", GREEN),
)


def draw(chosen: Chosen) -> Drawn:
    """None unless the records hold cases that differ in nothing but the device."""
    cases = [r for r in chosen.records if r["kind"] == "case" and chosen.family in (None, r.get("family"))]
    if chosen.threads is not None:
        cases = [case for case in cases if case.get("device") == "cuda" or case["threads"] == chosen.threads]
    pairs = by_device(cases)
    if not pairs:
        return None
    fig, grid = figure((7.4, 1.4 + 0.5 * len(pairs)))
    axes: Any = grid[0][0]
    for row, found in enumerate(pairs.values()):
        for number, (device, name, _, colour) in enumerate(_BARS):
            time = found[device]["times"].get(name, {})
            if "median" in time:
                axes.barh(row + 0.2 * (number - 1.5), 1e3 * time["median"], 0.18, color=colour)
    names = [f"{short} {found['cpu']['dtype']} {pass_}" for (_, short, pass_), found in pairs.items()]
    axes.set_yticks(range(len(pairs)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms (less is better)")
    for _, _, label, colour in _BARS:
        axes.barh(0, 0, 0, color=colour, label=label)
    fig.legend(loc="outside upper center", ncols=4, fontsize=8)
    machine_line(fig, chosen, "CPU on its fastest number of threads")
    return fig
