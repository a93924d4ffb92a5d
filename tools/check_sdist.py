"""Build the sdist, then a wheel from nothing but the unpacked sdist, and compare what the wheel holds.

    python tools/check_sdist.py

Kernels written as text under cuda/ are compiled into the library, and the workspace spans several
folders, so a file that is missing from the sdist shows only here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = (
    "Cargo.toml",
    "Cargo.lock",
    "pyproject.toml",
    "README.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "PKG-INFO",
)
UNWANTED = (".so", ".pyc", ".o", ".a", ".rlib")


def tracked(*folders: str) -> set[str]:
    """Files under the folders that the project keeps, as paths from the root."""
    command = ["git", "-C", str(ROOT), "ls-files", "--", *folders]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def maturin(*arguments: str, cwd: Path) -> None:
    """Run maturin; a target folder of its own lets a second run reuse compiled dependencies."""
    # What is looked for is a missing file, and optimised code would only show it later.
    quick = {"CARGO_PROFILE_DEV_OPT_LEVEL": "0", "CARGO_PROFILE_DEV_DEBUG": "0"}
    environment = {**os.environ, **quick, "CARGO_TARGET_DIR": str(ROOT / "target" / "sdist")}
    subprocess.run([sys.executable, "-m", "maturin", *arguments], check=True, cwd=cwd, env=environment)


def main() -> int:
    faults = []
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        maturin("sdist", "--out", str(scratch / "dist"), cwd=ROOT)
        (archive,) = (scratch / "dist").glob("*.tar.gz")
        (ROOT / "dist").mkdir(exist_ok=True)
        shutil.copy(archive, ROOT / "dist")  # what is checked is what is released
        with tarfile.open(archive) as tar:
            tar.extractall(scratch / "source", filter="data")
        (source,) = (scratch / "source").iterdir()
        inside = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
        wanted = {*REQUIRED, *tracked("cuda", "include", "rust", "python")}
        faults += [f"missing from the sdist: {name}" for name in sorted(wanted - inside)]
        faults += [
            f"does not belong into the sdist: {name}" for name in sorted(inside) if name.endswith(UNWANTED)
        ]

        maturin("build", "--locked", "--out", str(scratch / "dist"), cwd=source)
        (wheel,) = (scratch / "dist").glob("*.whl")
        with zipfile.ZipFile(wheel) as zipped:
            shipped = set(zipped.namelist())
        package = {name.removeprefix("python/") for name in tracked("python/striate")} | {
            "striate/_core.abi3.so"
        }
        faults += [f"missing from the wheel: {name}" for name in sorted(package - shipped)]
        for licence in ("LICENSE-APACHE", "LICENSE-MIT"):
            if not any(name.endswith(f".dist-info/licenses/{licence}") for name in shipped):
                faults.append(f"missing from the wheel: {licence}")
        print(f"{archive.name}: {len(inside)} files; {wheel.name}: {len(shipped)} files")
    for fault in faults:
        print(fault)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
