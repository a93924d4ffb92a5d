"""The Rust core."""

from collections.abc import Sequence
from typing import Any, TypedDict, type_check_only

__all__ = [
    "admits",
    "call",
    "cpu_features",
    "cuda_cache",
    "cuda_cache_clear",
    "cuda_call",
    "cuda_call_recipe",
    "cuda_compile",
    "cuda_prepare",
    "cuda_recipe",
    "cuda_search_in",
    "cuda_status",
    "explain",
    "forget",
    "heard",
    "kernels",
    "listen",
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

@type_check_only
class Launch(TypedDict):
    source: str
    grid: int
    block: int
    shared: int
    words: list[tuple[str, int, int]]

@type_check_only
class Recipe(TypedDict):
    row: str
    workspace: int
    launches: list[Launch]

def cuda_search_in(folders: Sequence[str]) -> None: ...
def cuda_status() -> dict[str, Any]: ...
def cuda_cache() -> list[tuple[str, int]]: ...
def cuda_cache_clear() -> int: ...
def cuda_compile(source: str, arch: int) -> bytes: ...
def cuda_prepare(line: str, device: int) -> None: ...
def cuda_recipe(line: str) -> Recipe: ...
def cuda_call(
    op: str,
    settings: str,
    operands: Sequence[_Given | None],
    results: Sequence[_Given],
    device: int,
) -> str | None: ...
def cuda_call_recipe(
    op: str, settings: str, operands: Sequence[_Given | None], results: Sequence[_Given]
) -> Recipe: ...
def register(libtorch_path: str) -> None: ...
def kernels() -> list[KernelRow]: ...
def explain(line: str) -> Explanation: ...
def forget() -> None: ...
def set_kernels(pattern: str | None) -> None: ...
def admits(op: str) -> bool: ...
def run(line: str, out: int, a: int, b: int, bias: int, workers: int) -> None: ...
def cpu_features() -> list[str]: ...
def call(
    op: str, settings: str, operands: Sequence[_Given | None], results: Sequence[_Given], workers: int
) -> str: ...
def listen() -> None: ...
def heard() -> list[Explanation]: ...
