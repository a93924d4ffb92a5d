"""How arguments are read; an error names the argument, what was expected and what came."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .environment import cores

MOST_THREADS = 1024


def some_of(
    choices: Sequence[str], what: str, aliases: Mapping[str, str] | None = None
) -> Callable[[str], tuple[str, ...]]:
    """A reader of words between commas."""

    def read(text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys((aliases or {}).get(word, word) for word in text.split(",") if word))
        for word in words or ("",):
            if word not in choices:
                raise argparse.ArgumentTypeError(
                    f"{what}: expected some of {','.join(choices)}, got {word or 'nothing'!r}"
                )
        return words

    return read


def threads(text: str) -> tuple[int, ...]:
    """Numbers of threads between commas; ``all`` is every processor."""
    counts = []
    for word in text.split(","):
        count = cores() if word == "all" else int(word) if word.isdecimal() else 0
        if not 1 <= count <= MOST_THREADS:
            raise argparse.ArgumentTypeError(
                f"threads: expected numbers of 1 to {MOST_THREADS}, or all, got {word!r}"
            )
        counts.append(count)
    return tuple(dict.fromkeys(counts))


def fraction(text: str) -> float:
    """A number between 0 and 1, or percent with its sign."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a fraction such as 0.05 or 5%, got {text!r}")
    return value


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"seconds: expected a positive number, got {text!r}")
    return value


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The argument ``--threads``."""
    parser.add_argument(
        "--threads",
        type=threads,
        default=threads("1,all"),
        metavar="N,N",
        help="numbers of threads (default: 1,all)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """The argument ``--json`` of commands that answer at once."""
    parser.add_argument("--json", action="store_true", help="print the answer as one JSON object")


Commands = Any  # argparse names its subparsers by a private type


def command(
    commands: Commands, name: str, text: str, examples: Iterable[str] = ()
) -> argparse.ArgumentParser:
    """A subcommand whose help says what it does and shows how."""
    epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples) if examples else None
    summary = text.splitlines()[0].rstrip(".")
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser
