"""The command line beyond the benchmark: families, comparison, pictures, the check, the cache, the doctor."""

from __future__ import annotations

import json
import math
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import striate
from striate import _core
from striate.bench import (
    cache,
    campaign,
    cli,
    compare,
    doctor,
    records,
    roofline,
    sequence,
    store,
    timing,
    work,
)
from striate.bench.families import Contest, operators
from striate.bench.interval import from_quartiles, from_rounds
from striate.bench.plot import KINDS
from striate.bench.plot.crossover import crossing
from striate.bench.problems import Entry, Problem
from striate.bench.specs import Spec

RECORDS = Path(__file__).parents[1] / "bench" / "record"
FAMILIES = (
    "max_pool2d fwd f32 nchw cpu n2 c5 i9x12 k3x5",
    "avg_pool2d fwdbwd f32 nhwc cpu n2 c19 i9x7 k3x3",
    "max_pool2d fwdbwd f64 nchw cpu n1 c3 i9x12 k3x3",
    "avg_pool1d fwd bf16 nchw cpu n1 c3 i90 k15",
    "max_pool3d fwd f16 nchw cpu n1 c2 i5x6x7 k3x3x3",
    "causal_conv1d fwdbwd f32 nchw cpu n2 c9 i23 k4",
    "causal_conv1d fwd bf16 nhwc cpu n2 c9 i23 k3",
    "causal_conv1d_update fwd f32 nchw cpu n3 c17 k4",
    "fft_conv1d fwdbwd f32 nchw cpu n2 c3 i100 k80",
    "fft_conv1d fwd f32 nchw cpu n1 c3 i600 k40",
    "fft_conv2d fwd f32 nchw cpu n2 c3 i14x14 k14x14",
    "fft_conv1d fwd bf16 nchw cpu n2 c3 i100 k80",
    "fft_conv1d fwdbwd f16 nchw cpu n2 c3 i100 k80",
    "fft_conv2d fwd bf16 nchw cpu n2 c3 i14x14 k14x14",
    "SGConv1d fwdbwd f32 nchw cpu n1 c4 i100",
    "HyenaOperator fwdbwd bf16 nchw cpu n1 c4 i64",
    "HyenaOperator fwdbwd f32 nchw cpu n1 c4 i64",
    "dcls_kernel fwdbwd f32 nchw cpu g9 m5 k7x7",
    "Dcls2d fwdbwd f32 nchw cpu n2 c3 i9x9 m5 k7x7",
    "Dcls2d_v1 fwdbwd f32 nchw cpu n2 c3 i9x9 m5 k7x7",
    "Dcls2d_max fwdbwd f32 nchw cpu n2 c3 i9x9 m5 k7x7",
    "Dcls2d_gauss fwdbwd f64 nchw cpu n2 c3 i9x9 m5 k7x7",
    "Dcls1d_update fwd f32 nchw cpu n2 c5 k7",
    "ShiftwiseConv2d fwdbwd f32 nchw cpu n2 c3 i9x9 k9",
    "CrossConv2d fwd f32 nchw cpu n2 c3 i9x40 k15",
    "InceptionDWConv2d fwdbwd f32 nchw cpu n2 c24 i9x9",
    "SMPConv2d fwdbwd f32 nchw cpu n2 c3 o3 i9x9 k7x7",
    "WeightedConv2d fwdbwd f32 nchw cpu n2 c3 o4 i9x9 k5x5",
    "GaussianComposedConv2d fwdbwd f64 nchw cpu n2 c3 o4 i9x9 k3x3",
    "GaborConv2d fwdbwd f32 nchw cpu n2 c3 o4 i9x9 k5x7",
    "ContinuousKernelConv1d fwdbwd f32 nchw cpu n2 c3 o3 i30 k21",
    "ContinuousKernelConv2d fwd f32 nchw cpu n2 c3 o3 i9x9 k5x5",
)
CONV = "conv fwd f32 nchw cpu n1 g19 ci1 co1 i9x12 k3x3 s1x1 d1x1 p1+1x1+1"


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """A cache folder of the test's own, rates that need no measuring, and threads as they were."""
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(roofline, "_SECONDS", 0.002)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------ families


