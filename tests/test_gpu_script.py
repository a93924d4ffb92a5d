"""The command for machines with a CUDA device, on a machine without: it says what it skips, and counts what fails."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "bench" / "gpu.sh"
# Claims a device, fails the tests and whatever it is asked to install.
PRETENDER = """#!/bin/sh
case "$1 $2" in
-c*) echo "Pretended GPU 9000" ;;
"-m pytest" | "-m pip") echo no; exit 1 ;;
esac
"""


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *words], env=os.environ | variables, capture_output=True, text=True, timeout=120
    )


def test_a_dry_run_skips_every_step(tmp_path: Path) -> None:
    found = run("--dry-run", PYTHON=sys.executable, OUT=str(tmp_path / "none"))
    lines = found.stdout.splitlines()
    assert found.returncode == 0 and len(lines) > 10, found.stderr
    assert all(line.split()[1] == "SKIPPED" and line.endswith("dry run") for line in lines)
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_nothing_runs_and_nothing_fails() -> None:
    found = run(PYTHON=sys.executable)
    assert found.returncode == 0
    assert all(line.endswith("no CUDA device") for line in found.stdout.splitlines())


def test_steps_that_fail_are_counted_and_told(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PRETENDER)
    python.chmod(0o755)
    found = run("--quick", "some.whl", PYTHON=str(python), OUT=str(tmp_path / "out"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    status = {step["step"]: step["status"] for step in summary["steps"]}
    assert summary["device"] == "Pretended GPU 9000" and summary["wheel"] == "some.whl"
    failed = [name for name, what in status.items() if what == "FAILED"]
    assert found.returncode == len(failed) and {"install", "tests"} <= {*failed}
    assert status["info"] == status["goals-bf16"] == status["rivals"] == "passed"
    assert (tmp_path / "out" / "logs" / "tests.txt").read_text() == "no\n"


def test_steps_are_chosen_bounded_and_packed(tmp_path: Path) -> None:
    python, out = tmp_path / "python", tmp_path / "out"
    python.write_text(PRETENDER.replace("exit 1", "sleep 30"))
    python.chmod(0o755)
    found = run(
        "--within=7", "--pack", "--only=^(install|rivals|info)$", "some.whl", PYTHON=str(python), OUT=str(out)
    )
    summary = json.loads((out / "summary.json").read_text())
    status = {step["step"]: step["status"] for step in summary["steps"]}
    assert status == {"install": "FAILED", "info": "SKIPPED", "rivals": "SKIPPED"} and found.returncode == 1
    assert {file.name for file in out.iterdir()} == {"summary.json", "records.tar.gz"}


def test_goals_stand_beside_figures() -> None:
    spec = importlib.util.spec_from_file_location("gpu_rivals", ROOT / "bench" / "gpu_rivals.py")
    assert spec is not None and spec.loader is not None
    rivals = importlib.util.module_from_spec(spec)
    sys.modules["gpu_rivals"] = rivals
    spec.loader.exec_module(rivals)
    assert all(case.goals for case in rivals.CASES)
    goals, ratios = {"best": 3, "copy": 0.8, "torch.rfft": 2}, {"torch": 9.0, "compiled": 2.5, "copy": 0.9}
    judged = [*rivals.judged(goals, ratios)]
    assert [goal["measured"] for goal in judged] == [2.5, 0.9, None]
    assert [goal["reached"] for goal in judged] == [False, True, None]
    lines = [*rivals.table([{"case": "x"}, {"case": "k7x7", "goals": judged}])]
    assert [line.split()[-1] for line in lines] == ["missed", "reached", "measured"]


def test_three_parts_are_all_of_it() -> None:
    def steps(*words: str) -> list[str]:
        return [
            line.split()[0] for line in run("--dry-run", *words, PYTHON=sys.executable).stdout.splitlines()
        ]

    parts = [steps(f"--part={number}") for number in (1, 2, 3)]
    assert all(part[0] == "install" for part in parts)  # each may find a machine without
    assert sorted(sum((part[1:] for part in parts), ["install"])) == sorted(steps())


def test_a_part_has_a_folder_of_its_own(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PRETENDER)
    python.chmod(0o755)
    run("--part=1", "some.whl", PYTHON=str(python), OUT=str(tmp_path / "out"))
    found = {
        str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()
    }
    assert found == {"part1/summary.json", "part1/records.tar.gz"}


def test_unknown_options_are_refused() -> None:
    assert run("--fast").returncode == 2 and run("--part=4").returncode == 2


def test_shellcheck_has_nothing_to_say() -> None:
    tool = shutil.which("shellcheck")
    if tool is None:
        pytest.skip("no shellcheck")
    assert not subprocess.run([tool, str(SCRIPT)], capture_output=True, text=True).stdout


def test_rivals_are_skipped_without_a_device(tmp_path: Path) -> None:
    kept = tmp_path / "rivals.jsonl"
    command = [sys.executable, str(ROOT / "bench" / "gpu_rivals.py"), "--json", str(kept)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=120)
    first, *records = map(json.loads, kept.read_text().splitlines())
    assert first["kind"] == "environment" and first["device"] is None
    assert len(records) > 5 and {record["status"] for record in records} == {"SKIPPED"}
