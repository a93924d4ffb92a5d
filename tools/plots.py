#!/usr/bin/env python3
"""Draw the pictures of the documentation that show committed records, by `striate plot`; --check only compares.

python tools/plots.py [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from striate.bench.cli import main as striate

ROOT = Path(__file__).resolve().parent.parent
RECORDS, PICTURES = ROOT / "bench" / "record" / "epyc-2vcpu", ROOT / "docs" / "pictures"
# The kind of picture, its record and further options.
PLOTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("roofline", "goals", ("--threads", "1")),
    ("gap", "goals", ("--threads", "1")),
    ("crossover", "crossover", ()),
    ("heatmap", "sizes", ()),
    ("waterline", "waterline", ()),
)


def main() -> int:
    """Draw, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a picture shows another record")
    check = ["--check"] if parser.parse_args().check else []
    stale = 0
    for kind, record, options in PLOTS:
        files = ["--record", str(RECORDS / f"{record}.jsonl"), "--out", str(PICTURES / f"{kind}.svg")]
        stale += bool(striate(["plot", kind, *files, *options, *check]))
    print(f"{len(PLOTS)} plots")
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main())
