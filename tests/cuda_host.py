"""CUDA kernels on the host: compiled by g++ with cuda/host.hpp, launched with the arguments that a device would get."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

TESTS = Path(__file__).resolve().parent
HEADERS = TESTS.parent / "cuda"
# Statics of inline functions are of one library, as its machine is: not unique in the process.
FLAGS = [
    "-O1",
    "-std=c++17",
    "-fno-gnu-unique",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
]
SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


class LaunchError(RuntimeError):
    """What the host found wrong with a launch, in its own words."""


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel; with ``sanitized`` a program of its own, which must be told its ``buffers`` by ``over``."""

    path: Path
    threads: int
    """upper bound that the source declares, or 1024"""
    sanitized: bool
    buffers: tuple[Tensor, ...] = ()

    def over(self, *buffers: Tensor) -> Kernel:
        """The kernel, knowing every tensor that it may touch."""
        return replace(self, buffers=buffers)


def compile_host(source: str, sanitize: bool = False) -> Kernel:
    """The function ``striate_kernel`` of a translation unit, compiled for the host; once for the same text.

    With ``sanitize`` under the address and undefined-behaviour sanitizers. Skips the test without a compiler.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    source += "\nSTRIATE_HOST_ENTRY\n"
    command = [*_command(compiler, sanitize), "-include", str(_prelude(compiler, sanitize))]
    bounds = re.findall(r"__launch_bounds__\s*\((\d+)", source)
    threads = int(bounds[-1]) if bounds else 1024
    path = _folder() / hashlib.sha256("\0".join([*command, source, _headers()]).encode()).hexdigest()[:32]
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            text, built = Path(folder) / "kernel.cu", Path(folder) / "kernel"
            text.write_text(source)
            linked = [*([] if sanitize else ["-shared"]), "-x", "none", *_machine(compiler, sanitize)]
            tell = subprocess.run(
                [*command, "-x", "c++", str(text), *linked, "-o", str(built)], capture_output=True, text=True
            )
            if tell.returncode != 0:
                raise RuntimeError(f"g++ refuses the kernel:\n{tell.stderr[:8000]}")
            # Another process may have built the same; either file is right.
            built.replace(path)
    return Kernel(path, threads, sanitize)


def launch(kernel: Kernel, grid: Sequence[int], block: int, shared: int, args: bytes, seed: int = 0) -> None:
    """Run the kernel over the grid; a seed other than 0 draws the order of its threads.

    Raises:
        LaunchError: what the host found wrong: a divergent barrier, a deadlock, a size, an alignment.
    """
    if block > kernel.threads:
        raise LaunchError(f"block: at most {kernel.threads} threads are declared, got {block}")
    if kernel.sanitized:
        return _launch_program(kernel, [*grid, block, shared, seed], args)
    library = _library(kernel.path)
    # Cut to size, so that nothing behind the arguments helps.
    failed = library.striate_launch((ctypes.c_uint * 3)(*grid), block, shared, args, len(args), seed)
    if failed:
        raise LaunchError(library.striate_error().decode())
    return None


@functools.cache
def _library(path: Path) -> Any:
    library = ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    library.striate_error.restype = ctypes.c_char_p
    unsigned = ctypes.c_uint
    library.striate_launch.argtypes = [
        ctypes.POINTER(unsigned), unsigned, unsigned, ctypes.c_char_p, ctypes.c_ulong, unsigned
    ]  # fmt: skip
    return library


def _bytes_behind(tensor: Tensor) -> int:
    """From the first element of the tensor to the end of its memory."""
    return int(tensor.untyped_storage().nbytes()) - int(tensor.storage_offset()) * tensor.element_size()


def _launch_program(kernel: Kernel, launch: list[int], args: bytes) -> None:
    memory = [(t.data_ptr(), _bytes_behind(t)) for t in kernel.buffers]
    addresses = []
    for at in range(0, len(args) - 7, 8):
        (word,) = struct.unpack_from("<Q", args, at)
        for number, (base, size) in enumerate(memory):
            if word and base <= word < base + max(size, 1):
                addresses.append((at, number, word - base))
    data = b"".join(
        [
            struct.pack("<6I", *launch),
            struct.pack("<3Q", len(args), len(memory), len(addresses)),
            args,
            b"".join(struct.pack("<Q", size) for _, size in memory),
            b"".join(struct.pack("<3Q", *address) for address in addresses),
            b"".join(ctypes.string_at(base, size) for base, size in memory),
        ]
    )
    ran = subprocess.run([str(kernel.path)], input=data, capture_output=True)
    if ran.returncode != 0:
        raise LaunchError(ran.stderr.decode(errors="replace")[:8000])
    start = 0
    for base, size in memory:
        ctypes.memmove(base, ran.stdout[start : start + size], size)
        start += size


@functools.cache
def _headers() -> str:
    files = sorted([*HEADERS.iterdir(), TESTS / "cuda_host_main.cpp"])
    return "\0".join(f"{file.name}\0{file.read_text()}" for file in files if file.is_file())


def _command(compiler: str, sanitize: bool) -> list[str]:
    return [compiler, *FLAGS, *(SANITIZERS if sanitize else ["-fPIC"]), f"-I{HEADERS}", f"-I{TESTS}"]


@functools.cache
def _prelude(compiler: str, sanitize: bool) -> Path:
    """What every kernel begins with, in a file of its own that is parsed once."""
    text = '#include "host.hpp"\n#include "window.cuh"\n'
    return _made(_command(compiler, sanitize), text, "c++-header", ".hpp.gch").with_suffix("")


@functools.cache
def _machine(compiler: str, sanitize: bool) -> list[str]:
    """What every kernel is linked with, compiled once: the machine and, with ``sanitize``, the program around it."""
    files = [HEADERS / "host.cpp", *([TESTS / "cuda_host_main.cpp"] if sanitize else [])]
    return [str(_made(_command(compiler, sanitize), file.read_text(), "c++", ".o")) for file in files]


def _made(command: Sequence[str], text: str, kind: str, suffix: str) -> Path:
    """The text compiled, in a file named by it and all headers; for a header, beside its text."""
    name = hashlib.sha256("\0".join([*command, text, _headers()]).encode()).hexdigest()[:32]
    target = _folder() / f"{name}{suffix}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            source, built = Path(folder) / f"{name}.hpp", Path(folder) / "built"
            source.write_text(text)
            subprocess.run([*command, "-c", "-x", kind, str(source), "-o", str(built)], check=True)
            # Another process may have built the same; either file is right.
            source.replace(target.with_name(source.name))
            built.replace(target)
    return target


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"striate-cuda-host-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
