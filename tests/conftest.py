"""How many random problems are drawn (STRIATE_TEST_PROFILE is usual or thorough), and what test files share."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings

# No deadline: a busy machine is not a bug. In CI the same problems are drawn in every run.
in_ci = bool(os.environ.get("CI"))
settings.register_profile("usual", max_examples=50, deadline=None, print_blob=True, derandomize=in_ci)
settings.register_profile("thorough", max_examples=5000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("STRIATE_TEST_PROFILE", "usual"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For problems so small that threads only get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rows_on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA rows of operations run, on the host, and nothing else does."""
    from cuda_recipe import call_on_host
    from striate import _call

    def ran(op: str, *rest: Any) -> bool:
        assert call_on_host(op, *rest), op
        return True

    monkeypatch.setenv("STRIATE_CUDA", "1")
    monkeypatch.setattr(_call, "on_device", ran)


@pytest.fixture
def own_rows(rows_on_host: None) -> Iterator[Any]:
    """The same under public functions: the mode that sends them there, which counts the operators that ran."""
    from cuda_emulated import EmulatedCuda

    with EmulatedCuda() as mode:
        yield mode
