"""The command ``striate``: one module for each group of subcommands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import striate

from . import cache, campaign, check, compare, doctor, info, measured, plot

ABOUT = """\
Fast convolution primitives for PyTorch: what is here, what runs, how fast, and what the machine could do.

Start with `striate doctor` (is everything well?), `striate check` (are results right on this machine?) and
`striate bench` (how fast is it?). Every command has --help with examples."""

Run = Callable[[argparse.Namespace, Sequence[str]], int]
RUN: dict[str, Run] = {
    "info": info.run_info,
    "bench": campaign.run,
    "compare": compare.run,
    "roofline": measured.run,
    "plot": plot.run,
    "explain": info.run_explain,
    "check": check.run,
    "cache": cache.run,
    "doctor": doctor.run,
}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    made = argparse.ArgumentParser(
        prog="striate", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--version", action="version", version=f"striate {striate.__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="command")
    for module in (info, campaign, compare, measured, plot, check, cache, doctor):
        module.add(commands)
    return made


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all is well, 1 if a result was wrong or slower, 2 for a bad command line, 3 if refused."""
    words = sys.argv[1:] if words is None else list(words)
    made = parser()
    options = made.parse_args(words)
    try:
        return RUN[options.command](options, words)
    except ValueError as error:
        print(f"striate {options.command}: {error}", file=sys.stderr)
        print(f"(striate {options.command} --help shows what it takes)", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("striate: interrupted; a record written with --json keeps what was measured", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `striate info | head`
        sys.stderr.close()
        return 0
