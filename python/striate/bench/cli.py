"""The command ``striate``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from . import report
from .contenders import VS
from .environment import cores, environment, load_average, others
from .goals import verdicts
from .info import explain, info
from .overhead import overhead
from .problems import DTYPES, PASSES, Entry, Problem, load
from .records import Recorder
from .roofline import machine
from .runner import Settings, cases, measure

# Seconds for the timing of all cases, and seconds to wait for a baseline that may never return.
PRESETS = {"quick": (60.0, 5.0), "full": (3600.0, 20.0)}

NOTE = """\
Verified: every element equals the float64 result of the same operands, before anything is timed.
ms: median over interleaved rounds of the operator's call, allocation of its result included; min ms: fastest round.
torch: torch on the same tensors as they are. best: the fastest of torch's ways that were tried, tensors converted
beforehand. GB/s: operands read and result written once. roof: share of the measured bound that applies, arithmetic
(matrix product) or copying (at the problem's scale)."""


def _list(text: str, choices: Sequence[str], what: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word for word in text.split(",") if word))
    for word in words:
        if word not in choices:
            raise argparse.ArgumentTypeError(f"{what}: expected some of {','.join(choices)}, got {word!r}")
    if not words:
        raise argparse.ArgumentTypeError(f"{what}: expected some of {','.join(choices)}, got nothing")
    return words


