"""CUDA kernels through the run-time compiler, which needs no device: are they legal, and what do they cost?"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

HEADERS = Path(__file__).resolve().parent.parent / "cuda"
ARCHS = (75, 80, 86, 89, 90, 100, 120)


def archs(every: bool, turn: int) -> tuple[int, ...]:
    """Every architecture, or one of the two that most devices have, in turns among the kernels of a row."""
    return ARCHS if every else ((80,), (90,))[turn % 2]


@dataclass(frozen=True)
class Log:
    """What the assembler says of the one kernel."""

    registers: int
    spilled: int
    """bytes stored and loaded"""
    stack: int
    shared: int
    """bytes of static shared memory"""
    text: str


class CompileError(RuntimeError):
    """The compiler's own words."""


def compile(source: str, arch: int, *options: str) -> tuple[bytes, Log]:
    """The cubin of a translation unit for ``sm_<arch>``, and what it costs. Skips the test without NVRTC."""
    binary, text = _compiled(source, f"sm_{arch}", "CUBIN", options)
    return binary, _parsed(text)


def ptx(source: str, arch: int, *options: str) -> str:
    """The text that the assembler is given for ``compute_<arch>``."""
    return _compiled(source, f"compute_{arch}", "PTX", options)[0].rstrip(b"\0").decode()


@functools.cache
def _compiled(source: str, arch: str, what: str, options: tuple[str, ...]) -> tuple[bytes, str]:
    nvrtc, program = _library(), ctypes.c_void_p()
    headers = sorted(HEADERS.glob("*.cuh"))
    texts = (ctypes.c_char_p * len(headers))(*(file.read_bytes() for file in headers))
    names = (ctypes.c_char_p * len(headers))(*(file.name.encode() for file in headers))
    files = (len(headers), texts, names)
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", *files))
    every = (f"--gpu-architecture={arch}", "--std=c++17", "--ptxas-options=-v", *options)
    arguments = (ctypes.c_char_p * len(every))(*map(str.encode, every))
    failed = nvrtc.nvrtcCompileProgram(program, len(every), arguments)
    log = _bytes(program, "ProgramLog").rstrip(b"\0").decode()
    result = b"" if failed else _bytes(program, what)
    _check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    if failed:
        raise CompileError(f"{arch}:\n{log[:8000]}")
    return result, log


def _parsed(text: str) -> Log:
    def number(pattern: str) -> int:
        return sum(int(found) for found in re.findall(pattern, text))

    if "registers" not in text:
        raise CompileError(f"no line on registers in the log:\n{text}")
    return Log(
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes spill"),
        number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes smem"),
        text,
    )


def _bytes(program: ctypes.c_void_p, what: str) -> bytes:
    nvrtc, size = _library(), ctypes.c_size_t()
    _check(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc, f"nvrtcGet{what}")(program, data))
    return data.raw


def _check(status: int) -> None:
    if status:
        raise CompileError(f"NVRTC status {status}")


@functools.cache
def _library() -> ctypes.CDLL:
    found = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (found.submodule_search_locations or [])] if found else []
    for pattern in ("libnvrtc-builtins.so.*", "libnvrtc.so.*"):
        # The builtins first: the wheels of CUDA 13.0 do not find them by themselves.
        every = (file for folder in folders for file in sorted(folder.glob(f"*/lib/{pattern}")))
        files = [file for file in every if "alt" not in file.name]
        if not files:
            pytest.skip("no wheel of NVRTC")
        library = ctypes.CDLL(str(files[-1]), mode=ctypes.RTLD_GLOBAL)
    return library
