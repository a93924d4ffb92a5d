"""``striate compare``: is the new record faster than the old one, and is that sure?"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import report
from .interval import Change, from_quartiles, from_rounds, logarithms
from .options import Commands, add_json, command, fraction
from .records import SCHEMA, read

VERDICTS = ("FASTER", "SAME", "UNSURE", "SLOWER", "FAILED")
ABOUT = """\
Compare two records of `striate bench --json`, case by case, or the contenders within one.

With two records the times of striate are compared, each over the time of torch in the same rounds, so that a machine
that was slower on the second day does not count (--raw compares seconds). With one record striate is compared with
torch. A verdict needs the whole 95 % interval of the ratio: below 1/(1+tolerance) FASTER, above 1+tolerance SLOWER,
between them SAME, across a border UNSURE. The interval speaks of the rounds of one run; only more runs tell of more.

exit status: 0; 1 if a case is SLOWER or has FAILED since (see --fail-on); 2 for a bad command line."""


def add(commands: Commands) -> None:
    """The arguments of ``striate compare``."""
    parser = command(
        commands,
        "compare",
        ABOUT,
        (
            "striate bench quick --json before.jsonl    (change something)    striate bench quick --json after.jsonl",
            "striate compare before.jsonl after.jsonl --tolerance 3%",
            "striate compare after.jsonl --against torch.channels_last",
        ),
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="a record, or the only one")
    parser.add_argument("new", type=Path, nargs="?", metavar="NEW", help="the record to be judged")
    parser.add_argument(
        "--tolerance",
        type=fraction,
        default=0.05,
        metavar="T",
        help="changes up to this count as none (default: 5%%)",
    )
    parser.add_argument(
        "--against", default="torch", metavar="NAME", help="the rival in the records (default: torch)"
    )
    parser.add_argument(
        "--raw", action="store_true", help="with two records: compare seconds, not ratios to the rival"
    )
    parser.add_argument(
        "--fail-on",
        choices=("slower", "unsure", "never"),
        default="slower",
        help="what makes the exit status 1",
    )
    add_json(parser)


Key = tuple[str, str, str, int]


def cases(records: Sequence[dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    """Everything with times, by what it is."""
    found: dict[Key, dict[str, Any]] = {}
    for record in records:
        if "times" not in record:
            continue
        name = record.get("problem") or record.get("label") or record.get("name") or record.get("mode", "")
        part = record.get("pass") or record.get("step") or ""
        found[record["kind"], name, part, record["threads"]] = record
    return found


def _time(record: dict[str, Any], name: str) -> dict[str, Any] | None:
    time = record["times"].get(name)
    return time if isinstance(time, dict) and "fault" not in time and not record.get("fault") else None


def within(record: dict[str, Any], rival: str) -> Change | None:
    """Striate over the rival in one case; None if one of them has no time."""
    ours, theirs = _time(record, "striate"), _time(record, rival)
    if ours is None or theirs is None:
        return None
    logs = logarithms(ours, theirs)
    return from_quartiles([(ours, 1), (theirs, -1)]) if logs is None else from_rounds(logs, None)


def between(old: dict[str, Any], new: dict[str, Any], rival: str | None) -> Change | None:
    """Striate in the new case over striate in the old; None if one of them has no time."""
    before, after = _time(old, "striate"), _time(new, "striate")
    if before is None or after is None:
        return None
    rivals = [None if rival is None else _time(record, rival) for record in (old, new)]
    if None in rivals:
        rivals = [None, None]
    logs = [logarithms(time, other) for time, other in zip((before, after), rivals, strict=True)]
    if logs[0] is None or logs[1] is None:
        pairs = [(after, 1), (before, -1)]
        pairs += [(other, sign) for other, sign in zip(rivals, (1, -1), strict=True) if other is not None]
        return from_quartiles(pairs)
    return from_rounds(logs[1], logs[0])


def _judged(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One comparison for each case."""
    old = cases(read(options.old))
    new = old if options.new is None else cases(read(options.new))
    both = [key for key in old if key in new]
    if not both:
        raise ValueError(f"OLD, NEW: {options.old} and {options.new or 'it'} have no timed case in common")
    for key in both:
        was, now = old[key], new[key]
        if options.new is None:
            change = within(now, options.against)
            sides = (_time(now, options.against), _time(now, "striate"))
        else:
            change = between(was, now, None if options.raw else options.against)
            sides = (_time(was, "striate"), _time(now, "striate"))
        if change is None and not now.get("fault"):
            continue
        broken = now.get("fault") and not (options.new and was.get("fault"))
        yield {
            "case": now.get("short") or key[1],
            "part": " ".join(str(now.get(name, "")) for name in ("pass", "step", "dtype")).strip(),
            "threads": key[3],
            "times": [None if side is None else side["median"] for side in sides],
            "change": None if change is None else vars(change),
            "verdict": "FAILED"
            if broken
            else "UNSURE"
            if change is None
            else change.verdict(options.tolerance),
        }


def _differences(options: argparse.Namespace) -> list[str]:
    """What else is different between the two runs."""
    if options.new is None:
        return []
    sides = [
        next((r for r in read(path) if r["kind"] == "environment"), {}) for path in (options.old, options.new)
    ]
    names = ("cpu", "cores", "torch", "onednn", "python", "striate", "commit", "busy", "variables")
    return [
        f"{name}: {sides[0].get(name)} -> {sides[1].get(name)}"
        for name in names
        if sides[0].get(name) != sides[1].get(name)
    ]


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    change = found["change"]
    if change is None:
        cells = ("-", "-", "no time")
    else:
        known = change["low"] is not None
        interval = f"{change['low']:.3f} to {change['high']:.3f}" if known else "-"
        cells = (f"{change['ratio']:.3f}", interval, change["note"])
    times = ["-" if t is None else f"{t * 1e3:.3f}" for t in found["times"]]
    return (found["case"], found["part"], str(found["threads"]), *times, *cells, found["verdict"])


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command; 1 if something got slower."""
    found = list(_judged(options))
    if not found:
        raise ValueError(
            f"--against: no case of {options.old} has times of both striate and {options.against!r}"
        )
    counts = Counter(each["verdict"] for each in found)
    bad = {"slower": ("SLOWER", "FAILED"), "unsure": ("SLOWER", "FAILED", "UNSURE"), "never": ()}[
        options.fail_on
    ]
    status = int(any(counts[verdict] for verdict in bad))
    if options.json:
        print(json.dumps({"schema": SCHEMA, "kind": "comparison", "cases": found, "verdicts": counts}))
        return status
    for line in _differences(options):
        print(line, file=sys.stderr)
    names = (f"{options.against} ms", "striate ms") if options.new is None else ("old ms", "new ms")
    headers = ("<case", "<part", "thr", *names, "ratio", "95 % interval", "<note", "<verdict")
    report.show(report.Table("", headers, [_row(each) for each in found], spare=("<note",)))
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]))
    return status