def _threads(text: str) -> tuple[int, ...]:
    counts = []
    for word in text.split(","):
        count = cores() if word == "all" else int(word) if word.isdecimal() else 0
        if not 1 <= count <= 1024:
            raise argparse.ArgumentTypeError(f"threads: expected numbers of at least 1, or all, got {word!r}")
        counts.append(count)
    return tuple(dict.fromkeys(counts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="striate", description="Fast convolution primitives for PyTorch.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    bench = commands.add_parser("bench", help="verify and time kernels against torch")
    bench.add_argument(
        "what",
        nargs="*",
        help="families, files, or one problem line (default: quick, layers of many networks)",
    )
    bench.add_argument("--goals", action="store_true", help="the cases of the goals, with verdicts")
    bench.add_argument("--zoo", action="store_true", help="whole networks by name instead of problems")
    bench.add_argument("--pass", dest="passes", type=lambda t: _list(t, PASSES, "pass"), help="fwd,dx,dw")
    bench.add_argument(
        "--dtype", type=lambda t: _list(t, tuple(DTYPES), "dtype"), help="instead of the lines' own"
    )
    bench.add_argument("--threads", type=_threads, default=_threads("1,all"), help="default: 1,all")
    bench.add_argument(
        "--vs", type=lambda t: _list(t, VS, "vs"), help=f"{','.join(VS)} (default: default,best)"
    )
    bench.add_argument(
        "--preset", choices=tuple(PRESETS), default="quick", help="full: more rounds, every rival"
    )
    bench.add_argument("--json", metavar="FILE", help="write records as JSON lines")
    commands.add_parser("info", help="versions, processor, kernel rows").add_argument(
        "--json", action="store_true"
    )
    why = commands.add_parser("explain", help="which kernel row runs a problem, and why")
    why.add_argument("line", nargs="+", help="conv fwd f32 nchw cpu n8 g96 ci1 co1 i56x56 k7x7 ...")
    roofline = commands.add_parser("roofline", help="measure copy bandwidth and peak arithmetic")
    roofline.add_argument("--threads", type=_threads, default=_threads("1,all"))
    return parser


def _entries(options: argparse.Namespace) -> tuple[Entry, ...]:
    """What the positional arguments name."""
    words = list(options.what)
    if options.goals:
        words.append("goals")
    entries: list[Entry] = []
    if words and words[0] == "conv":
        words = [" ".join(words)]
    for word in words or ["quick"]:
        if word.startswith("conv "):
            entries.append(Entry("line", "", Problem.parse(word)))
        else:
            entries += load(word)
    if options.dtype:
        entries = [
            Entry(e.family, e.label, e.problem.in_dtype(DTYPES[word]))
            for word in options.dtype
            for e in entries
        ]
    if not entries:
        raise ValueError("nothing to measure: the files hold no problem lines")
    return tuple(entries)


def _settings(options: argparse.Namespace) -> Settings:
    entries = _entries(options)
    passes: tuple[str, ...] = options.passes or PASSES
    if not options.passes and {e.family for e in entries} == {"line"}:
        passes = tuple(dict.fromkeys(e.problem.pass_ for e in entries))
    vs = options.vs or (VS if options.preset == "full" else VS[:2])
    seconds, limit = PRESETS[options.preset]
    return Settings(entries, passes, options.threads, vs, seconds, limit)


def bench(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Measure, print and record; 1 if a result was wrong."""
    settings, start = _settings(options), time.monotonic()
    records: list[dict[str, Any]] = []
    with Recorder(options.json) as recorder:

        def keep(record: dict[str, Any]) -> None:
            records.append(record)
            recorder.write(record)

        here = environment()
        if here["busy"]:
            print(
                f"striate: this machine is busy ({here['others']:g} other processes run), times are not reliable",
                file=sys.stderr,
            )
        rates = machine(settings.threads)
        keep({"kind": "environment", "command": _command(words), **here, "roofline": rates})
        with report.progress(cases(settings)) as step:
            for record in measure(settings):
                keep(record)
                step(f"{record['short']} {record['pass']} {record['dtype']}")
        if "goals" in {e.family for e in settings.entries} or not options.what:
            for record in overhead():
                keep({"kind": "overhead", **record})
        for record in list(verdicts(records)) if "goals" in {e.family for e in settings.entries} else []:
            keep(record)
        keep({"kind": "end", "seconds": time.monotonic() - start, "others": others(), "load": load_average()})
    _print(records)
    return 1 if any(r["kind"] == "case" and r["fault"] for r in records) else 0


def networks(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Time networks of the zoo; 1 if one of them failed."""
    from . import zoo  # the zoo is imported only where it is asked for

    seconds = 20.0 if options.preset == "full" else 4.0
    failed = False
    with Recorder(options.json) as recorder:
        recorder.write({"kind": "environment", "command": _command(words), **environment()})
        print(f"{'network':32}{'':16}{'torch ms (min)':>16}{'striate ms (min)':>18}   ratio")
        for record in zoo.measure(options.what, options.threads, seconds):
            recorder.write(record)
            failed |= any("fault" in times for times in record["times"].values())
            print(zoo.line(record), flush=True)
        recorder.write({"kind": "end", "others": others(), "load": load_average()})
    return int(failed)


def _command(words: Sequence[str]) -> str:
    """The command line without the name of the file it writes."""
    kept = [word for before, word in zip(["", *words], words, strict=False) if "--json" not in (before, word)]
    return " ".join(["striate", *(word for word in kept if not word.startswith("--json="))])


def _print(records: list[dict[str, Any]]) -> None:
    def kind(name: str) -> list[dict[str, Any]]:
        return [record for record in records if record["kind"] == name]

    here = kind("environment")[0]
    print(f"{here['cpu']}, {here['cores']} cores, torch {here['torch']}, striate {here['striate']}\n")
    report.show(report.roofline_table(here["roofline"]))
    ordered = sorted(kind("case"), key=lambda case: case["family"])
    for family, group in groupby(ordered, key=lambda case: case["family"]):
        report.show(report.case_table(family, group))
    if kind("overhead"):
        report.show(report.overhead_table(kind("overhead")))
    if kind("goal"):
        report.show(report.goal_table(kind("goal")))
    print(NOTE)
    seconds = kind("end")[0]["seconds"]
    wrong = sum(bool(case["fault"]) for case in ordered)
    print(f"{len(ordered)} cases in {seconds:.0f} s" + (f", {wrong} FAILED" if wrong else ", all verified"))


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all is well, 1 if a result was wrong, 2 for a bad command line."""
    words = sys.argv[1:] if words is None else list(words)
    parser = _parser()
    options = parser.parse_args(words)
    try:
        if options.command == "bench":
            return networks(options, words) if options.zoo else bench(options, words)
        if options.command == "explain":
            explain(" ".join(options.line))
        elif options.command == "roofline":
            report.show(report.roofline_table(machine(options.threads)))
        else:
            facts = info()
            if options.json:
                print(json.dumps(facts))
    except ValueError as error:
        parser.error(str(error))
    return 0
