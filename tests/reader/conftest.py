"""One browser for all tests of a worker. Debian's chromium is found on the path. Without one
these tests skip; but if REQUIRE_BROWSER is set, as .ci/run does, its absence is a failure."""

import os

import pytest

from tools.record import CHROMIUM, FLAGS

PATIENCE = 180_000  # milliseconds; generous, as the machine may be busy


@pytest.fixture(scope="session")
def browser():
    if not os.environ.get("REQUIRE_BROWSER"):
        pytest.importorskip("playwright", reason="there is no playwright")
        if CHROMIUM is None:
            pytest.skip("there is no chromium")
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "REQUIRE_BROWSER is set, and there is no chromium"
    with sync_playwright() as playwright:
        # Its profile is an empty folder of its own, which playwright makes.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser):
    """new_page(**options) -> a page in a context of its own; no page may have complained."""
    contexts, complaints = [], []

    def opened(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
