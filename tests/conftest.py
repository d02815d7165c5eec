"""Settings for all tests."""

import signal

import pytest
import torch
from hypothesis import settings

# No test may fail because the machine is busy, or by chance on one day in a hundred.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# In the background of a shell SIGINT is ignored, and the programs under test would inherit
# that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The workers share the cores; and sums on other numbers of threads have other bits."""
    torch.set_num_threads(1)
