"""``striate info`` and ``striate explain``: what is here, and what would run."""

from __future__ import annotations

from typing import Any

import torch

from .. import _core
from .environment import environment
from .problems import Problem
from .report import Table, show


def cuda() -> str:
    """The CUDA devices torch sees."""
    if not torch.cuda.is_available():
        return "none"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def info() -> dict[str, Any]:
    """Print what striate runs on and every kernel row; returns what was printed."""
    facts = environment() | {"cuda": cuda()}
    rows: list[tuple[str, ...]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            value = " ".join(f"{k}={v}" for k, v in value.items()) or "none set"
        rows.append((name, " ".join(value) if isinstance(value, list) else str(value)))
    show(Table("", ("<fact", "<value"), rows))
    kernels = _core.kernels()
    table = Table("Kernel rows, in the order in which they are asked", ("<row", "<runs here", "<note"))
    table.rows += [(row["name"], "yes" if row["available"] else "no", row["note"]) for row in kernels]
    show(table)
    return facts | {"kernels": kernels}


def explain(line: str) -> dict[str, Any]:
    """Print which row runs a problem and why the rows before it do not; ValueError on a bad line."""
    found = _core.explain(line)
    problem = Problem.parse(line)
    print(f"problem    {found['problem']}")
    print(f"row        {found['row']}")
    print(f"workspace  {found['workspace']} bytes")
    print(f"cost       {problem.macs} multiply-adds, {problem.bytes} bytes\n")
    if found["refusals"]:
        show(Table("Refused by", ("<row", "<because"), [*found["refusals"]]))
    return {**found, "macs": problem.macs, "bytes": problem.bytes}
