"""``striate bench``: measure, print and record."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from . import report, store
from ._cuda import cuda_status
from .contenders import ALIASES, VS
from .environment import busy, counters, environment, load_average, others
from .goals import verdicts
from .options import Commands, add_threads, command, seconds, some_of
from .overhead import overhead
from .problems import DEVICES, DTYPES, PASSES, STEP, Entry, Problem, families, named
from .records import Recorder
from .roofline import machine
from .runner import Settings, cases, measure

# Seconds for the timing of all cases, and seconds to wait for a baseline that may never return.
PRESETS = {"quick": (60.0, 5.0), "full": (3600.0, 20.0)}
BUSY = ("mark", "wait", "refuse")
WAIT_SECONDS = 120.0

ABOUT = """\
Verify kernels, then time them against torch.

WHAT is a family of problems that comes with striate, a file with one problem line each, or one problem line.
Every result is compared with float64 before anything is timed; a kernel that fails has no time. Contenders take
turns (A B C A B C ...), so that a slow moment of the machine hits them all. Families:
  {families}"""

NOTE = """\
Verified against float64 before anything is timed: convolutions equal in every element, others within the rounding
of their sums.
ms: median over interleaved rounds of the operator's call, allocation of its result included; min ms: fastest round.
torch: torch on the same tensors as they are. best: the fastest of the other ways that were tried, tensors converted
beforehand. GB/s: operands read and result written once. roof: share of the measured bound that applies, arithmetic
(matrix product) or copying (at the problem's scale)."""


def _wrapped(names: Sequence[str], width: int = 100) -> str:
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > width:
            lines.append("")
        lines[-1] += f"{name}  "
    return "\n  ".join(line.rstrip() for line in lines)


def add(commands: Commands) -> None:
    """The arguments of ``striate bench``."""
    bench = command(
        commands,
        "bench",
        ABOUT.format(families=_wrapped(families())),
        (
            "striate bench                                     layers of many networks, about a minute",
            "striate bench convnext_tiny --pass fwd,dw --vs torch,channels_last,compile",
            "striate bench pool causal --json here.jsonl       keep records; see `striate compare`, `striate plot`",
            "striate bench conv fwd f32 nchw cpu n8 g96 ci1 co1 i56x56 k7x7 s1x1 d1x1 p3+3x3+3",
            "striate bench --zoo convnext_atto resnet18        whole networks, both ways",
        ),
    )
    bench.add_argument(
        "what", nargs="*", metavar="WHAT", help="families, files, or one problem line (default: quick)"
    )
    kind = bench.add_mutually_exclusive_group()
    kind.add_argument("--goals", action="store_true", help="the cases of the goals, with verdicts")
    kind.add_argument("--zoo", action="store_true", help="whole networks by name instead of problems")
    kind.add_argument(
        "--waterline",
        action="store_true",
        help="the kernels of networks by name, one by one, for `striate plot`",
    )
    _add_choices(bench)
    bench.add_argument(
        "--preset", choices=tuple(PRESETS), default="quick", help="full: more rounds, every rival"
    )
    bench.add_argument(
        "--seconds",
        type=seconds,
        metavar="S",
        help="for the timing of all cases together, instead of the preset's",
    )
    bench.add_argument(
        "--buffers", choices=("warm", "cold"), default="warm", help="cold: rotate tensors beyond the caches"
    )
    bench.add_argument(
        "--memory", action="store_true", help="also record what a call adds to the peak memory"
    )
    bench.add_argument(
        "--busy",
        choices=BUSY,
        default="mark",
        help="on a busy machine: say so (default), wait, or refuse to measure",
    )
    bench.add_argument("--json", metavar="FILE", help="write records as JSON lines")


def _add_choices(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--device", type=some_of(DEVICES, "device"), metavar="D,D", help="cpu,cuda (default: the lines' own)"
    )
    bench.add_argument(
        "--pass",
        dest="passes",
        type=some_of((*PASSES, STEP), "pass"),
        metavar="P,P",
        help="fwd,dx,dw,fwdbwd (default: the three passes of a convolution)",
    )
    bench.add_argument(
        "--dtype",
        type=some_of(tuple(DTYPES), "dtype"),
        metavar="T,T",
        help=f"{','.join(DTYPES)}: instead of the lines' own",
    )
    add_threads(bench)
    bench.add_argument(
        "--vs",
        type=some_of(VS, "vs", ALIASES),
        metavar="V,V",
        help=f"rivals of convolutions: {','.join(VS)} (default: torch,channels_last)",
    )


def chosen_devices(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The wanted devices that are there; says which is not, and goes on with the CPU."""
    status = cuda_status()
    if "cuda" not in wanted or status["available"]:
        return wanted
    print(f"striate: no CUDA device here ({status['why']}): measuring on the CPU alone", file=sys.stderr)
    return ("cpu",)


def entries(options: argparse.Namespace) -> tuple[Entry, ...]:
    """What the positional arguments name, in the dtypes and on the devices that were asked for."""
    words = list(options.what)
    if options.goals:
        words.append("goals")
    found = named(words or ["quick"])
    if options.dtype:
        found = [
            Entry(e.family, e.label, e.problem.in_dtype(DTYPES[word]))
            for word in options.dtype
            for e in found
        ]
    wanted = options.device or tuple(dict.fromkeys(e.problem.device for e in found))
    devices = chosen_devices(wanted)
    if options.device or devices != wanted:
        found = [Entry(e.family, e.label, e.problem.on(device)) for e in found for device in devices]
    if not found:
        raise ValueError("nothing to measure: the files hold no problem lines")
    return tuple(found)


def _settings(options: argparse.Namespace) -> Settings:
    found = entries(options)
    passes: tuple[str, ...] | None = options.passes
    if passes is None and {e.family for e in found} == {"line"} and isinstance(found[0].problem, Problem):
        passes = (found[0].problem.pass_,)
    vs = options.vs or (VS if options.preset == "full" else VS[:2])
    most, limit = PRESETS[options.preset]
    most = options.seconds or most
    cold = options.buffers == "cold"
    settings = Settings(found, passes, options.threads, vs, most, limit, cold, options.memory)
    if not cases(settings):
        raise ValueError(
            f"--pass: none of these problems has the pass {','.join(passes or ())}; theirs are fwd,fwdbwd"
        )
    return settings


def _quiet(how: str) -> bool:
    """Whether to go on, after what ``--busy`` says about a busy machine; waiting ends after two minutes."""
    stop = time.monotonic() + WAIT_SECONDS
    while how == "wait" and busy(others()) and time.monotonic() < stop:
        time.sleep(1.0)
    running = others()
    if not busy(running):
        return True
    print(f"striate: this machine is busy ({running:g} other processes run), ", end="", file=sys.stderr)
    if how == "mark":
        print("times are not reliable and the record says so", file=sys.stderr)
        return True
    print("nothing measured; --busy mark measures all the same", file=sys.stderr)
    return False


def _ended(before: dict[str, int], start: float) -> dict[str, Any]:
    """What the last line of a record says about how the run went."""
    after = counters()
    lost = {name: after[name] - value for name, value in before.items() if name in after}
    seconds = time.monotonic() - start
    return {"kind": "end", "seconds": seconds, "others": others(), "load": load_average(), "lost": lost}


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command; 1 if a result was wrong, 3 if the machine was too busy."""
    if options.zoo or options.waterline:
        return _networks(options, words)
    settings, start, before = _settings(options), time.monotonic(), counters()
    if not _quiet(options.busy):
        return 3
    records: list[dict[str, Any]] = []
    goals = "goals" in {e.family for e in settings.entries}
    with Recorder(options.json) as recorder:

        def keep(record: dict[str, Any]) -> None:
            records.append(record)
            recorder.write(record)

        here = environment()
        devices = tuple(dict.fromkeys(e.problem.device for e in settings.entries))
        rates = machine(settings.threads, devices)
        keep({"kind": "environment", "command": command_line(words), **here, "roofline": rates})
        with report.progress(cases(settings)) as step:
            for record in measure(settings):
                keep(record)
                step(f"{record['short']} {record['pass']} {record['dtype']}")
        if goals or not options.what:
            for record in overhead():
                keep({"kind": "overhead", **record})
        for record in list(verdicts(records)) if goals else []:
            keep(record)
        keep(_ended(before, start))
    if not here["busy"]:
        store.save()
    _print(records)
    return 1 if any(r["kind"] == "case" and r["fault"] for r in records) else 0


def _networks(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Time networks of the zoo, or their kernels; 1 if one of them failed."""
    from . import sequence, zoo  # the zoo is imported only where it is asked for

    for name in options.what:
        zoo.known(name)
    most = options.seconds or (20.0 if options.preset == "full" else 4.0)
    failed, start, before = False, time.monotonic(), counters()
    if not _quiet(options.busy):
        return 3
    with Recorder(options.json) as recorder:
        here = environment() | {"roofline": machine(options.threads)}
        recorder.write({"kind": "environment", "command": command_line(words), **here})
        kind = sequence if options.waterline else zoo
        print(kind.HEAD)
        for record in kind.measure(options.what, options.threads, most):
            recorder.write(record)
            failed |= any("fault" in times for times in record.get("times", {}).values())
            print(kind.line(record), flush=True)
        recorder.write(_ended(before, start))
    return int(failed)


def command_line(words: Sequence[str]) -> str:
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
        report.show(report.case_table(family, list(group)))
    if len({case["device"] for case in ordered}) > 1:
        report.show(report.device_table(ordered))
    if kind("overhead"):
        report.show(report.overhead_table(kind("overhead")))
    if kind("goal"):
        report.show(report.goal_table(kind("goal")))
    print(NOTE)
    end = kind("end")[0]
    for case in ordered:
        if case["fault"]:
            print(f"FAILED {case['problem']}: {case['fault']}")
    wrong = sum(bool(case["fault"]) for case in ordered)
    print(
        f"{len(ordered)} cases in {end['seconds']:.0f} s"
        + (f", {wrong} FAILED" if wrong else ", all verified")
    )
    slowed = [f"{name} {value}" for name, value in end["lost"].items() if value and name != "stolen_ticks"]
    if slowed:
        print(f"the processor was slowed down meanwhile: {', '.join(slowed)}; times are not reliable")
