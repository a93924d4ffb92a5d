"""Does every operation have its rows on CUDA devices, and are those that run torch's operators right?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from oracle import integers
from strategies import F32, F64, host_rows
from striate import _call, _core
from striate._listen import listening
from striate._rows import TorchRow, torch_rows


def planes(*shape: int) -> Tensor:
    return integers(shape, F64, 64)


# Arguments as the dispatcher's operator has them; channels whose planes are odd and even.
CALLS: dict[str, Any] = {
    "channel_sum": (torch.ops.striate.channel_sum, [(integers((3, 5, 4, 7), F32, 84), True)]),
    "copy": (_call.dense, [(integers((4, 6), F32, 1).t(),)]),
    "filter_planes": (
        torch.ops.striate.filter_planes,
        [(planes(2, 3, 6, width), planes(3, 6, width // 2 + 1, 2), width == 7) for width in (7, 8)],
    ),
    "filter_planes_grad": (
        torch.ops.striate.filter_planes_grad,
        [(planes(2, 3, 6, width), planes(2, 3, 6, width).flip(0)) for width in (7, 8)],
    ),
}  # fmt: skip
every_row = pytest.mark.parametrize("row", torch_rows, ids=lambda row: row.op)


def test_every_operation_has_rows_on_devices() -> None:
    table = striate.kernels()
    host = {row["op"] for row in table if row["device"] == "cpu"}
    own = {row["op"] for row in table if row["device"] == "cuda" and row["name"] != "torch"}
    left = [row.op for row in torch_rows]
    assert host == own | {*left} and not own & {*left} and len(left) == len({*left})
    entries = [row for row in table if row["name"] == "torch"]
    assert [row["op"] for row in entries] == left
    for row in entries:
        assert row["device"] == "cuda" and row["note"] and row["dtypes"] == host_rows(row["op"])[0]["dtypes"]


@every_row
def test_they_do_what_the_definition_does(row: TorchRow) -> None:
    """The function that the device runs, on host tensors; equal bits where no transform rounds."""
    op, calls = CALLS[row.op]
    for given in calls:
        _core.set_kernels(rf"^{row.op}\.reference$")
        try:
            right = op(*given)
        finally:
            _core.set_kernels(None)
        got = row.run(*given)
        assert got.shape == right.shape and got.dtype == right.dtype and got.stride() == right.stride()
        if row.op.startswith("filter"):
            assert (got - right).abs().max() <= 1e-13 * right.abs().max()
        else:
            assert torch.equal(got, right)


@every_row
def test_the_dispatcher_runs_them_and_listeners_hear_it(
    row: TorchRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    op, ((*given,), *_) = CALLS[row.op]
    if row.op == "copy":
        given = [given[0].to("meta")]
        monkeypatch.setattr(_call, "_HOME", 0)  # a forked child copies host tensors itself, and no others

    with listening() as heard:
        if row.op == "copy":
            made = op(*given)
            assert made.is_meta and made.is_contiguous()
        else:
            op.default.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *given)
    assert heard.to_torch == [f"{row.op}: {row.note}"]
