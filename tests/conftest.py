"""How many random problems are drawn: STRIATE_TEST_PROFILE is usual or thorough."""

import os

from hypothesis import settings

# No deadline: a busy machine is not a bug. In CI the same problems are drawn in every run.
in_ci = bool(os.environ.get("CI"))
settings.register_profile("usual", max_examples=50, deadline=None, print_blob=True, derandomize=in_ci)
settings.register_profile("thorough", max_examples=5000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("STRIATE_TEST_PROFILE", "usual"))
