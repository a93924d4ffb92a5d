"""The table of kernel rows: those of the core, and those named ``torch``, which run torch's operators on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _core
from ._listen import leave_to_torch

if TYPE_CHECKING:
    from ._core import KernelRow


@dataclass(frozen=True)
class TorchRow:
    """What runs an operation on CUDA devices where no kernel of ours does."""

    op: str
    note: str
    run: Callable[..., Any]


torch_rows: list[TorchRow] = []
"""filled where the operations are registered"""


def by_torch(op: str, note: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters a function of torch's operators into the table as the row of ``op`` on CUDA devices.

    What it returns also tells :func:`striate.explain` that it ran.
    """

    def enter(run: Callable[..., Any]) -> Callable[..., Any]:
        torch_rows.append(TorchRow(op, note, run))

        def told(*args: Any) -> Any:
            leave_to_torch(f"{op}: {note}")
            return run(*args)

        return told

    return enter


def kernels() -> list[KernelRow]:
    """The kernel tables, a dict per row, in order of preference for each operation and device."""
    rows = _core.kernels()
    return rows + [_entry(row, rows) for row in torch_rows]


def _entry(row: TorchRow, rows: list[KernelRow]) -> KernelRow:
    """It takes what the first row of the host takes."""
    host = next(other for other in rows if other["op"] == row.op)
    return {
        "name": "torch",
        "op": row.op,
        "passes": [],
        "dtypes": host["dtypes"],
        "layouts": [],
        "device": "cuda",
        "isa": "cuda",
        "deterministic": True,
        "available": True,
        "note": row.note,
    }
