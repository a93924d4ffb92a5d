"""Prove that what the documents say can be followed.

    python tools/check_docs.py

Links between files of the project lead somewhere (anchors included), every Python block compiles, the
README's Python blocks run, and every `make` target that a document names exists.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE_SPAN = re.compile(r"`[^`\n]*`")
MAKE_TARGET = re.compile(r"^make ([a-z0-9-]+)|`make ([a-z0-9-]+)[^`]*`", re.MULTILINE)


def documents() -> list[Path]:
    """Every Markdown file that the project keeps or is about to keep."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return [path for name in sorted(set(names)) if (path := ROOT / name).exists()]


def anchors(text: str) -> set[str]:
    """The anchors that a reader of the rendered page can be sent to."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(slug)
    return found


def broken_links(page: Path, text: str) -> list[str]:
    """Links of one page to files or anchors that do not exist."""
    broken = []
    for target in LINK.findall(CODE_SPAN.sub("", FENCE.sub("", text))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists():
            broken.append(f"link to {target}: there is no such file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
            broken.append(f"link to {target}: there is no such heading")
    return broken


def broken_code(page: Path, text: str) -> list[str]:
    """Python blocks of one page that do not compile; the README's are also run, in order."""
    broken = []
    blocks = [match[3] for match in FENCE.finditer(text) if match[2] == "python"]
    for number, block in enumerate(blocks, 1):
        try:
            compile(block, f"{page.name}:python block {number}", "exec")
        except SyntaxError as error:
            broken.append(f"python block {number}: {error}")
    if page == ROOT / "README.md" and not broken:
        if not blocks:
            return ["shows no Python at all"]
        with tempfile.TemporaryDirectory() as elsewhere:
            command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", "\n".join(blocks)]
            run = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=300)
        if run.returncode:
            broken.append("its Python blocks do not run:\n" + run.stderr.strip())
    return broken


def main() -> int:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = documents()
    faults = 0
    for page in pages:
        text = page.read_text()
        found = broken_links(page, text) + broken_code(page, text)
        named = {first or second for first, second in MAKE_TARGET.findall(text)}
        found += [f"`make {name}`: the Makefile has no such target" for name in sorted(named - targets)]
        for fault in found:
            print(f"{page.relative_to(ROOT)}: {fault}")
        faults += len(found)
    print(f"{len(pages)} documents, {faults} fault(s)")
    return int(faults > 0 or not pages)


if __name__ == "__main__":
    sys.exit(main())
