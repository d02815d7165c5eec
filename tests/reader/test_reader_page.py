"""The page as a file: it is what the scripts and results say now, small, and needs nothing."""

import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reader import figures
from reader.page import (
    equation,
    load,
    note_html,
    paragraph,
    pieces_of,
    prose,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "reader/index.html"
# The edges both of whose ends were run on one environment.
WITH_CURVES = {
    "reinforce..reinforce_baseline", "reinforce_baseline..a2c", "a2c..ppo", "a2c..trpo",
    "a2c..a3c", "ppo_continuous..sac", "reinforce_lm..rloo", "rloo..grpo", "rloo..ppo_rlhf",
    "rloo..dpo",
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> dict:
    """What the committed page has, which is not stale, as the last test says."""
    text = PAGE.read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_the_page_is_one_small_file_that_loads_nothing():
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.encode()) < 3_000_000
    data = re.search(r'(?s)<script type="application/json".*?</script>', text)[0]
    rest = text.replace(data, "")
    loads = r"\bsrc=|@import|url\((?!data:)|fetch\(|import\(|XMLHttp|WebSocket"
    assert not re.search(loads, rest)
    assert re.findall(r"<link[^>]*>", text) == ['<link rel="icon" href="data:,">']


def test_the_data_cannot_end_their_element():
    text = PAGE.read_text(encoding="utf-8")
    embedded = text[text.index('id="data">') :]
    embedded = embedded[: embedded.index("</script>")].removeprefix('id="data">')
    assert "</" not in embedded
    assert json.loads(embedded)["scripts"].keys() == load(ROOT)[1].keys()


def test_lines_of_the_data_are_the_scripts(data):
    for name, text in load(ROOT)[1].items():
        lines = ["".join(data["lines"][n][1::2]) for n in data["scripts"][name]["lines"]]
        assert lines == text.splitlines()


def test_every_pair_is_there_once(data):
    names = list(data["scripts"])
    pairs = [frozenset(key.split("..")) for key in data["pairs"]]
    assert len(set(pairs)) == len(pairs) == len(names) * (len(names) - 1) / 2


def test_which_edges_have_curves(data):
    found = set()
    for name, script in data["scripts"].items():
        for chart in data["charts"].values():
            if script["parent"] in chart["scripts"] and name in chart["scripts"]:
                found.add(f"{script['parent']}..{name}")
    assert found == WITH_CURVES


def report_cell(folder: str, env: str, script: str, caption: str, column: str) -> str:
    """A cell of the table of a report whose caption begins with the environment."""
    text = (ROOT / f"benchmark/results/{folder}/report.md").read_text()
    table = re.search(
        rf"^\*{re.escape(env)}[^*]*{caption}[^*]*\*\n\n((?:\|.*\n)+)", text, re.MULTILINE
    )[1]
    head, _, *rows = (
        [c.strip() for c in row.strip("|").split("|")] for row in table.split("\n") if row
    )
    return next(row[head.index(column)] for row in rows if row[0] == script)


def test_evaluations_are_those_of_the_reports(data):
    checked = 0
    for env, chart in data["charts"].items():
        statistic = {"iqm": "IQM", "mean": "mean"}[chart["statistic"]]
        for script, run in chart["scripts"].items():
            where = run["folder"], env, script
            caption, column = "returns of the final evaluation", f"evaluation, {statistic}"
            if run["by"] == "completions":
                caption, column = "exact success, the probability", "exact success"
            assert run["evaluation"] == report_cell(*where, caption, column)
            checked += 1
    assert checked >= 15


def test_curves_are_those_of_the_csv(data):
    """The line on CartPole-v1, from the CSV by hand: the mean of the middle ten of twenty."""
    chart = data["charts"]["CartPole-v1"]
    shown = chart["scripts"]["a2c"]
    curves = {}
    with (ROOT / f"benchmark/results/{shown['folder']}/curves.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["env_id"], row["algorithm"], row["axis"]) == (
                "CartPole-v1",
                "a2c",
                "steps",
            ):
                curves.setdefault(float(row["position"]), []).append(row["return"])
    middle = {
        x: float(np.mean(sorted(map(float, ys))[5:-5]))
        for x, ys in curves.items()
        if "" not in ys
    }
    drawn = {1000 * x: y for x, y, low, high in shown["curve"] if low <= y <= high}
    assert drawn == pytest.approx(middle, rel=1e-4)


def write_results(root: Path, statuses: list[str]) -> None:
    folder = root / "benchmark/results/some"
    folder.mkdir(parents=True)
    rows = [
        "algorithm,env_id,seed,status,eval_return_mean,train_return_mean,threshold,steps_to_threshold"
    ]
    curves = ["env_id,algorithm,seed,axis,position,return"]
    for seed, status in enumerate(statuses, 1):
        done = status == "done"
        returns = f"{seed},{2 * seed}" if done else ","
        rows.append(f"x,E,{seed},{status},{returns},9,{100 * seed if seed < 3 else 'never'}")
        if done:
            curves += [
                f"E,x,{seed},steps,{10 * k},{k + seed if k > 1 else ''}" for k in (1, 2, 3)
            ]
            curves += [f"E,x,{seed},seconds,{k},-1000" for k in (1, 2)]
    (folder / "results.csv").write_text("\n".join(rows) + "\n")
    (folder / "curves.csv").write_text("\n".join(curves) + "\n")


def test_results_of_a_folder(tmp_path):
    write_results(tmp_path, ["done", "done", "done", "failed"])
    sources = [
        {"folder": "missing", "statistic": "iqm"},
        {"folder": "some", "statistic": "mean"},
    ]
    charts = figures.results(tmp_path, sources, ["x", "y"])
    assert list(charts) == ["E"]
    assert list(charts["E"]["scripts"]) == ["x"]
    shown = charts["E"]["scripts"]["x"]
    assert shown["n"] == "3, 1 failed"
    assert shown["evaluation"].startswith("2.0 [")
    assert shown["by"] == "steps"
    xs, ys, *_ = zip(*shown["curve"], strict=True)
    assert (xs, ys) == ((0.02, 0.03), (4, 5))  # no point where a seed had no episode yet


def test_no_results_are_no_fault(tmp_path):
    assert figures.results(tmp_path, [{"folder": "missing", "statistic": "iqm"}], ["x"]) == {}


def test_prose_escapes_typesets_and_links():
    assert prose("a < b & `x < y`") == "a &lt; b &amp; <code>x &lt; y</code>"
    assert prose("so $x_t$ is").startswith("so <math>")
    assert "&lt;</mo>" in prose("$x < y$")
    assert prose("[the `x` of it](#a..b)") == '<a href="#a..b">the <code>x</code> of it</a>'
    assert prose("see http://x.org/a.html, k3") == (
        'see <a href="http://x.org/a.html">http://x.org/a.html</a>, k3'
    )
    paper = "arXiv:1801.01290"
    assert prose(f"{paper}; more") == (
        f'<a href="https://arxiv.org/abs/1801.01290">{paper}</a>; more'
    )


def test_sources_link_to_their_papers():
    papers = {"Author 2017": "https://x.org/a", "Author 2017, Part II": "https://x.org/b"}
    html = note_html({"source": "Author 2017, Part II, section 3; Author 2017"}, papers)
    assert html == (
        '<p><b>Source.</b> <a href="https://x.org/b">Author 2017, Part II</a>, section 3; '
        '<a href="https://x.org/a">Author 2017</a></p>'
    )


@pytest.mark.parametrize(
    ("latex", "pieces"),
    [
        ("L = a + b - c", ["L = a", "{} + b", "{} - c"]),
        ("L = -a", ["L = -a"]),
        (r"L = (a + b)\, c", [r"L = (a + b)\, c"]),
        (r"L = \frac{a + b}{c} + d", [r"L = \frac{a + b}{c}", "{} + d"]),
        (r"x = y, \qquad z = u", ["x = y, ", " z = u"]),
    ],
)
def test_equations_break_between_terms_only(latex, pieces):
    assert pieces_of(latex) == pieces


def test_symbols_are_marked_where_they_are_whole():
    def marked(latex, *symbols):
        text = equation(latex, [[symbol, name, ""] for symbol, name in symbols])
        return re.findall(r'<mrow class="v" data-v="(\w+)">(.*?)</mrow>', text)

    assert marked("r_t + r", ("r", "rewards")) == [("rewards", "<mi>r</mi>")]
    assert [name for name, _ in marked(r"\rho_t A_t", ("A_t", "a"), (r"\rho_t", "b"))] == [
        "b",
        "a",
    ]
    assert [n for n, _ in marked("x_t x", ("x", "short"), ("x_t", "long"))] == ["long", "short"]
    assert marked("x", ("y", "other")) == []


def test_most_symbols_of_the_notes_are_marked():
    missing = []
    for note in load(ROOT)[0]["note"]:
        html = note_html(note, {}).partition("<table>")[0]
        missing += [s for s in note.get("symbols", []) if f'data-v="{s[1]}"' not in html]
    assert len(missing) < 8, missing


def test_paragraphs_of_the_essay():
    still = "<svg><title>T</title><desc>D</desc></svg>"
    assert paragraph("one\ntwo", {}) == "<p>one two</p>"
    assert paragraph("- a\n  b\n- c", {}) == "<ul><li>a b</li><li>c</li></ul>"
    assert paragraph("$$ x $$", {}).startswith('<div class="eq"><math')
    assert '<a class="pair" href="#a2c..ppo">' in paragraph("{pair a2c..ppo}", {})
    assert paragraph("{play gae}", {"gae": still}) == (
        f'<figure class="play" data-play="gae"><h3>T</h3><div>{still}</div>'
        "<figcaption>D</figcaption></figure>"
    )


def test_flags_are_those_of_the_runs_and_defaults_the_scripts(data):
    changed = 0
    for env, chart in data["charts"].items():
        for name, run in chart["scripts"].items():
            path = ROOT / f"benchmark/results/{run['folder']}/results.csv"
            with path.open(newline="", encoding="utf-8") as file:
                rows = [r for r in csv.DictReader(file) if r["algorithm"] == name]
            flags = json.loads(next(r["flags"] for r in rows if r["env_id"] == env) or "{}")
            args = importlib.import_module(name).Args()
            for flag, value in flags.items():
                default = getattr(args, flag, None)
                if not hasattr(args, flag) or (value is True and isinstance(default, str)):
                    assert flag not in run["flags"]  # an older script's
                    continue
                assert run["flags"][flag] == [value, value == default], (env, name, flag)
                changed += value != default
    assert changed > 10


def test_bad_arguments_end_with_one_line():
    result = subprocess.run(
        [sys.executable, "-m", "reader", "--open"], cwd=ROOT, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: no arguments are known, such as --open\n"


def test_faulty_notes_end_with_one_line_and_leave_the_page(tmp_path):
    shutil.copytree(
        ROOT / "reader", tmp_path / "reader", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(
        ROOT / "benchmark", tmp_path / "benchmark", ignore=shutil.ignore_patterns("results")
    )
    shutil.copy(ROOT / "a2c.py", tmp_path)
    notes = tmp_path / "reader/notes.toml"
    notes.write_text(notes.read_text() + "\n[[note]\n")
    result = subprocess.run(
        [sys.executable, "-m", "reader"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: notes.toml: ")
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "reader/index.html").read_bytes() == PAGE.read_bytes()


def test_the_command_writes_the_committed_page(tmp_path):
    shutil.copytree(
        ROOT / "reader",
        tmp_path / "reader",
        ignore=shutil.ignore_patterns("__pycache__", "index.html"),
    )
    shutil.copytree(
        ROOT / "benchmark",
        tmp_path / "benchmark",
        ignore=shutil.ignore_patterns("*.png", "*.svg", "peers*"),
    )
    for path in ROOT.glob("*.py"):
        shutil.copy(path, tmp_path)
    env = os.environ | {"PYTHONHASHSEED": "7"}  # the page does not depend on it
    result = subprocess.run(
        [sys.executable, "-m", "reader"], cwd=tmp_path, capture_output=True, text=True, env=env
    )
    assert (result.returncode, result.stderr) == (0, "")
    written = (tmp_path / "reader/index.html").read_bytes()
    assert written == PAGE.read_bytes(), "run `python -m reader`, and commit"
