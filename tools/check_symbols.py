"""Prove that the extension loads beside any torch and on any manylinux_2_28 system.

    python tools/check_symbols.py [--glibc 2.28] <library or wheel>...

Every undefined dynamic symbol must be weak, belong to glibc or libgcc, or be Python's stable ABI. So
there is no torch, c10 or C++ symbol among them: torch's functions are looked up at run time, and one file
serves every torch.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SYSTEM_LIBRARIES = re.compile(r"lib(c|m|dl|rt|pthread|gcc_s)\.so\.\d+|ld-linux-[\w-]+\.so\.\d+")
SYMBOL = re.compile(r"^\s+(?P<kind>[a-zA-Z]) (?P<name>[^@\s]+)(?:@+(?P<version>\S+))?$")


def output(*command: str) -> str:
    """Standard output of a command that must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def newer(version: str, limit: str) -> bool:
    """Whether a glibc version such as 2.34 is newer than the limit."""
    return [int(n) for n in version.split(".")] > [int(n) for n in limit.split(".")]


def faults(library: Path, glibc: str | None) -> list[str]:
    """Everything that would stop this library from loading where it should load."""
    found = []
    lines = output("nm", "-D", "--undefined-only", str(library)).splitlines()
    undefined = [symbol for line in lines if (symbol := SYMBOL.match(line))]
    if not undefined:
        return ["nm shows no undefined symbol at all: this is not the extension"]
    for symbol in undefined:
        name, version = symbol["name"], symbol["version"] or ""
        if symbol["kind"] in "wv" or version.startswith("GCC_"):
            continue
        if version.startswith("GLIBC_"):
            if glibc and newer(version.removeprefix("GLIBC_"), glibc):
                found.append(f"{name} needs glibc {version.removeprefix('GLIBC_')}, the limit is {glibc}")
        elif not name.startswith(("Py", "_Py")):
            found.append(f"{name}@{version} is neither glibc, libgcc nor Python's stable ABI")
    linked = re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-dW", str(library)))
    found += [f"links {name}, no system library" for name in linked if not SYSTEM_LIBRARIES.fullmatch(name)]
    exported = output("nm", "-D", "--defined-only", str(library))
    if " PyInit__core" not in exported:
        found.append("does not export PyInit__core")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--glibc", help="newest glibc version a symbol may ask for, e.g. 2.28")
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for file in arguments.files:
            library = file
            if file.suffix == ".whl":
                with zipfile.ZipFile(file) as wheel:
                    library = Path(wheel.extract("striate/_core.abi3.so", scratch))
            found = faults(library, arguments.glibc)
            failed |= bool(found)
            print(f"{file}: " + ("symbols ok" if not found else f"{len(found)} fault(s)"))
            for fault in found:
                print(f"  {fault}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
