"""Does the check of a release find what it should?"""

from __future__ import annotations

import sys
import zipfile
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


def test_wheel(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    head = "Version: 1.2.3\nDescription-Content-Type: text/markdown; charset=UTF-8\n"
    licences = "License-File: LICENSE-APACHE\nLicense-File: LICENSE-MIT\n"
    members = {
        "striate/py.typed": "",
        "striate/_core.pyi": "",
        "striate/_core.abi3.so": "",
        "striate-1.2.3.dist-info/METADATA": f"{head}{licences}\n{readme}",
        "striate-1.2.3.dist-info/entry_points.txt": "[console_scripts]\nstriate = striate.bench.cli:main\n",
    }

    def faults(name: str, without: str = "") -> list[str]:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as wheel:
            for member, text in members.items():
                if member != without:
                    wheel.writestr(member, text)
        return check_release.shipped(path, "1.2.3")

    good = "striate-1.2.3-cp310-abi3-manylinux_2_28_x86_64.whl"
    assert faults(good) == []
    assert faults(good.replace("abi3", "cp310")) == ["is no wheel of the stable ABI"]
    assert faults(good, "striate/py.typed") == ["lacks striate/py.typed"]
    assert faults(good, "striate/_core.abi3.so") == ["expected one extension, got []"]
    (fault,) = faults(good, "striate-1.2.3.dist-info/METADATA")
    assert "METADATA" in fault