@pytest.mark.parametrize("line", FAMILIES)
def test_every_contender_of_a_family_computes_the_same(line):
    spec = Spec.parse(line)
    measured = work.Calls(Entry("line", "", spec), spec)
    assert measured.verify((1,)) == ""
    assert measured.macs > 0 or spec["k"] == (1, 1)
    assert measured.bytes >= sum(tensor.nbytes for tensor in measured.contest.inputs)
    exact = work._parts(
        measured._call(measured.contest.reference, [t.double() for t in measured.contest.inputs])()
    )
    # torch rounds half types at every step, where striate rounds once.
    limit = max(measured.contest.limit, 0.02 if spec.dtype.itemsize < 4 else 1e-4)
    for name, maker in measured.calls(()).items():
        if work.is_rival(name) or name == "striate.direct":
            assert work._apart(work._parts(maker()()), exact, limit) == "", name


def test_every_operator_of_every_family_is_tested():
    assert {line.split()[0] for line in FAMILIES} | {"avg_pool3d", "max_pool1d"} == set(operators())


def test_a_wrong_family_result_has_no_time(monkeypatch, capsys):
    make = work.make

    def wrong(spec: Spec) -> Contest:
        contest = make(spec)
        calls = dict(contest.calls) | {"striate": lambda x: contest.calls["torch"](x).mul_(1.001)}
        return Contest(calls, contest.inputs, contest.reference, contest.macs, contest.limit)

    monkeypatch.setattr(work, "make", wrong)
    assert cli.main(["bench", FAMILIES[0], "--threads", "1"]) == 1
    output = capsys.readouterr().out
    assert f"FAILED {FAMILIES[0]}: result 0 is" in output
    assert "1 FAILED" in output


def test_rows_of_a_family_are_those_that_ran():
    spec = Spec.parse(FAMILIES[1])
    measured = work.Calls(Entry("line", "", spec), spec)
    before = _core.call
    measured.verify((1,))
    assert _core.call is before
    names = {row["name"] for row in striate.kernels()}
    assert set(measured.row.split("+")) <= names
    assert measured.row.startswith("pool.")


def test_a_family_is_recorded(tmp_path, capsys):
    out = tmp_path / "family.jsonl"
    words = ["bench", FAMILIES[0], CONV, "--threads", "1", "--pass", "fwd,fwdbwd", "--seconds", "1"]
    assert (
        cli.main([*words, "--memory", "--buffers", "cold", "--vs", "torch,prealloc", "--json", str(out)]) == 0
    )
    cases = [record for record in records.read(out) if record["kind"] == "case"]
    assert [(case["pass"], case["buffers"]) for case in cases] == [("fwd", "cold"), ("fwdbwd", "cold")] * 2
    assert set(cases[0]["times"]) == {"striate", "torch", "clone"}
    assert cases[0]["best"] == "torch"
    assert "striate.prealloc" in cases[2]["times"] and cases[2]["best"] == "torch"
    assert all(size is None or size >= 0 for case in cases for size in case["peak_bytes"].values())
    conv = cases[2]["peak_bytes"]["im2col"]
    assert conv == Problem.parse(cases[2]["problem"]).im2col > 0 and "im2col" not in cases[0]["peak_bytes"]
    end = records.read(out)[-1]
    assert end["kind"] == "end" and set(end["lost"]) <= {
        "thermal_throttles",
        "cgroup_throttled_us",
        "stolen_ticks",
    }


def test_buffers_rotate():
    calls = []
    rotating = timing.Rotating([lambda: calls.append(0), lambda: calls.append(1), lambda: calls.append(2)])
    for _ in range(5):
        rotating()
    assert calls == [1, 2, 0, 1, 2]


def test_without_a_device_the_cpu_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(campaign, "cuda_status", lambda: {"available": False, "why": "none here"})
    options = Namespace(what=[CONV], goals=False, dtype=None, device=("cuda",))
    (entry,) = campaign.entries(options)
    assert entry.problem.device == "cpu"
    assert "no CUDA device here (none here): measuring on the CPU alone" in capsys.readouterr().err
    monkeypatch.setattr(campaign, "cuda_status", lambda: {"available": True})
    options.device = ("cpu", "cuda")
    assert [entry.problem.device for entry in campaign.entries(options)] == ["cpu", "cuda"]


