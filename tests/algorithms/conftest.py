"""The fixture of the tests of the scripts."""

import pytest
from helpers import SCRIPTS


@pytest.fixture(params=SCRIPTS)
def script(request) -> str:
    """Each script's name in turn, unless the test names some itself."""
    return request.param
