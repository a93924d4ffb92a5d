"""What all pictures share: colours, the machine's line below, and files whose bytes do not change by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A figure; None where the records hold nothing to draw.
Drawn = Any
# Okabe and Ito's colours, which most colour-blind people can tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#666666",
)
PASS_COLOURS = {"fwd": BLUE, "dx": ORANGE, "dw": GREEN, "fwdbwd": PURPLE}
# On two lines, for narrow columns.
PASS_TICKS = {"forward": "forward", "input gradient": "input\ngradient", "weight gradient": "weight\ngradient",
              "training step": "training\nstep"}  # fmt: skip
PASS_NAMES = {"fwd": "forward", "dx": "input gradient", "dw": "weight gradient", "fwdbwd": "training step"}


@dataclass(frozen=True)
class Chosen:
    """Records and what was asked for among them."""

    records: list[dict[str, Any]]
    threads: int | None = None
    family: str | None = None
    network: str | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """The arguments that narrow the choice."""
        names = ("threads", "family", "network")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def environment(self) -> dict[str, Any]:
        """The first environment among the records that knows its roofs, or the first."""
        here = [record for record in self.records if record["kind"] == "environment"]
        return next((record for record in here if "roofline" in record), here[0] if here else {})

    def cases(self, family: str | None = None) -> list[dict[str, Any]]:
        """Cases with times and roofs, of the family asked for (or ``family``), on the threads asked for or the most."""
        family = self.family or family
        found = [
            record
            for record in self.records
            if record["kind"] == "case" and not record.get("fault") and "roof" in record
            if family is None or record["family"] == family
        ]
        cpu = [record["threads"] for record in found if record.get("device", "cpu") == "cpu"]
        threads = self.threads if self.threads is not None else max(cpu, default=0)
        return [r for r in found if r.get("device", "cpu") != "cpu" or r["threads"] == threads]

    def rates(self, threads: int, device: str = "cpu") -> dict[str, Any] | None:
        """The roofs of a number of threads, or of a device."""
        for record in self.records:
            for rate in record.get("roofline", ()) if record["kind"] == "environment" else ():
                same = rate["threads"] == threads or device != "cpu"
                if rate.get("device", "cpu") == device and same:
                    found: dict[str, Any] = rate
                    return found
        return None


@contextmanager
def style() -> Iterator[None]:
    """Settings of every picture; text stays text, and names inside the file come from a fixed salt."""
    import matplotlib as mpl

    settings: Any = {
        "font.size": 9,
        "font.family": "DejaVu Sans",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "svg.hashsalt": "striate",
        "svg.fonttype": "none",
    }
    with mpl.rc_context(settings):
        yield


def figure(size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes, without a window."""
    from matplotlib.figure import Figure

    made = Figure(figsize=size)
    return made, made.subplots(rows, columns, squeeze=False, **options)


def machine_line(fig: Any, chosen: Chosen, text: str = "") -> None:
    """Where it was measured, below everything."""
    here = chosen.environment
    words = [here.get("cpu"), f"torch {here['torch']}" if "torch" in here else None, text or None]
    fig.supxlabel(" · ".join(word for word in words if word), fontsize=7, color=GREY)


def saved(fig: Any, path: Path, mark: str) -> None:
    """Write a figure; nothing in the file tells the time or the place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".svg":
        metadata: dict[str, Any] = {"Date": None, "Creator": None, "Title": mark}
    elif path.suffix == ".png":
        metadata = {"Software": None, "Title": mark}
    else:
        metadata = {"CreationDate": None, "Creator": None, "Producer": None, "Title": mark}
    fig.savefig(path, dpi=150, metadata=metadata)
