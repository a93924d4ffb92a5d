"""Prove that the rooms keep to the plan of the house.

    python tools/check_house.py

The arrows of ARCHITECTURE.md are the dependencies of the crates, Python packages know only whom they may
know, crates without a door to unsafe code forbid it, every such door is listed in SAFETY.md, and files and
functions stay small.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE, LONGEST_FUNCTION = 500, 60
# Who may import whom inside the package; a name that is missing here may be imported by everybody.
KNOWS = {
    "zoo": {"ops", "nn"},
    "compat": {"ops", "nn"},
    "nn": {"ops"},
    "bench": {"ops", "nn", "zoo"},
    "ops": set[str](),
}


def kept(*patterns: str) -> list[Path]:
    """Files that the project keeps or is about to keep."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return [path for name in sorted(set(names)) if (path := ROOT / name).exists()]


def arrows() -> Iterator[str]:
    """Differences between the drawn arrows and the manifests."""
    block = re.search(r"```arrows\n(.*?)```", (ROOT / "ARCHITECTURE.md").read_text(), re.DOTALL)
    drawn = {}
    for line in block[1].splitlines() if block else []:
        crate, _, known = line.partition(" -> ")
        drawn[crate] = set(known.split())
    for manifest in kept("rust/*/Cargo.toml"):
        text = manifest.read_text()
        name = re.search(r'^name = "(striate-\w+)"', text, re.MULTILINE)
        ordinary = re.search(r"^\[dependencies\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
        real = set(re.findall(r"^(striate-\w+)", ordinary[1] if ordinary else "", re.MULTILINE))
        crate = name[1] if name else manifest.parent.name
        if real != drawn.pop(crate, set()):
            knows = " ".join(sorted(real)) or "nobody"
            yield f"{manifest.relative_to(ROOT)}: knows {knows}, the map says otherwise"
    for crate in drawn:
        yield f"ARCHITECTURE.md: draws arrows of {crate}, which does not exist"


def imports() -> Iterator[str]:
    """Python imports that go against the arrows."""
    package = ROOT / "python" / "striate"
    for path in kept("python/striate/*/*.py"):
        room = path.relative_to(package).parts[0]
        if room not in KNOWS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            module = node.module or ""
            if node.level == 2:
                rooms = {module.split(".")[0]} if module else {alias.name for alias in node.names}
            elif node.level == 0 and module.split(".")[0] == "striate":
                rooms = {module.split(".")[1]} if "." in module else {alias.name for alias in node.names}
            else:
                continue
            for other in sorted(rooms & set(KNOWS) - KNOWS[room] - {room}):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {room} may not know {other}"


def doors() -> Iterator[str]:
    """Unsafe code outside the listed doors."""
    listed = set(re.findall(r"`(rust/[\w/]+(?:\.rs)?)`", (ROOT / "SAFETY.md").read_text()))
    unsafe = re.compile(r"^(?!\s*//).*\bunsafe\s*(\{|fn|impl|extern)", re.MULTILINE)
    for crate in kept("rust/*/Cargo.toml"):
        sources = [path for path in kept(f"{crate.parent.relative_to(ROOT)}/src") if path.suffix == ".rs"]
        users = [str(path.relative_to(ROOT)) for path in sources if unsafe.search(path.read_text())]
        yield from (
            f"{user}: unsafe code, but SAFETY.md lists no such door"
            for user in users
            if not any(user == door or user.startswith(f"{door}/") for door in listed)
        )
        root = crate.parent / "src" / "lib.rs"
        if not users and root.exists() and "#![forbid(unsafe_code)]" not in root.read_text():
            yield f"{root.relative_to(ROOT)}: has no unsafe code and does not say #![forbid(unsafe_code)]"


def sizes() -> Iterator[str]:
    """Files, Python functions and argument lists that have grown too long."""
    for path in kept("*.rs", "*.py", "*.pyi", "*.cuh", "*.hpp", "*.cpp", "Makefile"):
        name, text = path.relative_to(ROOT), path.read_text()
        if (lines := text.count("\n")) > LONGEST_FILE:
            yield f"{name}: {lines} lines, at most {LONGEST_FILE}"
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines, at most {LONGEST_FUNCTION}"


def main() -> int:
    faults = [*arrows(), *imports(), *doors(), *sizes()]
    for fault in faults:
        print(fault)
    print(f"house: {len(faults)} fault(s)")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
