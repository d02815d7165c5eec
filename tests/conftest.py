"""Fixtures of all test files."""

import pytest
from helpers import SCRIPTS


@pytest.fixture(params=SCRIPTS)
def script(request) -> str:
    """Each script's name in turn."""
    return request.param
