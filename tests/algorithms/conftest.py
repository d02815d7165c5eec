"""The fixtures of the tests of the scripts, and a setting."""

from collections.abc import Iterator

import pytest
import torch
from helpers import SCRIPTS
from tensorboard.summary.writer import event_file_writer

# The names of event files end with their number in the process. TensorBoard reads those of one
# second in the order of their names, and 100 comes before 99.
event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)


@pytest.fixture(params=SCRIPTS)
def script(request) -> str:
    """Each script's name in turn, unless the test names some itself."""
    return request.param


@pytest.fixture
def settings_of_torch() -> Iterator[None]:
    """Other settings than torch's or the scripts' own, and back again."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
