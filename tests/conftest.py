"""How many random problems are drawn (STRIATE_TEST_PROFILE is usual or thorough), and what test files share."""

import os
from collections.abc import Iterator

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
