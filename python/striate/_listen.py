"""What runs where, told to whoever listens: kernel rows that the core chooses, and why torch runs the rest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from . import _core

if TYPE_CHECKING:
    from ._core import Explanation


@dataclass
class Heard:
    """What one thread did: filled when the listening ends."""

    choices: list[Explanation] = field(default_factory=list)
    to_torch: list[str] = field(default_factory=list)


class _Here(threading.local):
    reasons: list[str] | None = None


_here = _Here()


@contextmanager
def listening() -> Iterator[Heard]:
    """Every choice of this thread within the block. Plans are made anew for it, so it is not for timing."""
    heard = Heard()
    _here.reasons = heard.to_torch
    _core.listen()
    try:
        yield heard
    finally:
        heard.choices += _core.heard()
        _here.reasons = None


def leave_to_torch(why: str) -> None:
    """Tell why torch's own function is about to run."""
    if not torch.compiler.is_dynamo_compiling() and _here.reasons is not None:
        _here.reasons.append(why)
