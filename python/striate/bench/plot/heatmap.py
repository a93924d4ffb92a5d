"""Speed-up over torch as colours: kernel size over map size where a record has such a grid, else case over pass."""

from __future__ import annotations

import re
from typing import Any

from ..report import plural
from .style import PASS_NAMES, PASS_TICKS, Chosen, Drawn, figure, machine_line

_GRID = "sizes"
_SQUARE = re.compile(r" i(\d+)x\1 k(\d+)x\2 ")
Cells = dict[tuple[str, str], float]


def _grid(cases: list[dict[str, Any]], which: str) -> dict[str, Cells]:
    """A panel for each pass: kernel over map."""
    panels: dict[str, Cells] = {}
    for case in cases:
        found = _SQUARE.search(case["problem"])
        if found and case[which]:
            cell = (f"{found[2]}x{found[2]}", f"{found[1]}x{found[1]}")
            panels.setdefault(PASS_NAMES[case["pass"]], {})[cell] = case[which]
    return panels


def _table(cases: list[dict[str, Any]]) -> dict[str, Cells]:
    """A panel for each kind of torch: case over pass."""
    panels: dict[str, Cells] = {}
    for which, title in (("ratio_default", "over torch's default"), ("ratio_best", "over torch's best")):
        for case in cases:
            if case[which]:
                cell = (f"{case['short']} {case['dtype']}", PASS_NAMES[case["pass"]])
                panels.setdefault(title, {})[cell] = case[which]
    return panels


def _panel(axes: Any, cells: Cells, labels: tuple[list[str], list[str]]) -> Any:
    import numpy as np
    from matplotlib.colors import LogNorm

    rows, columns = labels
    values = np.full((len(rows), len(columns)), np.nan)
    for (row, column), ratio in cells.items():
        values[rows.index(row), columns.index(column)] = ratio
    # 1 is white: blue is faster than torch, red is slower.
    shown = axes.imshow(values, cmap="RdBu", norm=LogNorm(1 / 32, 32), aspect="auto")
    for (row, column), ratio in cells.items():
        text = f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 1.95 else f"{ratio:.2f}"
        dark = not 1 / 8 < ratio < 8
        at = (columns.index(column), rows.index(row))
        axes.text(*at, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), [PASS_TICKS.get(name, name) for name in columns], fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.grid(visible=False)
    return shown


def draw(chosen: Chosen) -> Drawn:
    """None if nothing was compared with torch."""
    cases = chosen.cases(_GRID)
    gridded = _grid(cases, "ratio_default") if all(case["family"] == _GRID for case in cases) else {}
    if not gridded:
        cases = chosen.cases()
        cases = [case for case in cases if case["family"] == cases[0]["family"]]
    panels = gridded or _table([case for case in cases if "ratio_default" in case])
    if not panels:
        return None

    def ordered(position: int) -> list[str]:
        return list(dict.fromkeys(cell[position] for cells in panels.values() for cell in cells))

    rows, columns = ordered(0), ordered(1)
    if gridded:
        rows, columns = (
            sorted(labels, key=lambda text: int(text.split("x")[0])) for labels in (rows, columns)
        )
    size = (1.9 + len(panels) * (0.5 + 0.62 * len(columns)), 1.5 + 0.22 * len(rows) + 0.4 * bool(gridded))
    fig, grid = figure((max(6.0, size[0]), max(3.0, size[1])), 1, len(panels), sharey=True)
    for axes, (title, cells) in zip(grid[0], panels.items(), strict=True):
        shown = _panel(axes, cells, (rows, columns))
        axes.set_title(title, fontsize=9, loc="left")
        if gridded:
            axes.set_xlabel("map")
    if gridded:
        grid[0][0].set_ylabel("kernel")
    bar = fig.colorbar(shown, ax=list(grid[0]), ticks=[1 / 32, 1 / 8, 1 / 2, 1, 2, 8, 32], shrink=0.9)
    bar.ax.set_yticklabels(["1/32", "1/8", "1/2", "1", "2", "8", "32"])
    bar.set_label("time of torch / time of striate", fontsize=8)
    machine_line(fig, chosen, plural(cases[0]["threads"]))
    return fig
