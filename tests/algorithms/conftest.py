"""The fixture of the tests of the scripts, and a setting."""

import pytest
from helpers import SCRIPTS
from tensorboard.summary.writer import event_file_writer

# The names of event files end with their number in the process. TensorBoard reads those of one
# second in the order of their names, and 100 comes before 99.
event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)


@pytest.fixture(params=SCRIPTS)
def script(request) -> str:
    """Each script's name in turn, unless the test names some itself."""
    return request.param
