"""The efficiency gap of each case: from the time its arithmetic needs, over what its bytes need, to what it takes.

After Lavin, arXiv 2404.03617: the part between the first two marks is the model's (low intensity), the part between
the last two is the kernel's.
"""

from __future__ import annotations

from ..report import plural
from .style import BLUE, GREY, ORANGE, RED, Chosen, Drawn, figure, machine_line

_MOST = 60


def draw(chosen: Chosen) -> Drawn:
    """Cases from the widest gap of the kernel to the narrowest."""
    cases = [case for case in chosen.cases() if case["macs"] and case["roof"]["peak"]]
    if not cases:
        return None
    cases = sorted(cases, key=lambda case: (case["roof"]["share"], case["short"], case["pass"]))[:_MOST]
    fig, grid = figure((7.4, 1.3 + 0.19 * len(cases)))
    axes = grid[0][0]
    for y, case in enumerate(cases):
        ideal = 2e3 * case["macs"] / case["roof"]["peak"]
        attainable, taken = 1e3 * case["roof"]["seconds"], 1e3 * case["times"]["striate"]["median"]
        axes.plot([ideal, attainable], [y, y], color=ORANGE, linewidth=3, solid_capstyle="butt", zorder=2)
        axes.plot([attainable, taken], [y, y], color=BLUE, linewidth=3, solid_capstyle="butt", zorder=2)
        axes.plot([ideal], [y], "|", color=GREY, markersize=7, zorder=3)
        axes.plot([taken], [y], "o", color=BLUE, markersize=4, zorder=3)
        torch = case["times"].get("torch", {}).get("median")
        if torch:
            axes.plot([1e3 * torch], [y], "x", color=RED, markersize=4, zorder=3)
    axes.set_yticks(range(len(cases)), [f"{c['short']} {c['dtype']} {c['pass']}" for c in cases], fontsize=7)
    axes.set_ylim(-0.8, len(cases) - 0.2)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    axes.plot([], [], "|", color=GREY, label="arithmetic alone, at peak")
    axes.plot([], [], color=ORANGE, linewidth=3, label="the problem's gap: bytes to move")
    axes.plot(
        [], [], color=BLUE, linewidth=3, marker="o", markersize=4, label="the kernel's gap, up to measured"
    )
    axes.plot([], [], "x", color=RED, label="torch")
    fig.legend(loc="outside upper center", ncols=2, fontsize=8)
    machine_line(fig, chosen, plural(cases[0]["threads"]))
    return fig
