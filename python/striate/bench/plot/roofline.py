"""Rate over intensity: how near each case is to the roofs of the machine."""

from __future__ import annotations

from typing import Any

from ..report import plural
from .style import BLUE, GREY, ORANGE, PASS_COLOURS, PASS_NAMES, Chosen, Drawn, figure, machine_line

_LOW, _HIGH = 0.125, 512.0


def _roofs(axes: Any, rates: dict[str, Any], dtype: str) -> None:
    """Slopes of copying, in memory and in the caches, up to the peak of arithmetic."""
    peak = rates["peak_f64" if dtype == "f64" else "peak_f32"]
    slopes = [("memory", rates["copy"])]
    slopes += [(each["level"], each["copy"]) for each in rates.get("levels", ()) if each["level"] != "memory"]
    for name, bandwidth in sorted(slopes, key=lambda pair: pair[1]):
        corner = peak / bandwidth
        axes.plot([_LOW, corner], [_LOW * bandwidth * 1e-9, peak * 1e-9], color=GREY, linewidth=0.9)
        label = f" {name} {bandwidth * 1e-9:.0f} GB/s"
        axes.annotate(label, (_LOW, _LOW * bandwidth * 1e-9), fontsize=7, color=GREY, ha="left", va="top")
    axes.plot([peak / max(b for _, b in slopes), _HIGH], [peak * 1e-9] * 2, color=GREY, linewidth=0.9)
    text = f"matrix product {peak * 1e-9:.0f} GFLOP/s"
    axes.annotate(text, (_HIGH, peak * 1e-9), fontsize=7, color=GREY, ha="right", va="bottom")


def _panel(axes: Any, chosen: Chosen, cases: list[dict[str, Any]], rates: dict[str, Any]) -> None:
    _roofs(axes, rates, cases[0]["dtype"])
    for pass_, colour in PASS_COLOURS.items():
        mine = [case for case in cases if case["pass"] == pass_]
        if not mine:
            continue
        x = [2 * case["macs"] / case["bytes"] for case in mine]
        axes.scatter(
            x, [case["gflops"] for case in mine], s=26, color=colour, label=PASS_NAMES[pass_], zorder=3
        )
        theirs = [case for case in mine if "median" in case["times"].get("torch", {})]
        axes.scatter(
            [2 * case["macs"] / case["bytes"] for case in theirs],
            [2e-9 * case["macs"] / case["times"]["torch"]["median"] for case in theirs],
            s=22,
            facecolors="none",
            edgecolors=colour,
            linewidths=0.8,
            zorder=2,
        )
    axes.scatter([], [], s=22, facecolors="none", edgecolors=GREY, label="torch, the same case")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(_LOW, _HIGH)
    axes.set_xlabel("intensity: flop per byte read or written once")
    axes.set_ylabel("GFLOP/s")


def draw(chosen: Chosen) -> Drawn:
    """One panel for each device; None if no case has a rate below a roof."""
    panels = []
    for device in ("cpu", "cuda"):
        cases = [case for case in chosen.cases() if case.get("device", "cpu") == device and case["macs"]]
        rates = chosen.rates(cases[0]["threads"], device) if cases else None
        if rates:
            panels.append((device, cases, rates))
    if not panels:
        return None
    fig, axes = figure((6.4 * len(panels), 4.4), 1, len(panels))
    for each, (device, cases, rates) in zip(axes[0], panels, strict=True):
        _panel(each, chosen, cases, rates)
        where = plural(cases[0]["threads"]) if device == "cpu" else "GPU"
        each.set_title(f"Roofline, {where}", loc="left", color=BLUE if device == "cpu" else ORANGE)
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8)
    machine_line(fig, chosen)
    return fig
