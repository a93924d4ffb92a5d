"""``striate cache``: what striate keeps on disk."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from . import report, store
from ._cuda import cuda_cache, cuda_cache_clear, cuda_status, cuda_warm
from .options import Commands, add_json, add_threads, command
from .problems import Problem, named
from .records import SCHEMA
from .roofline import full

ABOUT = """\
List, fill or clear what striate keeps on disk.

Measured rates of this machine, and kernels compiled for its GPU. The folder is {folder};
the environment variable {variable} moves it."""


def add(commands: Commands) -> None:
    """The arguments of ``striate cache``."""
    parser = command(
        commands,
        "cache",
        ABOUT.format(folder=store.folder(), variable=store.VARIABLE),
        ("striate cache ls", "striate cache warm convnext_tiny", "striate cache clear"),
    )
    parser.add_argument(
        "action", choices=("ls", "warm", "clear"), help="list, compile and measure ahead, or remove"
    )
    parser.add_argument(
        "what", nargs="*", metavar="WHAT", help="warm: families, files or a problem line to compile"
    )
    add_threads(parser)
    add_json(parser)


def entries() -> list[dict[str, object]]:
    """Everything that is kept."""
    found: list[dict[str, object]] = []
    path = store.rates_file()
    if path.exists():
        found.append({"name": "rates of this machine", "bytes": path.stat().st_size, "path": str(path)})
    return found + cuda_cache()


def _show(options: argparse.Namespace) -> None:
    found = entries()
    if options.json:
        print(
            json.dumps({"schema": SCHEMA, "kind": "cache", "folder": str(store.folder()), "entries": found})
        )
        return
    rows: list[tuple[str, ...]] = [(str(e["name"]), str(e["bytes"]), str(e["path"])) for e in found]
    if rows:
        report.show(report.Table("", ("<what", "bytes", "<where"), rows))
    else:
        print(f"nothing is kept in {store.folder()}; `striate cache warm` measures this machine")


def _warm(options: argparse.Namespace) -> None:
    full(options.threads, ("cpu",))
    print(f"rates of this machine are in {store.save()}")
    problems = [entry.problem for entry in named(options.what)]
    status = cuda_status()
    if not problems:
        return
    if not status["available"] or not status["kernels"]:
        why = status.get("why") or "this build of striate has no CUDA kernels"
        print(f"nothing to compile: {why}; CPU kernels are compiled already")
        return
    for problem in problems:
        if isinstance(problem, Problem):
            line = str(problem.on("cuda"))
            print(f"{cuda_warm(line)}: {line}")


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command."""
    if options.what and options.action != "warm":
        raise ValueError(f"WHAT: expected nothing behind {options.action}, got {' '.join(options.what)!r}")
    if options.action == "clear":
        files, kernels = store.clear(), cuda_cache_clear()
        print(f"removed {int(files)} file of rates and {kernels} compiled kernels from {store.folder()}")
    elif options.action == "warm":
        _warm(options)
    else:
        _show(options)
    return 0