def test_a_busy_machine_is_marked_or_refused(monkeypatch, capsys):
    monkeypatch.setattr(campaign, "others", lambda: 99.0)
    assert campaign._quiet("mark")
    assert "times are not reliable" in capsys.readouterr().err
    assert cli.main(["bench", CONV, "--busy", "refuse"]) == 3
    assert "nothing measured" in capsys.readouterr().err
    monkeypatch.setattr(campaign, "WAIT_SECONDS", 0.0)
    assert not campaign._quiet("wait")


# ------------------------------------------------------------------------------------------------ comparison


def noisy(ratio: float, rounds: int = 25, seed: int = 0, spread: float = 0.05) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return math.log(ratio) + spread * generator.standard_normal(rounds)


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(0.5, "FASTER"), (0.85, "FASTER"), (1.0, "SAME"), (1.2, "SLOWER"), (1.05, "UNSURE")],
)
def test_verdicts(ratio, verdict):
    assert from_rounds(noisy(ratio, seed=1), noisy(1.0, seed=2)).verdict(0.05) == verdict
    quartiles = {"median": ratio, "iqr": 0.05 * ratio, "rounds": 25}
    one = {"median": 1.0, "iqr": 0.05, "rounds": 25}
    assert from_quartiles([(quartiles, 1), (one, -1)]).verdict(0.05) == verdict


def test_intervals_hold_the_truth_as_often_as_they_say():
    changes = [from_rounds(noisy(1.3, seed=seed), noisy(1.0, seed=1000 + seed)) for seed in range(100)]
    held = sum(change.low <= 1.3 <= change.high for change in changes)
    assert 88 <= held < 100  # 95 of 100, less than three deviations off
    assert not any(
        from_rounds(noisy(1.0, seed=s), noisy(1.0, seed=500 + s)).verdict(0.05) == "SLOWER" for s in range(50)
    )


def test_few_rounds_are_unsure():
    change = from_rounds(noisy(3.0, rounds=4), None)
    assert change.verdict(0.05) == "UNSURE" and "4 rounds" in change.note


def write(path: Path, ratio: float, speed: float = 1.0, fault: str = "") -> Path:
    """A record of one case: striate takes ``ratio`` ms and torch 2 ms on a machine of some speed."""
    generator = np.random.default_rng(7)
    slow = speed * np.exp(0.3 * generator.standard_normal(25))  # what hits all contenders of a round alike
    times = {}
    for name, base in (("striate", ratio), ("torch", 2.0)):
        samples = (1e-3 * base * slow * np.exp(0.01 * generator.standard_normal(25))).tolist()
        times[name] = {
            "median": float(np.median(samples)),
            "min": min(samples),
            "rounds": 25,
            "samples": samples,
        }
    case = {
        "schema": 2,
        "kind": "case",
        "problem": CONV,
        "short": "3x3",
        "pass": "fwd",
        "threads": 1,
        "fault": fault,
    }
    case["times"] = {} if fault else times
    here = {"schema": 2, "kind": "environment", "cpu": "x", "torch": "2"}
    path.write_text("".join(json.dumps(line) + "\n" for line in (here, case)))
    return path


