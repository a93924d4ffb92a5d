"""``striate roofline``: what this machine can do."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from . import report, store
from .campaign import chosen_devices
from .environment import busy, others
from .options import Commands, add_json, add_threads, command, some_of
from .problems import DEVICES
from .records import SCHEMA
from .roofline import full

ABOUT = """\
Measure copy bandwidth in every cache and peak arithmetic in every dtype.

Rates are kept in a file ({file}) and are the roofs that `bench` and `explain` hold times against.
A roof is a maximum: a rate measured on a busy day does not replace a better one unless --fresh is given."""


def add(commands: Commands) -> None:
    """The arguments of ``striate roofline``."""
    parser = command(
        commands,
        "roofline",
        ABOUT.format(file=store.rates_file()),
        ("striate roofline --threads 1,2,all", "striate roofline --fresh --device cpu,cuda"),
    )
    add_threads(parser)
    parser.add_argument(
        "--device", type=some_of(DEVICES, "device"), default=("cpu",), metavar="D,D", help="cpu,cuda"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--fresh", action="store_true", help="forget the rates on file")
    how.add_argument("--cached", action="store_true", help="measure only what is not on file")
    add_json(parser)


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command."""
    devices = chosen_devices(options.device)
    running = others()
    if busy(running):
        print(
            f"striate: this machine is busy ({running:g} other processes run), rates may be low",
            file=sys.stderr,
        )
    if not options.cached:
        store.forget()
    rates = full(options.threads, devices)
    path = store.save(better=not options.fresh)
    rates = full(options.threads, devices)  # with what the file had that was better
    if options.json:
        print(
            json.dumps(
                {"schema": SCHEMA, "kind": "roofline", "machine": store.machine_key(), "roofline": rates}
            )
        )
        return 0
    report.show(report.roofline_table(rates))
    report.show(report.level_table(rates))
    print(f"kept in {path}")
    return 0
