"""Forward and training-step times of whole networks, torch's convolutions against striate's, in turns."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from .timing import Local, race

# A row of each kind that a small machine can train; one layer of each kind of convolution is among them.
ROWS = ("resnet18", "mobilenetv2_100", "efficientnet_b0", "convnext_atto", "inception_next_atto", "fasternet_t0",
        "focalnet_tiny_srf", "hornet_tiny_7x7", "unireplknet_a", "nafnet_gopro_w32", "multiresnet_scifar")  # fmt: skip
SIDE = 128
HEAD = f"{'network':32}{'':16}{'torch ms (min)':>16}{'striate ms (min)':>18}   ratio"


def known(name: str) -> None:
    """ValueError for a name that is no network of the zoo."""
    names = zoo.list_models()
    if name not in names:
        close = difflib.get_close_matches(name, names, 3)
        hint = f"; close: {', '.join(close)}" if close else ""
        raise ValueError(f"WHAT: expected a network of striate.zoo.list_models(), got {name!r}{hint}")


def sample_input(name: str) -> Tensor:
    """A small random batch for a network."""
    row = zoo.info(name)
    return row.example(1 if len(row.size) > 2 else 4, SIDE)


@dataclass(frozen=True)
class Call:
    """One contender: a model and what is done with it."""

    model: torch.nn.Module
    x: Tensor
    train: bool

    def __call__(self) -> Tensor:
        """A forward pass, or forward and backward."""
        with torch.set_grad_enabled(self.train):
            loss = torch.stack([y.square().mean() for y in _tensors(self.model(self.x))]).sum()
        if self.train:
            self.model.zero_grad()
            loss.backward()
        return loss


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for item in value:
            yield from _tensors(item)


def measure(names: Sequence[str], threads: Sequence[int], seconds: float) -> Iterator[dict[str, Any]]:
    """One record for each network, kind of step and number of threads."""
    for name in names or ROWS:
        x = sample_input(name)
        models = {conv: zoo.create_model(name, conv=conv) for conv in ("torch", "striate")}
        models["striate"].load_state_dict(models["torch"].state_dict())
        for train in (False, True):
            calls = {conv: Local(Call(model.train(train), x, train)) for conv, model in models.items()}
            for count in threads:
                before = torch.get_num_threads()
                torch.set_num_threads(count)
                times = race(calls, seconds)
                torch.set_num_threads(before)
                found = {conv: timing.record() for conv, timing in times.items()}
                step = "step" if train else "forward"
                shape = list(x.shape)
                yield {
                    "kind": "zoo",
                    "name": name,
                    "step": step,
                    "threads": count,
                    "shape": shape,
                    "times": found,
                }


def line(record: dict[str, Any]) -> str:
    """One printed line: milliseconds, median and fastest, and the ratio of the medians."""
    head = f"{record['name']:32}{record['step']:9}{record['threads']:>2} thr"
    times = record["times"]
    if any("fault" in found for found in times.values()):
        return f"{head}  {times}"
    cells = "".join(f"{t['median'] * 1e3:>10.1f} ({t['min'] * 1e3:.1f})" for t in times.values())
    return f"{head}{cells}{times['torch']['median'] / times['striate']['median']:>8.2f}"
