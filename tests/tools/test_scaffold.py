"""tools/scaffold.py on small scripts made here: what it carries over and what it leaves."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from tools import scaffold

SCRIPT = '''# /// script
# dependencies = ["gymnasium"]
# ///
"""{name}.

Compared with {parent}.py:
- nothing.
"""

import {name}_only


@dataclass
class Args:
    own: int = 1  # of {name}

    # The run: the same in all.
    seed: int = 1  # a seed

    @property
    def number(self):
        return "{name}"


# ======
# Networks
# ======
# What a comment says right above
@decorator
def net(x):
    return x


def train(args):
    return "{name}"


# ======
# Scaffold: the same in all.
# ======
LIMITS = {{"{name}": 1}}
ABOUT = {{"a": 1}}
ABOUT["b"] = 2


def make_env():
    return "{kind}"


class Run:
    """A run."""

    def start(self):
        return 1


    def stop(self):  # two blank lines above this one
        return 2


if __name__ == "__main__":
    train(Args())
'''
LADDER = {"first": "none", "second": "first", "third": "second", "fourth": "third"}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Four scripts; from the third on make_env is another."""
    for name, parent in LADDER.items():
        kind = "Box" if name in ("third", "fourth") else "Discrete"
        text = SCRIPT.format(name=name, parent=parent, kind=kind)
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "setup.py").write_text("def net(x):\n    return 'no script'\n")
    monkeypatch.setattr(scaffold, "VARIANTS", {"make_env": ["third"]})
    return tmp_path


def edit(root: Path, name: str, old: str, new: str) -> None:
    path = root / f"{name}.py"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


def texts(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in root.iterdir()}


def test_nothing_differs_and_nothing_is_written(root, capsys):
    before = {path: path.stat().st_mtime_ns for path in root.iterdir()}
    assert scaffold.main(["--check"], root) == scaffold.main(["--from", "third.py"], root) == 0
    assert capsys.readouterr().out == "nothing differs\n" * 2
    assert {path: path.stat().st_mtime_ns for path in root.iterdir()} == before


@pytest.mark.parametrize(
    ("unit", "old", "new"),
    [
        ("metadata", '["gymnasium"]', '["gymnasium", "numpy"]'),
        ("flags of the run", "= 1  # a seed", "= 2  # a seed\n    other: int = 3  # one more"),
        ("banner Networks", "# Networks", "# Networks, all of them"),
        ("net", "# What a comment says", "# What another says"),
        ("net", "@decorator\n", ""),
        ("net", "    return x\n", "    y = x\n\n    return y\n"),
        ("ABOUT", 'ABOUT = {"a": 1}', 'ABOUT = {"a": 3}'),
        ("ABOUT['b']", 'ABOUT["b"] = 2', 'ABOUT["b"] = 3'),
        ("Run", '"""A run."""', '"""A longer run."""'),
        ("Run.start", "        return 1\n", "        return 3\n"),
        ("Run.stop", "        return 2\n", "        return 3\n"),
        ("main", "    train(Args())\n", "    print(train(Args()))\n"),
    ],
)  # fmt: skip
def test_an_edited_unit_is_named_and_carried_over(unit, old, new, root, capsys):
    """Into every sibling, and nothing else of them changes: order and blank lines stay."""
    before = texts(root)
    edit(root, "second", old, new)
    assert scaffold.main(["--check"], root) == 1
    assert capsys.readouterr().out == f"second.py: {unit} differs from first.py's\n"
    assert scaffold.main(["--from", "second.py"], root) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{name}.py: {unit}" for name in ("first", "third", "fourth")
    ]
    expected = {n: t if n == "setup.py" else t.replace(old, new) for n, t in before.items()}
    assert texts(root) == expected
    assert scaffold.main(["--check"], root) == 0


def test_several_units_at_once_of_other_lengths(root):
    before = texts(root)
    edits = [("    return x\n", "    y = x\n    return y\n"), ('    """A run."""\n\n', ""),
             ("        return 1\n", "        x = 1\n        return x\n")]  # fmt: skip
    for old, new in edits:
        edit(root, "second", old, new)
        before = {n: t if n == "setup.py" else t.replace(old, new) for n, t in before.items()}
    assert len(scaffold.carry(root, "second")) == 9
    assert texts(root) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("own: int = 1", "own: int = 2"),
        ('return "second"\n\n\n# ======\n# Sc', 'return "more"\n\n\n# ======\n# Sc'),
        ('LIMITS = {"second": 1}', 'LIMITS = {"second": 2}'),
        ("import second_only", "import math"),
        ("- nothing.", "- a difference."),
    ],
)
def test_what_is_a_scripts_own_is_left_alone(old, new, root):
    edit(root, "second", old, new)
    before = texts(root)
    assert scaffold.main(["--check"], root) == scaffold.main(["--from", "second"], root) == 0
    assert texts(root) == before