def test_compare_sees_through_a_slow_machine(tmp_path, capsys):
    old, same, slower = (
        write(tmp_path / "old.jsonl", 1.0),
        write(tmp_path / "same.jsonl", 1.0, speed=3.0),
        write(tmp_path / "slower.jsonl", 1.2, speed=0.5),
    )
    assert cli.main(["compare", str(old), str(same)]) == 0
    assert "1 SAME" in capsys.readouterr().out
    assert cli.main(["compare", str(old), str(slower)]) == 1
    assert "1 SLOWER" in capsys.readouterr().out
    assert cli.main(["compare", str(old), str(slower), "--fail-on", "never"]) == 0
    assert cli.main(["compare", str(slower), str(old), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["cases"][0]["verdict"] == "FASTER"
    assert cli.main(["compare", str(old), str(same), "--raw"]) == 1
    capsys.readouterr()
    assert cli.main(["compare", str(old)]) == 0
    assert "1 FASTER" in capsys.readouterr().out


def test_a_case_that_fails_since_is_told(tmp_path, capsys):
    old, broken = (
        write(tmp_path / "old.jsonl", 1.0),
        write(tmp_path / "new.jsonl", 1.0, fault="3 elements differ"),
    )
    assert cli.main(["compare", str(old), str(broken)]) == 1
    assert "1 FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    "record", sorted(RECORDS.rglob("*.jsonl")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_committed_records_can_be_read_and_compared(record):
    found = records.read(record)
    assert found[0]["kind"] == "environment" and found[-1]["kind"] == "end"
    timed = compare.cases(found)
    assert timed or any(line["kind"] == "sequence" for line in found)
    changes = [compare.between(case, case, "torch") for case in timed.values()]
    assert all(change is None or change.ratio == pytest.approx(1) for change in changes)


# ------------------------------------------------------------------------------------------------ pictures


def picture(kind: str, record: Path, out: Path, *more: str) -> int:
    return cli.main(["plot", kind, "--record", str(record), "--out", str(out), *more])


@pytest.mark.parametrize("kind", ["roofline", "gap", "heatmap"])
def test_pictures_of_committed_records_do_not_change(kind, tmp_path, capsys):
    record = RECORDS / "xeon-2vcpu" / "goals.jsonl"
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    assert picture(kind, record, first) == picture(kind, record, second, "--threads", "2") == 0
    texts = [re.sub(r"striate plot \w+ of \w+", "", path.read_text()) for path in (first, second)]
    assert texts[0] == texts[1]
    assert "<svg" in texts[0] and "date" not in texts[0].lower()
    assert "Intel(R) Xeon(R)" in texts[0]
    assert picture(kind, record, first, "--check") == 0
    assert picture(kind, RECORDS / "epyc-2vcpu" / "goals.jsonl", first, "--check") == 1
    assert "draw it again" in capsys.readouterr().out


def environment() -> dict:
    rates = [
        {"device": "cpu", "threads": 1, "copy": 1e10, "peak_f32": 1e11, "peak_f64": 5e10},
        {"device": "cuda", "threads": 0, "copy": 3e12, "peak_f32": 5e13, "peak_f64": 3e13},
    ]
    return {"schema": 2, "kind": "environment", "cpu": "a processor", "torch": "2", "roofline": rates}


def test_a_waterline_of_a_network(tmp_path, capsys):
    out = tmp_path / "sequence.jsonl"
    model = torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 1)),
        torch.nn.Flatten(),
        torch.nn.Linear(144, 5),
    )
    kernels, blocks = sequence.watch(model, torch.randn(2, 3, 8, 8), rounds=2)
    assert [kernel.op for kernel in kernels] == ["convolution", "relu", "convolution", "addmm"]
    assert kernels[0].flops == 2 * 2 * 4 * 36 * 27
    assert kernels[0].bytes == 4 * (2 * 3 * 64 + 4 * 27 + 4 + 2 * 4 * 36)
    assert all(len(kernel.seconds) == 2 for kernel in kernels)
    record = {
        "schema": 2, "kind": "sequence", "name": "tiny", "threads": 1, "shape": [2, 3, 8, 8], "blocks": blocks,
        "kernels": [
            {"op": k.op, "block": k.block, "flops": k.flops, "bytes": k.bytes, "median": 1e-5, "min": 1e-5}
            for k in kernels
        ],
    }  # fmt: skip
    joined = sequence.fused(record)
    assert sum(k["flops"] for k in joined) == sum(k["flops"] for k in record["kernels"])
    assert joined[0]["bytes"] == 4 * (2 * 3 * 64 + 4 * 27 + 4 + 16 + 4 + 2 * 4 * 36)
    assert sum(k["bytes"] for k in joined) < sum(k["bytes"] for k in record["kernels"])
    out.write_text("".join(json.dumps(line) + "\n" for line in (environment(), record)))
    assert picture("waterline", out, tmp_path / "tiny.svg", "--network", "tiny") == 0
    assert "every block fused" in (tmp_path / "tiny.svg").read_text()
    with pytest.raises(SystemExit):
        picture("waterline", out, tmp_path / "other.svg", "--network", "other")
    assert "holds nothing for waterline --network other" in capsys.readouterr().err


