"""Reports made again, the page, faults, stored reports, real scripts."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pytest
import torch
from fake_runs import EVENT_FILE, write_events, write_job
from harness import ROOT, benchmark
from playwright.sync_api import sync_playwright
from report_helpers import rows, section, write_task_job
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

import grpo
from benchmark import files, runs, store
from benchmark.events import read_log
from benchmark.report import write_report
from benchmark.runs import find_runs

OTHER_VERSION = re.compile("Rows of another version of .* than lies here.\n\n")  # as of its day

pytestmark = pytest.mark.usefixtures("figures")


def record(data: bytes) -> bytes:
    """A record of an event file."""
    parts = (len(data).to_bytes(8, "little"), data)
    return b"".join(part + masked_crc32c(part).to_bytes(4, "little") for part in parts)


def test_a_report_is_made_again_of_its_own_files(tmp_path, figures):
    root, out, again = tmp_path / "runs", tmp_path / "x" / "runs", tmp_path / "y" / "runs"
    for seed in (1, 2, 3):
        write_job(root / "one", "a", "CartPole-v1", seed, final_return=100.3 + seed)
        write_job(root, "b", "CartPole-v1", seed, final_return=90 / seed, total_timesteps=7_770)
        write_job(root, "a", "Pendulum-v1", seed, score_range=None, total_timesteps=1_234_567)
        write_task_job(root, "c", seed, flags={"kl_coef": 0.1}, log=((80, 0.96),), logged={
            "losses/kl": {8: 0.1, 80: 0.5 * seed},
        })  # fmt: skip
    write_job(root / "two", "a", "CartPole-v1", 1, final_return=3)  # one seed twice
    write_job(root, "b", "CartPole-v1", 4, "failed", "exit status 1")
    write_job(root, "b", "CartPole-v1", 5, episodes=0)
    write_report(root, out, tags=["losses/kl"])
    first = dict(figures)
    _, problems = write_report(out, again)
    assert any("has seed 1 2 times" in problem for problem in problems)
    for name in ("results.csv", "curves.csv", "logged.csv", "report.md"):
        assert (again / name).read_text() == (out / name).read_text(), name
    assert figures == first
    assert "frontier-sums" in figures


def test_a_report_is_made_again_where_it_lies(tmp_path, drawn):
    for seed in (1, 2):
        write_job(tmp_path / "runs", "a", "CartPole-v1", seed)
    assert benchmark("report", tmp_path / "runs").returncode == 0
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "runs" / "report", kept)
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    result = benchmark("report", kept)
    assert (result.returncode, result.stderr) == (0, "")
    after = {path.name: path.read_bytes() for path in kept.iterdir()}
    assert [name for name in after if after[name] != before[name]] == []
    assert after.keys() == before.keys()
    (kept / "results.csv").write_text("algorithm,env_id\na,b\n")
    result = benchmark("report", kept)
    assert result.returncode == 2
    assert re.fullmatch(
        r"error: .*results.csv is no results.csv of a report.*\n", result.stderr
    )


def test_a_report_made_again_keeps_what_was_logged_under_other_tags(tmp_path, figures):
    for seed in (1, 2):
        logged = {"losses/kl": {8: 0.5, 80: 0.1 * seed}, "losses/score": {80: 2.0}}
        write_task_job(tmp_path / "runs", "a", seed, logged=logged)
    write_report(tmp_path / "runs", tmp_path / "out", tags=["losses/score", "losses/kl"])
    before = (tmp_path / "out" / "logged.csv").read_text()
    figures.clear()
    write_report(tmp_path / "out", tmp_path / "out", tags=["losses/kl"])
    assert [name for name in figures if name.startswith("log")] == ["log-losses_kl-sums"]
    assert (tmp_path / "out" / "logged.csv").read_text() == before


def test_a_report_made_again_keeps_its_title_and_options(tmp_path):
    for name, seed in product("ab", (1, 2)):
        write_job(tmp_path / "mine", name, "CartPole-v1", seed, final_return=50.0 * seed)
    write_report(tmp_path / "mine", tmp_path / "out", reference="a")
    write_report(tmp_path / "out", tmp_path / "again")
    texts = [(tmp_path / out / "report.md").read_text() for out in ("out", "again")]
    assert texts[0] == texts[1]
    assert texts[0].startswith("# Benchmark: mine\n")
    assert "| b | CartPole-v1 | 2 | 2 |" in section(texts[0], "Differences to a")
    write_report(tmp_path / "out", tmp_path / "other", reference="b")
    text = (tmp_path / "other" / "report.md").read_text()
    assert "Differences to a" not in text
    assert "| a | CartPole-v1 | 2 | 2 |" in section(text, "Differences to b")


def test_a_report_made_again_has_the_same_logged_values(tmp_path):
    logged = {"losses/kl": {step: 1.23456789 / step for step in range(8, 80, 8)}}
    write_task_job(tmp_path / "runs", "a", 1, logged=logged)
    write_report(tmp_path / "runs", tmp_path / "out", tags=["losses/kl"])
    (first,), (again,) = (
        store.load(tmp_path / name, ["losses/kl"])[0] for name in ("runs", "out")
    )
    np.testing.assert_array_equal(first.logged["losses/kl"], again.logged["losses/kl"])
    np.testing.assert_allclose(
        again.logged["losses/kl"],
        [[*logged["losses/kl"]], [*logged["losses/kl"].values()]],
        1e-5,
    )


def test_a_report_made_again_knows_the_card(tmp_path):
    folder = write_job(tmp_path / "runs", "a", "CartPole-v1", 1)
    record = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps(record | {"cpu": "C 1", "gpu": "Card 7"}))
    for source, out in (("runs", "out"), ("out", "again")):
        write_report(tmp_path / source, tmp_path / out)
        assert "Device: cpu, C 1, Card 7." in (tmp_path / out / "report.md").read_text()


class Page(HTMLParser):
    """Collects what a page would load, and the text in its cells."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded, self.ids, self.open = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.ids |= {value for name, value in attributes if name == "id"}
        self.loaded += [
            value
            for name, value in attributes
            if name in ("src", "href", "srcset", "data", "action")
        ]
        self.loaded += ["link"] * (tag in ("link", "iframe", "object", "embed"))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_page_is_whole_and_needs_nothing_else(mixed, tmp_path, live, figures):
    write_report(mixed, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert len(text) < 5_000_000
    page = Page(text)
    assert page.open == []
    assert len(figures) == 4
    assert all(f'id="{stem}"' in text for stem in figures)
    assert page.loaded
    assert all(value[1:] in page.ids for value in page.loaded)  # the list of contents
    assert "@import" not in text


def test_html_page_in_a_browser(mixed, tmp_path, live):
    """It draws, sorts, fits a narrow screen, answers to the pointer, and dims at a click on a
    legend what is not chosen."""
    if not os.environ.get("REQUIRE_BROWSER") and shutil.which("chromium") is None:
        pytest.skip("there is no chromium")
    write_report(mixed, tmp_path / "out")
    with sync_playwright() as playwright:
        options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"]}
        browser = playwright.chromium.launch(**options)
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.goto((tmp_path / "out" / "index.html").as_uri())
        width = "[document.documentElement.clientWidth, document.documentElement.scrollWidth]"
        assert page.evaluate(width) == [400, 400]

        page.set_viewport_size({"width": 1600, "height": 800})
        wide = (
            "all => all.forEach(one => one.before('-12,345.6 [-12,345.6,'))"  # as large returns
        )
        page.locator("td span").evaluate_all(wide)
        cut = "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
        assert page.locator(".scroll").count() == 5
        assert page.locator(".scroll").evaluate_all(cut) == 0
        page.reload()
        page.set_viewport_size({"width": 400, "height": 800})

        table = page.locator("table").nth(1)
        head, cells = table.locator("th button"), table.locator("tbody tr")
        column = "(rows, i) => rows.map(row => row.cells[i].textContent.split(' ')[0])"
        assert cells.evaluate_all(column, 4) == ["102.0", "484.0"]
        for i, values in ((0, ["bad", "good"]), (4, ["102.0", "484.0"])):
            head.nth(i).click()
            assert cells.evaluate_all(column, i) == values
            head.nth(i).click()
            assert cells.evaluate_all(column, i) == values[::-1]

        assert page.locator("figure svg").count() == 4
        chart = page.locator("#curve-steps-CartPole-v1")
        lines = chart.locator("path[aria-roledescription='line mark']")
        opacity = "lines => lines.map(line => line.getAttribute('opacity'))"
        assert lines.evaluate_all(opacity) == ["1", "1"]
        chart.locator("path[aria-roledescription='point']").first.hover(force=True)
        tip = page.locator("#vg-tooltip-element").inner_text()
        assert {"algorithm", "environment steps", "training return"} <= {
            *re.split(r"\s*\n|\t", tip)
        }
        legend = chart.locator(".role-legend-label text", has_text="good")
        legend.click()
        assert sorted(lines.evaluate_all(opacity)) == ["0.15", "1"]
        legend.click()
        assert lines.evaluate_all(opacity) == ["1", "1"]
        browser.close()


def test_words_from_outside_are_escaped(tmp_path):
    write_job(tmp_path / "runs", "a", "CartPole-v1", 1)
    write_job(
        tmp_path / "runs", "a", "CartPole-v1", 2, "failed", "<script>alert(1)</script> | x"
    )
    write_report(tmp_path / "runs", tmp_path / "out")
    assert "<script>alert" not in (tmp_path / "out" / "index.html").read_text()


def test_the_same_runs_give_the_same_files(mixed, tmp_path, drawn):
    for out in ("one", "two"):
        write_report(mixed, tmp_path / out)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert {"report.md", "index.html", "results.csv", "curves.csv"} <= set(names)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (
            tmp_path / "two" / name
        ).read_bytes(), name


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("summary.json", "{}", "summary.json lacks env_id"),
        ("summary.json", '{"env_id": 3', "failed, summary.json is missing or no JSON object"),
        (
            "summary.json",
            None,
            "summary.json has a strange train_return_mean, eval_return_mean",
        ),
        (
            "summary.json",
            float("nan"),
            "summary.json has a strange train_return_mean, eval_return_mean",
        ),
        ("summary.json", b"\xff", "failed, summary.json is missing or no JSON object"),
        ("args.json", b"\xff", "n = 2, 0 failed"),
        ("../job.json", "[]", "job.json lacks algorithm"),
        ("../job.json", b"\xff", "job.json lacks algorithm"),
        (
            EVENT_FILE,
            "",
            "its event files hold 0 of its 200 episodes; "
            "its summary is used, its learning curve is not",
        ),
        (
            EVENT_FILE,
            "not an event file at all",
            "run: event file 1 is corrupt after 0 records",
        ),
        (EVENT_FILE, record(b"\xff" * 9), "run: event file 1 holds a record that is no event"),
    ],
)
def test_foreign_content_is_reported_and_the_other_runs_are_used(tmp_path, file, content, says):
    root = tmp_path / "runs"
    write_job(root, "a", "CartPole-v1", 1)
    folder = write_job(root, "a", "CartPole-v1", 2) / "run"
    if content is None or isinstance(content, float):
        content = (folder / file).read_text().replace("100.0", "NaN" if content else '"high"')
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    write_report(root, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert says in text
    assert "n = " in text
    assert EVENT_FILE not in text  # it names the machine
    assert EVENT_FILE not in (tmp_path / "out" / "index.html").read_text()


def test_a_tail_that_the_next_session_disowned_is_no_loss(tmp_path):
    folder = (
        write_job(tmp_path / "runs", "a", "CartPole-v1", 1, episodes=3, total_timesteps=30)
        / "run"
    )
    whole = (folder / EVENT_FILE).read_bytes()
    (folder / EVENT_FILE).write_bytes(whole[:-5])  # ends within what was logged at step 30
    later = folder / EVENT_FILE.replace("17", "18")
    tag = "charts/episodic_return"
    write_events(later, 1.8e9, [(tag, 25, 1.0, 7.0)], purge_step=21)
    ((run,), problems) = find_runs(tmp_path / "runs")
    assert run.has_curve
    assert run.points["steps"][0].tolist() == [10, 20, 25]
    ((problem),) = problems
    assert problem.endswith("event file 1 is truncated after 6 records")
    later.unlink()
    ((run,), problems) = find_runs(tmp_path / "runs")
    assert run.has_curve  # all that is lost is the last episode's length
    (folder / EVENT_FILE).write_bytes(whole[: len(whole) // 2])
    ((run,), problems) = find_runs(tmp_path / "runs")
    assert not run.has_curve
    assert len(problems) == 2


def test_nothing_to_report_on(tmp_path):
    result = benchmark("report", tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: there are no runs in .*\n", result.stderr)


def test_only_failed_runs_still_make_a_report(tmp_path):
    write_job(tmp_path / "runs", "a", "CartPole-v1", 1, "failed", "exit status 1")
    for source, out in (("runs", "out"), ("out", "again")):
        write_report(tmp_path / source, tmp_path / out)
        assert "n = 0, 1 failed" in (tmp_path / out / "report.md").read_text()


def test_report_needs_no_locks_which_windows_lacks(tmp_path):
    for seed in (1, 2):
        write_job(tmp_path / "runs", "a", "CartPole-v1", seed)
    code = (
        "import signal, sys; sys.modules['fcntl'] = None; del signal.SIGHUP\n"
        "from benchmark import page, plots\n"
        "page.bundle, plots.save = str, print\n"
        "from benchmark.__main__ import main\n"
        f"sys.exit(main(['report', {str(tmp_path / 'runs')!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()


def test_speed_and_run_draw_no_figures():
    code = "import sys, benchmark.speed, benchmark.pool; sys.exit('vl_convert' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_full_disk_leaves_the_report_before_as_it_was(mixed, tmp_path):
    out = tmp_path / "out"
    write_report(mixed, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    result = benchmark("report", mixed, "--out", out, preexec_fn=limit)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "File too large" in result.stderr.splitlines()[-1]
    for name, content in before.items():
        assert (out / name).read_bytes() == content, name


def test_a_full_disk_leaves_an_older_csv_as_it_was(tmp_path):
    (tmp_path / "results.csv").write_text("old")
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, old_limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write_csv(tmp_path / "results.csv", ["a"], [["x" * 10_000]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    assert (tmp_path / "results.csv").read_text() == "old"


# ==============================================================================================
# Stored reports
# ==============================================================================================
@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("benchmark/results/*/results.csv")),
    ids=lambda path: path.parent.name,
)
def test_stored_reports_are_made_again_to_the_byte(path, tmp_path, figures):
    """When reports change: python -m benchmark report benchmark/results/NAME, for all."""
    write_report(path.parent, tmp_path)
    for made in tmp_path.glob("*.[cmj]*"):
        again, kept = (
            OTHER_VERSION.sub("", file.read_text())
            for file in (made, path.with_name(made.name))
        )
        assert again == kept, made.name
    files = {f"{stem}.png" for stem in figures}
    files |= {made.name for made in tmp_path.iterdir()} - {"index.html"}
    measured = {
        f"{own.stem}.{end}" for own in path.parent.glob("*.py") for end in ("py", "csv")
    }
    assert files == {file.name for file in path.parent.iterdir()} - {"index.html"} - measured


# ==============================================================================================
# With the real scripts
# ==============================================================================================
def test_real_scripts_from_run_to_report_and_again(tmp_path):
    words = [
        "run",
        "smoke",
        "--algorithms",
        "reinforce",
        "ppo_continuous",
        "--seeds",
        "1",
        "--steps",
        "2048",
    ]
    words += ["--dir", tmp_path / "runs", "--", "--eval-episodes", "1"]
    result = benchmark(*words)
    assert result.returncode == 0, result.stdout
    again = benchmark(*words)
    assert "0 runs done, 2 had been done before, 0 failed" in again.stdout
    assert benchmark("report", tmp_path / "runs").returncode == 0
    table = rows(tmp_path / "runs" / "report" / "results.csv")
    assert [(row["algorithm"], row["status"]) for row in table] == [
        ("reinforce", "done"),
        ("ppo_continuous", "done"),
    ]
    runs, problems = find_runs(tmp_path / "runs")
    assert problems == []
    assert [run.points["steps"].shape[1] for run in runs] == [
        run.summary["train_episodes"] for run in runs
    ]
    args = json.loads(
        (tmp_path / "runs" / "CartPole-v1__reinforce__1" / "run" / "args.json").read_text()
    )
    assert (args["total_timesteps"], args["eval_episodes"]) == (2048, 1)


def test_a_real_language_model_from_run_to_report_and_again(tmp_path, figures):
    torch.manual_seed(0)  # a base model that was never trained: making one takes a while
    torch.save({"reference": grpo.GPT().state_dict()}, tmp_path / "base.pt")
    words = ["run", "language", "--algorithms", "grpo", "--seeds", "1", "--steps", "1024"]
    words += ["--dir", tmp_path / "runs", "--", "--eval-episodes", "50"]
    words += ["--task-kwargs", json.dumps({"base_model": str(tmp_path / "base.pt")})]
    result = benchmark(*words)
    assert result.returncode == 0, result.stdout
    assert "0 runs done, 1 had been done before, 0 failed" in benchmark(*words).stdout
    assert benchmark("report", tmp_path / "runs").returncode == 0
    ((run,), problems) = find_runs(tmp_path / "runs")
    assert problems == []
    assert run.points["steps"].shape[1] == run.summary["train_episodes"] == 1024
    log = read_log(run.directory, [runs.EXACT])[0]
    assert log[runs.EXACT][0].tolist() == [
        512
    ]  # every 2000 completions, from the first batch on
    assert {"exact_success", "base_exact_success", "kl"} <= run.further.keys()
    (row,) = rows(tmp_path / "runs" / "report" / "results.csv")
    assert float(row["kl"]) == run.summary["kl"]
    assert "frontier-addition" in figures