def test_a_variant_holds_for_the_scripts_below(root, capsys):
    edit(root, "fourth", 'return "Box"', 'return "Box, rescaled"')
    assert scaffold.check(root) == ["fourth.py: make_env differs from third.py's"]
    assert scaffold.carry(root, "fourth") == ["third.py: make_env"]
    assert "Box, rescaled" in (root / "third.py").read_text()
    assert 'return "Discrete"' in (root / "second.py").read_text()
    edit(root, "first", 'return "Discrete"', 'return "Discrete(n)"')
    assert scaffold.carry(root, "first") == ["second.py: make_env"]


def test_a_missing_unit_is_not_written(root):
    """Neither into the script that lacks it, nor taken from the others by the one named."""
    edit(root, "second", "def net(x):\n    return x\n", "")
    edit(root, "second", "# What a comment says right above\n@decorator\n", "")
    edit(root, "third", "    return x\n", "    return 2 * x\n")
    before = (root / "second.py").read_text()
    assert scaffold.carry(root, "second") == []
    assert scaffold.carry(root, "third") == ["first.py: net", "fourth.py: net"]
    assert (root / "second.py").read_text() == before


def test_families_share_nothing(root):
    path = root / "third.py"
    path.write_text(path.read_text().replace('["gymnasium"]', '["torch"]'))
    edit(root, "third", "    return x\n", "    return 2 * x\n")
    assert scaffold.check(root) == []
    assert scaffold.carry(root, "third") == []


def test_what_most_siblings_have_is_the_model(root):
    """The first of the ladder need not be right."""
    edit(root, "first", "    return x\n", "    return 2 * x\n")
    assert scaffold.check(root) == ["first.py: net differs from second.py's"]


def test_a_kill_leaves_every_script_whole(root, monkeypatch):
    """New text stands beside the file until all of it has been written."""
    edit(root, "first", "    return x\n", "    return 2 * x\n")
    before = texts(root)
    write = Path.write_text

    def killed(path, text, **options):
        write(path, text[:100], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        scaffold.carry(root, "first")
    after = texts(root)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--from"),
        (["--from", "nobody.py"], "no script nobody.py; there are first, second"),
        (["--from", "setup.py"], "no script setup.py"),
        (["--from", "first.py", "--check"], "not allowed with"),
        (["--chek"], "--from"),
        (["--check", "first.py"], "unrecognized"),
    ],
)
def test_bad_arguments_end_with_one_line(words, said, root, capsys):
    before = texts(root)
    with pytest.raises(SystemExit) as end:
        scaffold.main(words, root)
    assert end.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert texts(root) == before


def test_a_script_that_cannot_be_read_is_named(root, capsys):
    edit(root, "third", "    return x\n", "    return x)\n")
    before = texts(root)
    for words in (["--check"], ["--from", "first.py"]):
        with pytest.raises(SystemExit) as end:
            scaffold.main(words, root)
        assert end.value.code == 2
        assert "third.py" in capsys.readouterr().err
    assert texts(root) == before


def test_as_a_program(root):
    """It works on the folder above its own, from anywhere."""
    (root / "third.py").unlink()
    (root / "fourth.py").unlink()
    (root / "tools").mkdir()
    tool = shutil.copy(ROOT / "tools" / "scaffold.py", root / "tools")
    edit(root, "second", "    return x\n", "    return 2 * x\n")
    run = {"cwd": "/", "capture_output": True, "text": True}
    for words, status, said in (
        (["--check"], 1, "second.py: net differs from first.py's\n"),
        (["--from", "second.py"], 0, "first.py: net\n"),
        (["--from"], 2, ""),
    ):
        result = subprocess.run([sys.executable, tool, *words], **run, check=False)
        assert result.returncode == status
        assert said in result.stdout
        assert len(result.stderr.splitlines()) == (status == 2)
