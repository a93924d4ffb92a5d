"""``striate check``: are the kernels of this machine right? Every row that runs here, in under a minute."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from .. import _core
from . import report
from .environment import cores
from .families import operators
from .operands import make_operands
from .options import Commands, add_json, command
from .problems import DTYPES, PASSES, Entry, Problem
from .records import SCHEMA
from .specs import Spec
from .verify import verify
from .work import Calls

ABOUT = """\
Verify every kernel row of this machine against float64.

Small problems of every kind that a row may take: ranks, strides, dilations, uneven padding, channels last, all
dtypes, one thread and all of them. Convolutions sum small integers and must be equal to the last bit; the other
operators must be within the rounding of their sums. Rows that this processor cannot run are listed as such."""

# Tails in every axis and vector, taps beyond the border, strides that leave positions out.
CONVOLUTIONS = (
    "n2 g19 ci1 co1 i13x17 k5x7 s1x1 d1x1 p2+2x3+3",
    "n2 g19 ci1 co1 i13x17 k5x7 s2x3 d2x1 p2+2x3+3",
    "n1 g33 ci1 co1 i50 k4 s1 d3 p9+0",
    "n2 g5 ci1 co2 i41 k31 s1 d1 p15+15",
    "n1 g7 ci1 co1 i5x6x7 k3x3x3 s1x1x1 d1x1x1 p1+1x1+1x1+1",
    "n1 g1 ci3 co4 i24x37 k7x7 s1x1 d1x1 p3+3x3+3",
    "n1 g1 ci1 co1 i300 k65 s1 d1 p32+32",
)
CALLS = (
    "max_pool2d fwdbwd {} nchw cpu n2 c5 i13x37 k3x5",
    "avg_pool2d fwdbwd {} nhwc cpu n2 c19 i13x7 k7x3",
    "avg_pool1d fwd {} nchw cpu n1 c3 i400 k65",
    "causal_conv1d fwdbwd {} nchw cpu n2 c19 i53 k4",
    "causal_conv1d fwd {} nhwc cpu n2 c33 i53 k3",
    "causal_conv1d_update fwd {} nchw cpu n3 c37 k4",
    "fft_conv1d fwdbwd {} nchw cpu n2 c5 i200 k150",
    "fft_conv1d fwd {} nchw cpu n1 c3 i3000 k64",
    "dcls_kernel fwdbwd {} nchw cpu g21 m5 k7x7",
)


def add(commands: Commands) -> None:
    """The arguments of ``striate check``."""
    parser = command(commands, "check", ABOUT, ("striate check", "striate check --rows 'depthwise.*avx2'"))
    parser.add_argument("--rows", default="", metavar="REGEX", help="only the rows whose names match")
    add_json(parser)


@contextmanager
def _forced(pattern: str) -> Iterator[None]:
    _core.set_kernels(pattern)
    try:
        yield
    finally:
        _core.set_kernels(None)


def _convolution(row: str, threads: tuple[int, ...]) -> tuple[int, list[str]]:
    """Problems that a convolution row took, and what was wrong."""
    taken, faults = 0, []
    for word in DTYPES:
        for layout in ("nchw", "nhwc"):
            for sizes in CONVOLUTIONS:
                operands = None
                for pass_ in PASSES:
                    line = f"conv {pass_} {word} {layout} cpu {sizes}"
                    if _core.explain(line)["row"] != row:
                        continue
                    problem = Problem.parse(line)
                    operands = operands or make_operands(problem)
                    fault = verify(replace(operands, problem=problem), threads)
                    taken += 1
                    faults += [f"{line}: {fault}"] if fault else []
    return taken, faults


def _operations(isa: str, threads: tuple[int, ...]) -> dict[str, tuple[int, list[str]]]:
    """The same for all rows of an instruction set that are no convolution passes, by their names."""
    found: dict[str, tuple[int, list[str]]] = {}
    known = operators()
    for template in CALLS:
        for word in DTYPES:
            spec = Spec.parse(template.format(word))
            if word in ("bf16", "f16") and (
                spec.pass_ != "fwd" or not spec.op.startswith(("max", "avg", "causal"))
            ):
                continue  # the gradients of half types are sums of rounded values, which are tested elsewhere
            assert spec.op in known
            work = Calls(Entry("check", "", spec), spec)
            fault = work.verify(threads)
            for row in dict.fromkeys(work.row.split("+")):
                if row.endswith(f".{isa}"):
                    taken, faults = found.get(row, (0, []))
                    found[row] = (taken + 1, faults + ([f"{spec}: {fault}"] if fault else []))
    return found


def checked(pattern: str) -> Iterator[dict[str, Any]]:
    """What was found of every row whose name matches."""
    rows = [row for row in _core.kernels() if row["device"] == "cpu" and re.search(pattern, row["name"])]
    threads = tuple(dict.fromkeys((1, max(2, min(cores(), 4)))))
    operations: dict[str, dict[str, tuple[int, list[str]]]] = {}
    for row in rows:
        name, isa = row["name"], row["name"].rsplit(".", 1)[-1]
        if not row["available"]:
            yield {"row": name, "verdict": "not here", "problems": 0, "faults": []}
            continue
        if row["op"] == "conv":
            with _forced(f"^({re.escape(name)}|reference)$"):
                taken, faults = _convolution(name, threads)
        else:
            if isa not in operations:
                with _forced(rf"(\.{isa}|reference)$"):
                    operations[isa] = _operations(isa, threads)
            taken, faults = operations[isa].get(name, (0, []))
        verdict = "WRONG" if faults else "right" if taken else "not asked"
        yield {"row": name, "verdict": verdict, "problems": taken, "faults": faults}


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command; 1 if a row is wrong."""
    try:
        re.compile(options.rows)
    except re.error as error:
        raise ValueError(f"--rows: expected a regular expression, got {options.rows!r}: {error}") from None
    start, before = time.monotonic(), torch.get_num_threads()
    count = sum(
        bool(re.search(options.rows, row["name"])) for row in _core.kernels() if row["device"] == "cpu"
    )
    if not count:
        raise ValueError(f"--rows: no row matches {options.rows!r}; `striate info` lists them")
    found = []
    try:
        with report.progress(count) as step:
            for each in checked(options.rows):
                found.append(each)
                step(each["row"])
    finally:
        torch.set_num_threads(before)
    wrong = [each for each in found if each["verdict"] == "WRONG"]
    seconds = time.monotonic() - start
    if options.json:
        print(json.dumps({"schema": SCHEMA, "kind": "check", "rows": found, "seconds": seconds}))
        return int(bool(wrong))
    rows: list[tuple[str, ...]] = [(each["row"], str(each["problems"]), each["verdict"]) for each in found]
    report.show(report.Table("", ("<row", "problems", "<verdict"), rows))
    for each in wrong:
        for fault in each["faults"][:3]:
            print(fault, file=sys.stderr)
    total = sum(each["problems"] for each in found)
    if wrong:
        names = "|".join(re.escape(each["row"]) for each in wrong)
        print(
            f"{len(wrong)} rows are WRONG on this machine: please report them with the output of `striate info`."
        )
        print(f"Until then STRIATE_KERNELS='-^({names})$' leaves them out.")
    else:
        asked = sum(each["verdict"] == "right" for each in found)
        print(f"{asked} of {len(found)} rows were asked and are right: {total} problems in {seconds:.0f} s")
    return int(bool(wrong))
