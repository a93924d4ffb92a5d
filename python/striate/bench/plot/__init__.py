"""``striate plot``: pictures from records; the same record gives the same picture, anywhere, without a display."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..options import Commands, command
from ..records import read
from . import crossover, devices, gap, heatmap, roofline, waterline
from .style import Chosen, Drawn, saved, style

Draw = Callable[[Chosen], Drawn]
KINDS: dict[str, tuple[Draw, str, str]] = {
    "roofline": (roofline.draw, "rate over intensity, below the machine's roofs", "striate bench --goals"),
    "gap": (gap.draw, "ideal, attainable and measured time of each case", "striate bench --goals"),
    "waterline": (
        waterline.draw,
        "intensity of a network's kernels in order, before and after fusing its blocks",
        "striate bench --waterline convnext_atto",
    ),
    "crossover": (
        crossover.draw,
        "direct sums, transforms and torch over kernel size and length",
        "striate bench crossover --pass fwd --vs torch,fft",
    ),
    "heatmap": (heatmap.draw, "speed-up over torch, by kernel and map size", "striate bench sizes"),
    "devices": (devices.draw, "CPU beside GPU", "striate bench quick --device cpu,cuda"),
}
ABOUT = (
    "Draw pictures from records of `striate bench --json`.\n\nkinds, and what makes their records:\n"
    + "\n".join(f"  {kind:10} {text}\n{'':13}{made} --json FILE" for kind, (_, text, made) in KINDS.items())
)


def add(commands: Commands) -> None:
    """The arguments of ``striate plot``."""
    parser = command(
        commands,
        "plot",
        ABOUT,
        (
            "striate plot roofline --record bench/record/epyc-2vcpu/goals.jsonl --out roofline.svg",
            "striate plot waterline --record bench/record/epyc-2vcpu --network convnext_atto --out waterline.svg",
            "striate plot gap --record goals.jsonl --out gap.svg --check    is the picture what the record says?",
        ),
    )
    parser.add_argument("kind", choices=tuple(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument(
        "--record", required=True, type=Path, nargs="+", metavar="PATH", help="records, or folders of records"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="a name that ends in .svg, .png or .pdf"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="cases of so many threads (default: the most there are)"
    )
    parser.add_argument("--family", metavar="NAME", help="only cases of this family, for example goals")
    parser.add_argument(
        "--network", metavar="NAME", help="waterline: which network of the record (default: its first)"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if FILE shows another record"
    )


def fingerprint(kind: str, options: argparse.Namespace, records: Sequence[dict[str, Any]]) -> str:
    """What a picture depends on, in a few letters."""
    words = [kind, options.threads, options.family, options.network, list(records)]
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:16]


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command; 1 if --check finds another picture."""
    if options.out.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"--out: expected a name that ends in .svg, .png or .pdf, got {str(options.out)!r}")
    records = [record for path in options.record for record in read(path)]
    draw, _, made = KINDS[options.kind]
    mark = f"striate plot {options.kind} of {fingerprint(options.kind, options, records)}"
    if options.check:
        shown = options.out.read_bytes() if options.out.exists() else b""
        if mark.encode() in shown:
            print(f"{options.out} shows this record")
            return 0
        print(f"{options.out} does not show this record: draw it again, without --check")
        return 1
    chosen = Chosen(records, options.threads, options.family, options.network)
    try:
        import matplotlib as mpl
    except ImportError:
        raise ValueError("plot: needs matplotlib: pip install 'striate[bench]'") from None
    mpl.use("Agg")
    with style():
        drawn = draw(chosen)
        if drawn is None:
            asked = "".join(f" --{name} {value}" for name, value in chosen.asked.items())
            raise ValueError(
                f"--record: holds nothing for {options.kind}{asked}; make a record with `{made} --json FILE`"
            )
        saved(drawn, options.out, mark)
    print(f"wrote {options.out}")
    return 0
