"""CONTRIBUTING.md: it names every test file, and a script that is added by what it says passes
the checks, which complain of one that is not."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
NEW = PAGE.partition("\n## A new script\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", NEW)
COPY, ENTRY, ROW, CHECKS = (text for _, text in BLOCKS)


def test_every_test_file_is_named_and_nothing_else():
    files = {path.stem for path in ROOT.glob("tests/*/test_*.py")}
    named = re.findall(r"`(test_\w+)`", PAGE.partition("\n## Where a test belongs\n")[2])
    assert len(named) == len(set(named))
    assert set(named) == files


def test_files_and_folders_that_the_page_names_are_there():
    words = re.findall(r"`([\w./]+(?:/|\.(?:py|md|toml|html)))`", PAGE)
    assert len(words) > 10
    for word in set(words) - {"mine.py"}:
        folders = (
            "",
            "tests/algorithms/",
            "tests/benchmark/",
            "benchmark/",
            "reader/",
            "tools/",
        )
        assert any((ROOT / folder / word).exists() for folder in folders), word


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the repository, without pictures and what git ignores."""
    folder = tmp_path_factory.mktemp("copy") / "house"
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    ignore = shutil.ignore_patterns(".git", "*.png", *ignored)
    return shutil.copytree(ROOT, folder, ignore=ignore)


def run(house: Path, line: str) -> subprocess.CompletedProcess:
    """A line of the page in the copy."""
    words = shlex.split(line)
    words = [sys.executable, *words[1:]] if words[0] == "python" else words
    words += ["-n", "0", "-p", "no:cacheprovider"] if "pytest" in words else []
    return subprocess.run(words, cwd=house, capture_output=True, text=True, check=False)


def edit(path: Path, old: str, new: str) -> None:
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


def test_a_script_added_by_the_page_alone(house):
    """Copied and changed it fails; registered it passes, and is on the page and in the grid; an
    edit of shared text is seen, and mended from a sibling."""
    assert run(house, COPY.strip()).returncode == 0
    mine = house / "mine.py"
    edit(mine, '"""Proximal Policy Optimization (PPO), clipped,', '"""My algorithm')
    edit(mine, "Run: python ppo.py", "Run: python mine.py")
    bullets = re.search(r"(?s)Compared with a2c\.py:\n.*?\n\"\"\"", mine.read_text())[0]
    edit(mine, bullets, 'Compared with ppo.py:\n- another pass over each batch.\n"""')
    edit(mine, "update_epochs: int = 10", "update_epochs: int = 11")
    check, reader, smoke, tests = CHECKS.splitlines()

    assert run(house, check).returncode == 0
    result = run(house, reader)
    assert result.returncode == 2
    assert result.stderr == "error: notes.toml: there is no [[script]] for mine.py\n"
    siblings = tests.replace("tests/reader/test_reader_notes.py", "-k registered")
    result = run(house, siblings)
    assert result.returncode == 1
    places = (
        "mine.py is missing in reader/notes.toml; mine.py is missing in the ladder of README"
    )
    assert places in result.stdout

    notes, readme = house / "reader" / "notes.toml", house / "README.md"
    parent = re.search(r'(?s)\[\[script\]\]\nname = "ppo"\n.*?\n\n', notes.read_text())[0]
    edit(notes, parent, f"{parent}{ENTRY}\n")
    parent = re.search(r"(?m)^\| `ppo\.py` \|.*\n", readme.read_text())[0]
    edit(readme, parent, parent + ROW)
    for line in (check, reader, smoke, f"{tests} -k 'mine or share or registered or note'"):
        result = run(house, line)
        assert result.returncode == 0, f"{line}: {result.stdout[-2000:]} {result.stderr}"
        if line == smoke:
            assert result.stdout.count(f"{mine} --env-id CartPole-v1 ") == 2
    assert '<option value="mine">' in (house / "reader" / "index.html").read_text()

    edit(
        mine, 'class BadInput(ValueError):\n    """', 'class BadInput(ValueError):\n    """My '
    )
    result = run(house, check)
    assert result.returncode == 1
    assert result.stdout == "mine.py: BadInput differs from reinforce.py's\n"
    (line,) = re.findall(r"`(python tools/scaffold\.py --from ppo\.py)`", PAGE)
    assert run(house, line).stdout == "mine.py: BadInput\n"
    assert run(house, check).returncode == 0
