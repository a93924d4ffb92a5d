"""Prove that what the documents say can be followed.

    python tools/check_docs.py

Links between files of the project lead somewhere (anchors and pictures included), every picture is shown, every Python
block compiles, every `make` target that a document names exists, and the page of an operator has all its parts. That
the blocks also run, and print what the pages say, is tests/test_docs.py, which takes them from here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^( *)```([\w{}-]*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_SPAN = re.compile(r"`[^`\n]*`")
MAKE_TARGET = re.compile(r"^make ([a-z0-9-]+)|`make ([a-z0-9-]+)[^`]*`", re.MULTILINE)
# What a reader finds on every page of an operator, in this order; more may stand between.
PARTS = ("In use", "Definition", "Derivatives", "Types", "Limits", "On record", "Papers")
NOT_RUN = "# not run"  # the first words of a block, or behind a command, followed by the reason


@dataclass(frozen=True)
class Block:
    """One fenced block; ``output`` is the text block that follows at once, if any."""

    language: str
    code: str
    line: int
    output: str | None = None

    @property
    def runs(self) -> bool:
        """Whether the block claims to run as it is."""
        return not self.code.startswith(NOT_RUN)


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    found = list(FENCE.finditer(text))
    for number, match in enumerate(found):
        follower = found[number + 1] if number + 1 < len(found) else None
        output = None
        if (
            follower is not None
            and follower[2] == "text"
            and not text[match.end() : follower.start()].strip()
        ):
            output = follower[3]
        yield Block(match[2], match[3], text.count("\n", 0, match.start()) + 1, output)


def documents() -> list[Path]:
    """Every Markdown file that the project keeps or is about to keep."""
    return kept("*.md")


def kept(pattern: str) -> list[Path]:
    """Files that the project keeps or is about to keep."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return [path for name in sorted(set(names)) if (path := ROOT / name).exists()]


def anchors(text: str) -> set[str]:
    """The anchors that a reader of the rendered page can be sent to."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(slug)
    return found


def targets_of(text: str) -> list[str]:
    """What the links and pictures of a page point to."""
    return LINK.findall(CODE_SPAN.sub("", FENCE.sub("", text)))


def broken_links(page: Path, text: str) -> list[str]:
    """Links of one page to files or anchors that do not exist."""
    broken = []
    for target in targets_of(text):
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
    """Python blocks that do not compile, and blocks that are left out without a reason."""
    broken = []
    for block in blocks(text):
        where = f"{block.language} block in line {block.line}"
        if not block.runs and not re.match(rf"{NOT_RUN}: \S+", block.code):
            broken.append(f"{where}: a block that is not run says why, `{NOT_RUN}: reason`")
        if block.language == "python":
            try:
                compile(block.code, f"{page.name}:{block.line}", "exec")
            except SyntaxError as error:
                broken.append(f"{where}: {error}")
    if page == ROOT / "README.md" and not any(block.language == "python" for block in blocks(text)):
        broken.append("shows no Python at all")
    return broken


def missing_parts(page: Path, text: str) -> list[str]:
    """What the page of an operator lacks."""
    if page.parent != ROOT / "docs" / "ops":
        return []
    headings = re.findall(r"^## (.+)$", FENCE.sub("", text), re.MULTILINE)
    missing = [f"has no part {part!r}" for part in PARTS if part not in headings]
    present = [heading for heading in headings if heading in PARTS]
    if not missing and present != list(PARTS):
        missing.append(f"has its parts in the order {present}, expected {list(PARTS)}")
    if "../pictures/" not in text:
        missing.append("has no picture")
    return missing


def unseen_pictures(pages: list[Path]) -> list[str]:
    """Pictures that no page shows."""
    shown = {(page.parent / target).resolve() for page in pages for target in targets_of(page.read_text())}
    return [f"{path.relative_to(ROOT)}: no page shows it" for path in kept("docs/*.svg") if path not in shown]


def main() -> int:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = documents()
    faults = unseen_pictures(pages)
    for page in pages:
        text = page.read_text()
        found = broken_links(page, text) + broken_code(page, text) + missing_parts(page, text)
        named = {first or second for first, second in MAKE_TARGET.findall(text)}
        found += [f"`make {name}`: the Makefile has no such target" for name in sorted(named - targets)]
        faults += [f"{page.relative_to(ROOT)}: {fault}" for fault in found]
    for fault in faults:
        print(fault)
    print(f"{len(pages)} documents, {len(faults)} fault(s)")
    return int(bool(faults) or not pages)


if __name__ == "__main__":
    sys.exit(main())