def case(line: str, device: str = "cpu", **milliseconds: float) -> dict:
    """A record of a case with times."""
    times = {
        name.replace("_", "."): {"median": 1e-3 * ms, "min": 1e-3 * ms} for name, ms in milliseconds.items()
    }
    return {
        "schema": 2, "kind": "case", "family": "crossover", "label": "", "problem": line, "short": line, "pass": "fwd",
        "dtype": "f32", "device": device, "threads": 1, "row": "r", "fault": "", "macs": 1000, "bytes": 1000,
        "times": times, "gflops": 1.0, "ratio_default": 2.0, "ratio_best": 1.0, "best": "torch",
        "roof": {"share": 0.5, "seconds": 1e-3, "peak": 1e11, "bandwidth": 1e10, "bound": "memory"},
    }  # fmt: skip


def test_a_crossover_is_found_and_drawn(tmp_path):
    line = "conv fwd f32 nchw cpu n1 g64 ci1 co1 i1024 k{} s1 d1 p1+1"
    cases = [case(line.format(k), striate=k / 100, striate_fft=1.0, torch=k / 10) for k in (7, 31, 127, 511)]
    record = tmp_path / "crossover.jsonl"
    record.write_text("".join(json.dumps(one) + "\n" for one in (environment(), *cases)))
    assert picture("crossover", record, tmp_path / "crossover.svg") == 0
    assert "transforms from 127" in (tmp_path / "crossover.svg").read_text()
    assert crossing({"direct": {7: 1, 31: 2}, "fft": {7: 3, 31: 3}}) is None


def test_devices_stand_side_by_side(tmp_path, capsys):
    cpu = case(CONV, striate=4.0, torch=8.0)
    cuda = case(CONV.replace(" cpu ", " cuda "), "cuda", striate=0.5, torch=1.0) | {
        "threads": 0,
        "short": CONV,
    }
    record = tmp_path / "both.jsonl"
    record.write_text("".join(json.dumps(one) + "\n" for one in (environment(), cpu, cuda)))
    for kind in ("devices", "roofline"):
        assert picture(kind, record, tmp_path / f"{kind}.png") == 0
    from striate.bench.report import case_table, device_table

    assert "8.00x" in device_table([cpu, cuda]).plain()
    full = {"gbps": 1.0}
    assert "<device" in case_table("", [cpu | full, cuda | full]).headers
    assert "<device" not in case_table("", [cpu | full]).headers
    with pytest.raises(SystemExit):
        picture("devices", RECORDS / "xeon-2vcpu", tmp_path / "none.svg")
    assert "striate bench quick --device cpu,cuda --json FILE" in capsys.readouterr().err


def test_every_kind_says_what_makes_its_record():
    for kind, (_, text, made) in KINDS.items():
        assert text and made.startswith("striate bench"), kind
        assert cli.parser().parse_args(made.split()[1:]).command == "bench"


# ------------------------------------------------------------------------------------------------ the others


def test_check_asks_rows_and_finds_faults(monkeypatch, capsys):
    row = next(
        r["name"] for r in striate.kernels() if r["op"] == "conv" and r["name"].startswith("depthwise.width")
    )
    assert cli.main(["check", "--rows", f"^({row}|pool.portable)$".replace(".", "[.]")]) == 0
    output = capsys.readouterr().out
    assert "2 of 2 rows were asked and are right" in output
    from striate.bench import check

    monkeypatch.setattr(check, "verify", lambda operands, threads: "9 elements differ")
    assert cli.main(["check", "--rows", f"^{re.escape(row)}$"]) == 1
    captured = capsys.readouterr()
    assert "WRONG" in captured.out and f"STRIATE_KERNELS='-^({re.escape(row)})$'" in captured.out
    assert "9 elements differ" in captured.err


