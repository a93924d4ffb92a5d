"""``striate doctor``: what is not as it should be here, and the fix."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

import striate

from .. import _core
from . import report, store
from ._cuda import cuda_status
from .environment import busy, cores, governor, others
from .operands import make_operands
from .options import Commands, add_json, command
from .problems import Problem
from .records import SCHEMA
from .verify import verify

ABOUT = """\
Look for what makes striate slow, wrong or absent on this machine, and say how to mend it.

exit status: 0; 1 if something is broken. What is merely not ideal is a note."""

LINE = "conv fwd f32 nchw cpu n2 g16 ci1 co1 i14x14 k7x7 s1x1 d1x1 p3+3x3+3"
# Threads of these libraries wait for work by spinning, and torch's with them when both are set differently.
_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Finding(NamedTuple):
    """One look: ``well``, ``note`` or ``broken``; and what to do."""

    state: str
    what: str
    fix: str = ""


def add(commands: Commands) -> None:
    """The arguments of ``striate doctor``."""
    add_json(command(commands, "doctor", ABOUT, ("striate doctor",)))


def _core_findings() -> Iterator[Finding]:
    route = striate._route
    if route == "rust":
        yield Finding("well", "operators are registered from Rust")
    else:
        fix = "unset STRIATE_BRIDGE" if "STRIATE_BRIDGE" in os.environ else "report it with `striate info`"
        yield Finding("note", f"operators go by way of {route}, which costs some microseconds a call", fix)
    fault = verify(make_operands(Problem.parse(LINE)), (1,))
    if fault:
        yield Finding(
            "broken", f"a depthwise convolution is wrong: {fault}", "run `striate check` and report it"
        )
    else:
        yield Finding("well", f"a depthwise convolution is right (row {_core.explain(LINE)['row']})")
    pattern = os.environ.get("STRIATE_KERNELS")
    if pattern:
        yield Finding(
            "note", f"STRIATE_KERNELS={pattern} chooses among the kernels", "unset it to have the fastest"
        )


def _cpu_findings() -> Iterator[Finding]:
    features = _core.cpu_features()
    fast = [name for name in ("avx512f", "avx2", "neon") if name in features]
    if fast:
        yield Finding("well", f"the processor has {fast[0]}")
    else:
        yield Finding("note", "the processor has no AVX2: the portable kernels run", "nothing to mend")
    count, have = torch.get_num_threads(), cores()
    if count > have:
        fix = f"torch.set_num_threads({have}), or unset {' and '.join(_COUNTS)}"
        yield Finding(
            "note", f"torch uses {count} threads on {have} processors: they will wait for each other", fix
        )
    else:
        yield Finding("well", f"torch uses {count} of {have} processors")
    running = others()
    if busy(running):
        yield Finding("note", f"{running:g} other processes run: times mean little now", "measure later")
    if governor() not in (None, "performance"):
        yield Finding(
            "note",
            f"the clock is governed by {governor()}",
            "cpupower frequency-set -g performance, to measure",
        )
    half = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if half and any(name.startswith("amx") for name in _flags()):
        yield Finding(
            "note",
            "with AMX, torch's half-precision convolutions with large kernels may not return",
            "striate is not affected; `striate bench` runs them in a process that it can leave behind",
        )


def _flags() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":")[1].split() for line in file if line.startswith("flags")), [])
    except OSError:
        return []


def _cuda_findings() -> Iterator[Finding]:
    status = cuda_status()
    if not status["available"]:
        yield Finding("well", f"no GPU: {status['why']}; everything runs on the CPU")
    elif not status["kernels"]:
        names = ", ".join(status["devices"])
        yield Finding(
            "note", f"{names}: this build has no CUDA kernels, torch's run", "install a build with them"
        )
    else:
        yield Finding("well", f"CUDA kernels for {', '.join(status['devices'])}")
        if "nvrtc_missing" in status:
            fix = "install the NVRTC of torch's CUDA version: pip install nvidia-cuda-nvrtc"
            yield Finding("broken", status["nvrtc_missing"], fix)
        else:
            yield Finding("well", f"NVRTC {status.get('nvrtc')} compiles them")


def _folder_findings() -> Iterator[Finding]:
    folder = store.folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".probe{os.getpid()}").touch()
        (folder / f".probe{os.getpid()}").unlink()
    except OSError as error:
        yield Finding(
            "broken", f"cannot write to {folder}: {error.strerror}", f"set {store.VARIABLE} to a folder"
        )
        return
    yield Finding("well", f"the cache folder {folder} can be written")
    if not store.rates_file().exists():
        yield Finding("note", "the roofs of this machine are not measured yet", "striate roofline")


def _package_findings() -> Iterator[Finding]:
    for name, use in (("rich", "tables in colour"), ("matplotlib", "`striate plot`")):
        if importlib.util.find_spec(name) is None:
            yield Finding("note", f"{name} is not installed: no {use}", "pip install 'striate[bench]'")
        else:
            yield Finding("well", f"{name} is installed")


def findings() -> Iterator[Finding]:
    """Every look, in order."""
    for look in (_core_findings, _cpu_findings, _cuda_findings, _folder_findings, _package_findings):
        yield from look()


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command; 1 if something is broken."""
    found = list(findings())
    broken = sum(each.state == "broken" for each in found)
    if options.json:
        print(
            json.dumps({"schema": SCHEMA, "kind": "doctor", "findings": [each._asdict() for each in found]})
        )
        return int(bool(broken))
    report.show(report.Table("", ("<", "<what", "<what to do"), [tuple(each) for each in found]))
    notes = sum(each.state == "note" for each in found)
    print(f"{broken} broken, {notes} to note" if broken or notes else "all is well")
    return int(bool(broken))
