"""The benchmark: does it count, verify, time and record what it says?"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import oracle
from striate import _core
from striate.bench import cli, goals, records, report, roofline, runner, store, work
from striate.bench.child import Child, Remote
from striate.bench.contenders import VS, rival, rivals
from striate.bench.operands import make_operands
from striate.bench.problems import PASSES, STEP, Entry, Problem, families, load, parse
from striate.bench.specs import SPEC_PASSES
from striate.bench.timing import Timing, race
from striate.bench.verify import difference, verify

TINY = (
    "conv fwd f32 nchw cpu n2 g19 ci1 co1 i13x17 k5x7 s1x1 d1x1 p2+2x3+3",
    "conv fwd f32 nhwc cpu n2 g19 ci1 co1 i13x17 k5x7 s2x3 d2x1 p2+2x3+3",
    "conv fwd f32 nchw cpu n2 g19 ci1 co1 i13x17 k4x7 s2x3 d2x1 p2+1x3+0",
    "conv fwd f32 nchw cpu n2 g19 ci1 co1 i50 k4 s1 d3 p9+0",
    "conv fwd f64 nhwc cpu n2 g19 ci1 co1 i50 k4 s1 d1 p3+0",
    "conv fwd f32 nchw cpu n2 g8 ci1 co1 i5x6x7 k3x3x3 s1x1x1 d1x1x1 p1+1x1+1x1+1",
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path_factory):
    """Threads as they were, and a cache folder of the tests' own; rates that were measured once are kept."""
    monkeypatch.setenv(store.VARIABLE, str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(roofline, "_SECONDS", 0.002)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("family", families())
def test_problem_files_survive_the_round_trip(family):
    entries = load(family)
    assert entries
    for entry in entries:
        convolution = isinstance(entry.problem, Problem)
        for pass_ in (*PASSES, STEP) if convolution else SPEC_PASSES:
            line = str(entry.problem.of(pass_))
            if pass_ in PASSES and convolution:
                assert _core.explain(line)["problem"] == line
            assert str(parse(line)) == line
            assert parse(line) == entry.problem.of(pass_)


def test_every_goal_names_a_case():
    labels = [entry.label for entry in load("goals")]
    assert len(set(labels)) == len(labels)
    assert {goal.case for goal in goals.GOALS} <= set(labels)


def test_the_problem_folder_of_the_repository_is_that_of_the_package():
    folder = Path(__file__).parents[1] / "bench" / "problems"
    assert sorted(path.stem for path in folder.glob("*.txt")) == families()


def meetings(problem: Problem) -> int:
    """(output, tap) pairs that meet real input, one by one."""
    count = 1
    axes = zip(
        problem.output,
        problem.kernel,
        problem.size,
        problem.stride,
        problem.dilation,
        problem.pads,
        strict=True,
    )
    for output, kernel, size, stride, dilation, (low, _) in axes:
        pairs = itertools.product(range(output), range(kernel))
        count *= sum(0 <= o * stride + k * dilation - low < size for o, k in pairs)
    return count


@pytest.mark.parametrize("line", [*TINY, "conv fwd f32 nchw cpu n1 g3 ci2 co4 i9x8 k3x2 s4x1 d1x3 p-1+2x5+5"])
def test_macs_are_counted_one_by_one(line):
    problem = Problem.parse(line)
    channels = problem.batch * problem.groups * problem.c_in * problem.c_out
    assert [problem.of(pass_).macs for pass_ in PASSES] == [meetings(problem) * channels] * 3


def test_bytes_and_shapes():
    problem = Problem.parse("conv fwd bf16:f32 nchw cpu n2 g3 ci1 co2 i9 k3 s2 d1 p1+1")
    assert problem.shapes == {"x": (2, 3, 9), "w": (6, 1, 3), "g": (2, 6, 5)}
    assert problem.bytes == 2 * 54 + 4 * 18 + 2 * 60
    assert [problem.of(pass_).terms for pass_ in PASSES] == [3, 6, 10]
    step = problem.of(STEP)
    assert (step.macs, step.bytes) == (3 * problem.macs, 3 * problem.bytes)
    assert str(Problem.parse(str(step).replace(" cpu ", " cuda "))) == str(step.on("cuda"))


@pytest.mark.parametrize("pass_", [*PASSES, STEP])
@pytest.mark.parametrize("line", TINY)
def test_all_contenders_compute_the_same(line, pass_):
    problem = Problem.parse(line).of(pass_)
    operands = make_operands(problem)
    assert verify(operands, (1, 2)) == ""
    for name in rivals(problem, tuple(word for word in VS if word != "compile")):
        result = rival(name, operands)()
        results = list(result) if pass_ == STEP else [result]
        results = [part.squeeze(2) if part.dim() == problem.rank + 3 else part for part in results]
        results = [part.round() if name.endswith(".fft") else part for part in results]
        assert difference(tuple(results) if pass_ == STEP else results[0], operands) == "", name


def test_operands_are_the_oracles():
    operands = make_operands(Problem.parse(TINY[2]))
    problem = operands.problem
    convolution = oracle.Convolution(problem.stride, problem.pads, problem.dilation, problem.groups)
    oracle.assert_equal(rival("torch", operands)(), convolution.forward(operands.x, operands.w))
    assert operands.x.unique().numel() > 10


def test_a_wrong_result_is_noticed():
    operands = make_operands(Problem.parse(TINY[0]))
    right = rival("torch", operands)()
    for change in (
        lambda y: y[0, 18, 12, 16].add_(1),
        lambda y: y[1, 0].fill_(torch.nan),
        lambda y: y[:, :8].roll(1, 1),
    ):
        wrong = right.clone()
        changed = change(wrong)
        if changed.shape == wrong[:, :8].shape:
            wrong[:, :8] = changed
        assert "differ from float64" in difference(wrong, operands)
    assert "shape" in difference(right[..., :-1], operands)


def test_a_row_that_fails_has_no_time(monkeypatch, capsys):
    monkeypatch.setattr(work, "verify", lambda operands, threads: "1 of 9 elements differ")
    assert cli.main(["bench", "--threads", "1", *TINY[3].split()]) == 1
    output = capsys.readouterr().out
    assert "FAILED" in output
    assert "1 FAILED" in output


def test_nothing_is_timed_before_memory_is_given_back(monkeypatch):
    order = []
    timed = runner.race
    monkeypatch.setattr(runner.peak, "settle", lambda: order.append("settle"))
    monkeypatch.setattr(runner, "race", lambda *given: order.append("race") or timed(*given))
    assert cli.main(["bench", "--threads", "1", "--seconds", "0.1", *TINY[3].split()]) == 0
    assert order == ["settle", "race"]


class Sleeper:
    def __init__(self, seconds):
        self.seconds, self.order = seconds, []

    def sample(self, calls, together):
        self.order.append(time.perf_counter())
        time.sleep(self.seconds)
        return [self.seconds] * (1 if together else calls)


def test_contenders_take_turns():
    first, second = Sleeper(0.001), Sleeper(0.002)
    timings = race({"a": first, "b": second}, budget=0.05)
    assert timings["a"].median == 0.001
    assert len(timings["b"].rounds) >= 3
    turns = sorted([(t, "a") for t in first.order] + [(t, "b") for t in second.order])
    names = "".join(name for _, name in turns)
    assert "aaaa" not in names[: 2 * len(second.order)]


def test_a_contender_that_fails_keeps_its_reason():
    def broken():
        raise RuntimeError("no such kernel\nstack")

    from striate.bench.timing import Local

    timing = race({"a": Local(broken)}, 0.01)["a"]
    assert timing.record() == {"fault": "no such kernel"}
    assert "fault" not in Timing([0.5]).record()


def test_a_baseline_that_does_not_return_is_left_behind():
    child = Child(limit=0.0)
    try:
        timing = race({"torch": Remote(child, TINY[0].replace("f32", "bf16"), "torch", 1)}, 0.1)["torch"]
        assert timing.fault == "> 0 s"
        with pytest.raises(TimeoutError, match="> 0 s"):
            Remote(child, TINY[0].replace("f32", "bf16"), "torch", 2).sample(1, together=False)
    finally:
        child.close()


def test_bench_writes_records(tmp_path, capsys):
    problems = tmp_path / "two.txt"
    problems.write_text(f"# two problems\n{TINY[0]}  # first\n\n{TINY[3].replace('f32', 'bf16')}  # second\n")
    out = tmp_path / "record" / "two.jsonl"
    assert cli.main(["bench", str(problems), "--threads", "1", "--pass", "fwd,dw", "--json", str(out)]) == 0
    found = records.read(out)
    assert [r["kind"] for r in found] == ["environment", "case", "case", "case", "case", "end"]
    assert {r["schema"] for r in found} == {2}
    assert found[0]["command"] == f"striate bench {problems} --threads 1 --pass fwd,dw"
    assert found[0]["roofline"][0]["peak_f32"] > found[0]["roofline"][0]["copy"] > 0
    assert [(r["label"], r["pass"]) for r in found[1:5]] == list(
        itertools.product(["first", "second"], ["fwd", "dw"])
    )
    for case in found[1:5]:
        assert case["fault"] == ""
        assert case["row"] == _core.explain(case["problem"])["row"]
        assert (case["device"], case["buffers"]) == ("cpu", "warm")
        striate, torch_ = case["times"]["striate"], case["times"]["torch"]
        assert len(striate["samples"]) == striate["rounds"]
        assert torch.tensor(striate["samples"]).median() <= striate["median"] * 1.001
        assert 0 < striate["min"] <= striate["median"]
        assert case["ratio_default"] == pytest.approx(torch_["median"] / striate["median"])
        assert case["gflops"] == pytest.approx(2e-9 * case["macs"] / striate["median"])
        assert case["roof"]["share"] == pytest.approx(case["roof"]["seconds"] / striate["median"])
    output = capsys.readouterr().out
    assert "4 cases" in output
    assert "all verified" in output


def test_records_of_another_format_are_refused(tmp_path):
    (tmp_path / "old.jsonl").write_text(json.dumps({"schema": 0}) + "\n")
    with pytest.raises(ValueError, match="schema"):
        records.read(tmp_path / "old.jsonl")


def case(label, pass_, threads, share=0.5, **times):
    """A record as the runner makes it, with times in seconds."""
    problem = next(e.problem for e in load("goals") if e.label == label).of(pass_)
    timings = {name.replace("__", "."): Timing([seconds]) for name, seconds in times.items()}
    measured = work.Convolution(Entry("goals", label, problem), make_operands(problem))
    result = runner.record(measured, threads, "", timings)
    result["roof"]["share"] = share
    return result


def test_goals_are_judged():
    found = list(
        goals.verdicts(
            [
                case("dw7", "dw", 2, striate=0.001, torch=0.03, torch__channels_last=0.005),
                case("dw31", "fwd", 2, share=0.9, striate=0.001, torch=0.03, torch__channels_last=0.001),
                {"kind": "overhead", "mode": "no grad", "threads": 1, "times": {"striate": {"median": 2e-6}}},
            ]
        )
    )
    assert [(g["goal"], g["verdict"]) for g in found] == [
        (">= 25 x torch", "reached"),
        (">= 7 x channels_last torch", "missed"),
        (">= 40 x torch", "beyond the roofline"),
        (">= 0.8 x channels_last torch", "reached"),
        ("<= 2.5 us", "reached"),
    ]


def test_a_goal_against_our_own_f32():
    slow, fast = (
        case("dw7", "dx", 1, striate=0.002, torch=0.01),
        case("dw7 bf16", "dx", 1, striate=0.001, torch=0.01),
    )
    found = [g for g in goals.verdicts([slow, fast]) if "our own" in g["goal"]]
    assert [(g["measured"], g["verdict"]) for g in found] == [(2.0, "reached")]


def test_roof_is_the_larger_bound(monkeypatch):
    monkeypatch.setattr(roofline, "peak", lambda threads, dtype, device: 1e11)
    monkeypatch.setattr(roofline, "copy_bandwidth", lambda threads, size, device: 2e10)
    problem = Problem.parse("conv fwd f32 nchw cpu n1 g8 ci1 co1 i64x64 k1x1 s1x1 d1x1 p0+0x0+0")
    assert roofline.bound((problem.macs, problem.bytes), problem.dtype, 1)["bound"] == "memory"
    large = replace(problem, kernel=(63, 63), pads=((31, 31), (31, 31)))
    assert roofline.bound((large.macs, large.bytes), large.dtype, 1)["bound"] == "compute"
    assert roofline.copy_size(10**12) == roofline.REFERENCE_BYTES


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["bench", "nope"], "expected a family"),
        (["bench", "conv", "sideways"], "pass"),
        (["bench", "--pass", "up"], "expected some of fwd,dx,dw"),
        (["bench", "--dtype", "f8"], "dtype"),
        (["bench", "--threads", "0"], "expected numbers of 1 to 1024, or all"),
        (["bench", "--vs", "cublas"], "vs: expected some of torch,channels_last"),
        (["bench", "--preset", "slow"], "preset"),
        (["explain", "conv fwd f32"], "layout"),
        (["bench", "--device", "tpu"], "device: expected some of cpu,cuda, got 'tpu'"),
        (["bench", "--busy", "never"], "--busy"),
        (["bench", "--seconds", "-1"], "--seconds: seconds: expected a positive number, got '-1'"),
        (["bench", "pool", "--pass", "dx"], "--pass: none of these problems has the pass dx"),
        (["bench", "--zoo", "resnet1"], "got 'resnet1'; close: resnet"),
        (["bench", "max_pool2 fwd f32 nchw cpu n1 c1 i4x4 k3x3"], "do you mean max_pool2d?"),
        (["bench", "max_pool2d fwd f32 nchw cpu n1 c1 i4x4"], "expected sizes n c i k"),
        (
            ["bench", "max_pool2d dw f32 nchw cpu n1 c1 i4x4 k3x3"],
            "pass: expected one of fwd, fwdbwd, got 'dw'",
        ),
        (["bench", "max_pool2d fwd f32 nchw cpu n1 c1 i4 k3x3"], "expected 2 sizes behind i and k"),
        (["check", "--rows", "("], "--rows: expected a regular expression"),
        (["check", "--rows", "gpu9"], "--rows: no row matches 'gpu9'"),
        (["cache", "ls", "pool"], "WHAT: expected nothing behind ls"),
        (["compare", "nowhere.jsonl"], "nowhere.jsonl: expected a record"),
        (["compare", "a", "b", "--tolerance", "2"], "expected a fraction such as 0.05 or 5%, got '2'"),
        (["plot", "pie", "--record", "a", "--out", "b.svg"], "KIND"),
        (["plot", "gap", "--record", "a", "--out", "b.bmp"], "--out: expected a name that ends in .svg"),
        (["roofline", "--threads", "many"], "expected numbers of 1 to 1024, or all"),
        ([], "command"),
    ],
)
def test_bad_arguments_are_explained(words, text, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(words)
    assert error.value.code == 2
    assert text in capsys.readouterr().err


def test_a_bad_line_in_a_file_is_named(tmp_path):
    file = tmp_path / "bad.txt"
    file.write_text("# nothing\nconv fwd f32 nchw cpu n1\n")
    with pytest.raises(ValueError, match="bad line 2"):
        load(str(file))


def test_explain_and_info(capsys):
    assert cli.main(["explain", *TINY[0].split()]) == 0
    assert _core.explain(TINY[0])["row"] in capsys.readouterr().out
    assert cli.main(["info"]) == 0
    output = capsys.readouterr().out
    assert all(row["name"] in output for row in _core.kernels())


def test_tables_are_plain_without_rich(monkeypatch, capsys):
    table = report.Table("title", ("<name", "number"), [("a", "1"), ("long", "22")])
    assert table.plain().splitlines() == ["title", "name  number", "a          1", "long      22"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    report.show(table)
    assert "long      22" in capsys.readouterr().out


def test_a_narrow_terminal_gets_fewer_columns():
    table = report.Table("", ("<name", "wide", "number"), [("a", "x" * 30, "1")], spare=("wide",))
    assert table.fitted(80) is table
    assert table.fitted(20).headers == ("<name", "number")


def test_a_baseline_whose_process_ends_is_reported():
    child = Child(limit=60)
    remote = Remote(child, TINY[0].replace("f32", "bf16"), "torch", 1)
    assert remote.sample(1, together=False)[0] > 0
    child._process.kill()
    child._process.wait()
    with pytest.raises(TimeoutError, match="process ended"):
        remote.sample(1, together=False)
    other = Remote(child, TINY[3].replace("f32", "f16"), "torch", 1)
    assert other.sample(2, together=False)[1] > 0
    child.close()


def test_it_is_a_module():
    command = [sys.executable, "-m", "striate.bench", "explain", *TINY[0].split(), "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "at best" in done.stdout
