"""The Rust core."""

from collections.abc import Sequence
from typing import TypedDict, type_check_only

__all__ = [
    "call",
    "cpu_features",
    "explain",
    "explain_call",
    "forget",
    "kernels",
    "register",
    "run",
    "set_kernels",
    "version",
]

_Given = tuple[int, str, Sequence[int], Sequence[int]]

version: str

@type_check_only
class KernelRow(TypedDict):
    name: str
    op: str
    passes: list[str]
    dtypes: list[str]
    layouts: list[str]
    device: str
    isa: str
    deterministic: bool
    available: bool
    note: str

@type_check_only
class Explanation(TypedDict):
    problem: str
    row: str
    refusals: list[tuple[str, str]]
    workspace: int

def register(libtorch_path: str) -> None: ...
def kernels() -> list[KernelRow]: ...
def explain(line: str) -> Explanation: ...
def forget() -> None: ...
def set_kernels(pattern: str | None) -> None: ...
def run(line: str, out: int, a: int, b: int, bias: int, workers: int) -> None: ...
def cpu_features() -> list[str]: ...
def call(
    op: str, settings: str, operands: Sequence[_Given | None], results: Sequence[_Given], workers: int
) -> str: ...
def explain_call(
    op: str, settings: str, operands: Sequence[_Given | None], results: Sequence[_Given]
) -> Explanation: ...
