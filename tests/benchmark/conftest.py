"""Fixtures of the tests of reports."""

import pytest
from fake_runs import EVENT_FILE, write_job, write_run

from benchmark import page, plots


@pytest.fixture
def figures(request, monkeypatch) -> dict[str, dict]:
    """The specifications of the figures that were made, by stem. They are drawn, and the code
    that draws is put into the page, only where a test asks for it: by `drawn` for both, by
    `live` for the latter."""
    made, save = {}, plots.save
    drawn, live = (name in request.fixturenames for name in ("drawn", "live"))

    def keep(spec, stem):
        made[stem.name] = spec
        if drawn:
            save(spec, stem)

    monkeypatch.setattr(plots, "save", keep)
    if not drawn and not live:
        monkeypatch.setattr(page, "bundle", lambda: "")
    return made


@pytest.fixture
def drawn():
    """Asks for figures as files, and in the page."""


@pytest.fixture
def live():
    """Asks for figures in the page alone."""


@pytest.fixture
def mixed(tmp_path):
    """A folder with good runs, a failed one, an unfinished one, a corrupt event file, and two
    foreign folders."""
    root = tmp_path / "runs"
    for seed in (1, 2, 3):
        write_job(root, "good", "CartPole-v1", seed, final_return=480 + seed)
        write_job(root, "bad", "CartPole-v1", seed, final_return=100 + seed)
        write_job(root, "good", "Pendulum-v1", seed, final_return=-200, score_range=None)
    write_job(root, "good", "CartPole-v1", 4, "failed", "killed by SIGKILL")
    write_job(root, "bad", "CartPole-v1", 4, "running")
    events = root / "CartPole-v1__bad__2" / "run" / EVENT_FILE
    content = bytearray(events.read_bytes())
    content[len(content) // 2] ^= 255
    events.write_bytes(content)
    write_run(root / "by-hand" / "deep" / "a-run", "good", "CartPole-v1", 9, final_return=490)
    (root / "other").mkdir()
    (root / "other" / "args.json").write_text('{"env": "CartPole-v1"}')
    (root / "foreign").mkdir()
    (root / "foreign" / EVENT_FILE).write_bytes(events.read_bytes())
    return root
