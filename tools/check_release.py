"""Prove that what is about to be released agrees with itself.

    python tools/check_release.py [--tag v0.1.0] [wheel or sdist ...]

Version and changelog agree, README.md renders as a package index renders it, and every file that is named has that
version, that README, both licences, and is a wheel of the stable ABI with the command and the type information.
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    """The workspace's version, which is the only one."""
    found = re.search(r'^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("Cargo.toml: the workspace has no version")
    return found[1]


def changelog(text: str, number: str, tag: str | None) -> list[str]:
    """What the changelog lacks: entries that wait, or, for a tag, a dated section of its version."""
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    named = {section.split(maxsplit=1)[0]: section for section in sections}
    if tag is not None:
        if tag != f"v{number}":
            return [f"the tag is {tag}, Cargo.toml says {number}"]
        if not re.match(rf"{re.escape(number)} - \d{{4}}-\d\d-\d\d\n", named.get(number, "")):
            return [f"CHANGELOG.md: expected a section `## {number} - YYYY-MM-DD`"]
        return []
    released = [name for name in named if name[0].isdecimal()]
    if released and released[0] == number:
        return []
    if "* " not in named.get("Unreleased", ""):
        return [f"CHANGELOG.md: has neither a section of {number} nor entries under Unreleased"]
    return []


def readme(text: str) -> list[str]:
    """Whether a package index could show the README."""
    from readme_renderer import markdown

    shown = markdown.render(text)
    return [] if shown and "<h1" in shown else ["README.md: does not render"]


def metadata(found: Message, number: str) -> list[str]:
    """Faults of the metadata in a wheel or an sdist."""
    faults = [] if found["Version"] == number else [f"version {found['Version']}, expected {number}"]
    if found["Description-Content-Type"] is None or "markdown" not in found["Description-Content-Type"]:
        faults.append(f"description is {found['Description-Content-Type']}, expected Markdown")
    if str(found.get_payload()).strip() != (ROOT / "README.md").read_text().strip():
        faults.append("the description is not README.md")
    licences = set(found.get_all("License-File") or [])
    if not {"LICENSE-APACHE", "LICENSE-MIT"} <= licences:
        faults.append(f"licence files are {sorted(licences)}")
    return faults


def shipped(file: Path, number: str) -> list[str]:
    """Faults of one wheel or sdist."""
    if file.suffix != ".whl":
        with tarfile.open(file) as tar:
            inside = tar.extractfile(f"striate-{number}/PKG-INFO")
            return metadata(Parser().parsestr(inside.read().decode() if inside else ""), number)
    faults = [] if "-abi3-" in file.name else ["is no wheel of the stable ABI"]
    with zipfile.ZipFile(file) as wheel:
        names, info = set(wheel.namelist()), f"striate-{number}.dist-info"
        if f"{info}/METADATA" not in names:
            return [*faults, f"has no {info}/METADATA"]
        faults += metadata(Parser().parsestr(wheel.read(f"{info}/METADATA").decode()), number)
        if b"striate=striate.bench.cli:main" not in wheel.read(f"{info}/entry_points.txt").replace(b" ", b""):
            faults.append("does not install the command striate")
    faults += [f"lacks {name}" for name in ("striate/py.typed", "striate/_core.pyi") if name not in names]
    extensions = [name for name in names if name.endswith((".so", ".pyd", ".dylib"))]
    return faults if len(extensions) == 1 else [*faults, f"expected one extension, got {extensions}"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tag", help="the tag that is to be released")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    number = version()
    faults = changelog((ROOT / "CHANGELOG.md").read_text(), number, options.tag)
    if options.tag is None:
        faults += readme((ROOT / "README.md").read_text())
    for file in options.files:
        faults += [f"{file.name}: {fault}" for fault in shipped(file, number)]
    for fault in faults:
        print(fault)
    print(f"release {number}: {len(options.files)} files, {len(faults)} fault(s)")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
