"""Does the check of a release find what it should?"""

from __future__ import annotations

import sys
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import check_release  # noqa: E402

WAITING, DATED = "# C\n\n## Unreleased\n\n* new\n", "# C\n\n## 1.2.3 - 2026-01-02\n\n* new\n"


@pytest.mark.parametrize(
    ("text", "tag", "faults"),
    [
        (WAITING, None, 0),
        (DATED, None, 0),
        (DATED, "v1.2.3", 0),
        (WAITING, "v1.2.3", 1),
        (DATED, "v1.2.4", 1),
        ("# C\n\n## Unreleased\n", None, 1),
        (DATED.replace("1.2.3", "1.2.2"), None, 1),
    ],
)
def test_version_and_changelog(text: str, tag: str | None, faults: int) -> None:
    assert len(check_release.changelog(text, "1.2.3", tag)) == faults


def test_metadata() -> None:
    readme = (ROOT / "README.md").read_text()
    head = "Version: 1.2.3\nDescription-Content-Type: text/markdown\nLicense-File: LICENSE-APACHE\n"
    good = f"{head}License-File: LICENSE-MIT\n\n{readme}"
    assert check_release.metadata(Parser().parsestr(good), "1.2.3") == []
    assert len(check_release.metadata(Parser().parsestr(good), "1.2.4")) == 1
    assert len(check_release.metadata(Parser().parsestr(f"{head}\nanother text"), "1.2.3")) == 2
