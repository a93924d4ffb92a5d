"""Does every example run? Each in its short mode, as a user would start it, in a folder of its own."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Options of the short mode, and a package that an example needs besides what the tests need.
SHORT = {
    "accelerate_timm.py": (["--batch", "1", "--seconds", "0.2", "mobilenetv2_100"], "timm"),
    "denoise.py": (["--quick"], "skimage"),
    "learn_spacings.py": (["--quick"], None),
    "long_sequence.py": (["--quick"], None),
    "serve_causal.py": (["--quick"], None),
    "train_digits.py": (["--quick"], "sklearn"),
}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, package = SHORT[name]  # a new example is entered above
    if package is not None:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *options])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    code: object = None
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    except SystemExit as end:
        code = end.code
    finally:
        torch.set_num_threads(threads)
    assert not code
    assert capsys.readouterr().out.count("\n") >= 2, "an example prints what it found"
