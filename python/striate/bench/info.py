"""``striate info`` and ``striate explain``: what is here, and what would run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import torch

from .. import _core
from .._rows import kernels
from .environment import environment
from .options import Commands, add_json, add_threads, command
from .problems import PASSES, STEP, Entry, Problem, parse
from .records import SCHEMA
from .report import Table, plural, show
from .roofline import bound
from .specs import Spec
from .store import folder
from .work import works


def add(commands: Commands) -> None:
    """The arguments of both commands."""
    about = command(
        commands,
        "info",
        "Show versions, processor, GPU, route into torch, cache and kernel rows.\n\nPaste it into a bug report.",
        ("striate info", "striate info --json"),
    )
    add_json(about)
    why = command(
        commands,
        "explain",
        "Say which kernel row runs a problem, why the rows before it do not, and how fast it could be.",
        (
            "striate explain conv fwd f32 nchw cpu n8 g96 ci1 co1 i56x56 k7x7 s1x1 d1x1 p3+3x3+3",
            "striate explain max_pool2d fwd f32 nchw cpu n8 c64 i112x112 k3x3",
        ),
    )
    why.add_argument(
        "line", nargs="+", metavar="PROBLEM", help="a problem line; quotes around it are not needed"
    )
    add_threads(why)
    add_json(why)


def facts() -> dict[str, Any]:
    """What striate runs on."""
    return environment() | {"cache": str(folder()), "location": str(_core.__file__)}


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={_cell(v)}" for k, v in value.items()) or "none set"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def run_info(options: argparse.Namespace, words: Sequence[str]) -> int:
    """``striate info``."""
    rows = kernels()
    if options.json:
        print(json.dumps({"schema": SCHEMA, "kind": "info", **facts(), "kernels": rows}))
        return 0
    show(Table("", ("<fact", "<value"), [(name, _cell(value)) for name, value in facts().items()]))
    table = Table(
        "Kernel rows, in the order in which they are asked",
        ("<row", "<operation", "<device", "<runs here", "<note"),
        spare=("<note",),
    )
    table.rows += [
        (r["name"], r["op"], r["device"], "yes" if r["available"] else "no", r["note"]) for r in rows
    ]
    show(table)
    return 0


def explanation(problem: Problem | Spec, threads: Sequence[int]) -> dict[str, Any]:
    """Row, refusals, cost and bound of a problem; a line of another family is run once to see its rows."""
    found: dict[str, Any] = {"problem": str(problem), "refusals": [], "workspace": None}
    if isinstance(problem, Spec):
        (work,) = works(Entry("line", "", problem), (problem.pass_,))
        fault = work.verify((torch.get_num_threads(),))
        found |= {"row": work.row, "fault": fault}
        macs, moved = work.macs, work.bytes
    else:
        macs, moved = problem.macs, problem.bytes
        found |= _of_convolution(problem)
    found |= {"macs": macs, "bytes": moved, "intensity": 2 * macs / moved if moved else 0.0}
    device = problem.device if problem.device == "cpu" or torch.cuda.is_available() else None
    before = torch.get_num_threads()
    found["bounds"] = [
        {"threads": count, **bound((macs, moved), problem.dtype, count, device)}
        for count in (threads if device == "cpu" else threads[:1])
        if device is not None
    ]
    torch.set_num_threads(before)
    return found


def _of_convolution(problem: Problem) -> dict[str, Any]:
    passes = PASSES if problem.pass_ == STEP else (problem.pass_,)
    try:
        found = [_core.explain(str(problem.of(pass_))) for pass_ in passes]
    except RuntimeError as error:
        return {"row": "torch", "why": str(error)}
    return {
        "row": "+".join(dict.fromkeys(each["row"] for each in found)),
        "refusals": list(dict.fromkeys(tuple(refusal) for each in found for refusal in each["refusals"])),
        "workspace": max(each["workspace"] for each in found),
    }


def run_explain(options: argparse.Namespace, words: Sequence[str]) -> int:
    """``striate explain``."""
    found = explanation(parse(" ".join(options.line)), options.threads)
    if options.json:
        print(json.dumps({"schema": SCHEMA, "kind": "explanation", **found}))
        return 0
    print(f"problem    {found['problem']}")
    print(f"row        {found['row']}" + (f" ({found['why']})" if "why" in found else ""))
    if found["workspace"] is not None:
        print(f"workspace  {found['workspace']} bytes")
    print(
        f"cost       {found['macs']} multiply-adds, {found['bytes']} bytes, {found['intensity']:.3g} flop/byte"
    )
    for each in found["bounds"]:
        rate = f"{each['peak'] * 1e-9:.0f} GFLOP/s, {each['bandwidth'] * 1e-9:.1f} GB/s at this size"
        print(
            f"at best    {each['seconds'] * 1e3:.4g} ms on {plural(each['threads'])}, {each['bound']} bound ({rate})"
        )
    if found.get("fault"):
        print(f"WRONG      {found['fault']}")
    if found["refusals"]:
        print()
        show(Table("Refused by", ("<row", "<because"), found["refusals"]))
    return int(bool(found.get("fault")))
