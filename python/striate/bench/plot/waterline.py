"""A network's kernels in order: width the time that each needs at least, height its intensity, below water what waits.

The waterline (Lavin, arXiv 2404.03617) is the machine's balance, peak arithmetic over bandwidth of memory: a kernel
below it is bound by bytes. Fusing a block makes one kernel of its members, which moves its input, weights and output.
"""

from __future__ import annotations

from typing import Any

from ..report import plural
from ..sequence import fused
from .style import BLUE, GREEN, ORANGE, RED, SKY, Chosen, Drawn, figure, machine_line

_LOW, _HIGH = 0.05, 300.0


def _colour(op: str) -> str:
    if op == "block":
        return GREEN
    return BLUE if "conv" in op or "striate" in op else GREEN if "mm" in op else ORANGE


def _needed(kernel: dict[str, Any], rates: dict[str, Any]) -> float:
    """Seconds at the roofs."""
    return max(kernel["flops"] / rates["peak_f32"], kernel["bytes"] / rates["copy"])


def _panel(axes: Any, kernels: list[dict[str, Any]], rates: dict[str, Any], title: str) -> float:
    line, x = rates["peak_f32"] / rates["copy"], 0.0
    for kernel in kernels:
        width = 1e3 * _needed(kernel, rates)
        height = min(_HIGH, max(_LOW * 1.2, kernel["flops"] / max(1, kernel["bytes"])))
        axes.bar(
            x, height, width, align="edge", color=_colour(kernel["op"]), edgecolor="white", linewidth=0.2
        )
        x += width
    axes.axhline(line, color=SKY, linewidth=1.2, zorder=3)
    axes.axhspan(_LOW, line, color=SKY, alpha=0.15, zorder=0)
    ideal = 1e3 * sum(kernel["flops"] for kernel in kernels) / rates["peak_f32"]
    axes.set_title(
        f"{title}: at least {x:.2f} ms, attainable efficiency {ideal / x:.0%}", loc="left", fontsize=9
    )
    axes.set_yscale("log")
    axes.set_ylim(_LOW, _HIGH)
    axes.set_ylabel("flop per byte")
    return x


def draw(chosen: Chosen) -> Drawn:
    """Two panels, before and after fusion, on one scale of time."""
    found = [
        record
        for record in chosen.records
        if record["kind"] == "sequence" and chosen.network in (None, record["name"])
    ]
    threads = chosen.threads or max((record["threads"] for record in found), default=0)
    record = next((each for each in found if each["threads"] == threads), None)
    rates = chosen.rates(threads) if record else None
    if record is None or rates is None:
        return None
    fig, grid = figure((8.0, 4.6), 2, 1, sharex=True)
    before, after = grid[0][0], grid[1][0]
    most = _panel(before, record["kernels"], rates, f"{record['name']}, {len(record['kernels'])} kernels")
    joined = fused(record)
    _panel(after, joined, rates, f"every block fused, {len(joined)} kernels")
    line = rates["peak_f32"] / rates["copy"]
    text = f"waterline {line:.1f} flop per byte "
    after.annotate(text, (most, line), ha="right", va="bottom", fontsize=7, color=BLUE)
    after.set_xlabel("ms that each kernel needs at least, in order")
    taken = 1e3 * sum(kernel["median"] for kernel in record["kernels"])
    ideal = 1e3 * sum(kernel["flops"] for kernel in record["kernels"]) / rates["peak_f32"]
    before.set_xlim(0, most * 1.01)
    text = f"measured, kernel by kernel: {taken:.2f} ms, efficiency {ideal / taken:.0%}"
    before.set_title(text, loc="right", fontsize=8, color=RED)
    for label, colour in (
        ("convolution", BLUE),
        ("matrix product, or a fused block", GREEN),
        ("other", ORANGE),
    ):
        after.bar(0, 0, 0, color=colour, label=label)
    fig.legend(*after.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    shape = "x".join(map(str, record["shape"]))
    machine_line(fig, chosen, f"{plural(threads)} · input {shape}")
    return fig