def test_rates_are_kept_and_cleared(monkeypatch, capsys):
    from striate.bench import measured

    monkeypatch.setattr(store, "rates", lambda known={}: known)
    monkeypatch.setattr(roofline, "_SECONDS", 0.0)
    monkeypatch.setattr(roofline, "REFERENCE_BYTES", 1 << 16)
    monkeypatch.setattr(roofline, "last_cache", lambda: 1 << 15)
    monkeypatch.setattr(roofline, "cache_sizes", lambda: {"L1": 1 << 15, "L2": 1 << 18})
    monkeypatch.setattr(roofline, "_SIDE", dict.fromkeys(roofline._SIDE, 32))
    monkeypatch.setattr(measured, "others", lambda: 99.0)
    assert cli.main(["roofline", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "rates may be low" in captured.err and "bf16 GFLOP/s" in captured.out and "L2" in captured.out
    kept = json.loads(store.rates_file().read_text())[store.machine_key()]
    assert kept["cpu 1 peak f32"] > 0
    store.rates()["cpu 1 peak f32"] = 2 * kept["cpu 1 peak f32"]
    store.save()
    store.rates()["cpu 1 peak f32"] = 1.0
    store.save()  # a peak is a maximum
    assert (
        json.loads(store.rates_file().read_text())[store.machine_key()]["cpu 1 peak f32"]
        == 2 * kept["cpu 1 peak f32"]
    )
    assert cli.main(["cache", "ls"]) == 0
    assert "rates of this machine" in capsys.readouterr().out
    monkeypatch.setattr(store.rates, "cache_clear", lambda: None, raising=False)
    assert cli.main(["cache", "clear"]) == 0
    assert not any(entry["name"] == "rates of this machine" for entry in cache.entries())


def test_warm_says_when_there_is_nothing_to_compile(monkeypatch, capsys):
    monkeypatch.setattr(cache, "full", lambda threads, devices: [])
    monkeypatch.setattr(
        cache, "cuda_status", lambda: {"available": False, "why": "no device", "kernels": True}
    )
    assert cli.main(["cache", "warm", *CONV.split()]) == 0
    assert "nothing to compile: no device" in capsys.readouterr().out
    warmed = []
    monkeypatch.setattr(cache, "cuda_status", lambda: {"available": True, "kernels": True})
    monkeypatch.setattr(cache, "cuda_warm", lambda line: warmed.append(line) or "row")
    assert cli.main(["cache", "warm", "convnext_tiny", "pool"]) == 0
    assert warmed and all(" cuda " in line for line in warmed)


def test_the_doctor_finds_what_is_wrong(monkeypatch, capsys, tmp_path):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {each["state"] for each in found} <= {"well", "note"}
    assert all(each["fix"] for each in found if each["state"] == "note")
    (tmp_path / "file").touch()
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "file" / "below"))
    monkeypatch.setenv("STRIATE_KERNELS", "portable")
    monkeypatch.setattr(doctor, "verify", lambda operands, threads: "1 element differs")
    assert cli.main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "2 broken" in output and "STRIATE_KERNELS=portable" in output and f"set {store.VARIABLE}" in output


def test_explain_speaks_of_bounds(capsys):
    assert cli.main(["explain", *FAMILIES[0].split(), "--threads", "1"]) == 0
    output = capsys.readouterr().out
    assert "row        pool." in output and "on 1 thread, " in output
    assert cli.main(["explain", CONV.replace("fwd", "fwdbwd", 1), "--json", "--threads", "1"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["macs"] == 3 * 19 * (3 * 9 - 2) * (3 * 12 - 2)
    assert answer["bounds"][0]["seconds"] > 0


def test_help_of_every_command_shows_an_example(capsys):
    for name in cli.RUN:
        with pytest.raises(SystemExit) as left:
            cli.main([name, "--help"])
        assert left.value.code == 0
        assert f"striate {name}" in capsys.readouterr().out.split("examples:")[1]
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert striate.__version__ in capsys.readouterr().out
