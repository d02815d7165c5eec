"""python -m benchmark report and check: event files, faults, tables, pages, and regressions."""

import csv
import json
import os
import re
import resource
import shutil
from html.parser import HTMLParser
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_runs import EVENT_FILE, write_events, write_job, write_run, write_task_run
from harness import ROOT, benchmark
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import sync_playwright
from scipy import stats as scipy_stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

import grpo
from benchmark import page, plots, report, runs, store
from benchmark.__main__ import main
from benchmark.check import check
from benchmark.grid import BadInput
from benchmark.report import write_report
from benchmark.runs import EPISODES, find_runs, grouped, masked_crc, read_log


def record(data: bytes) -> bytes:
    """A record of an event file."""
    parts = (len(data).to_bytes(8, "little"), data)
    return b"".join(part + masked_crc32c(part).to_bytes(4, "little") for part in parts)


@pytest.fixture(autouse=True)
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


def lines_of(spec: dict) -> dict[str, np.ndarray]:
    """x, y, low and high by algorithm, (4, points) each."""
    found = {}
    for row in spec["data"]["values"]:
        values = [row[name] for name in ("x", "y", "low", "high")]
        found.setdefault(row["algorithm"], []).append(values)
    return {name: np.array(several, float).T for name, several in found.items()}


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ==============================================================================================
# Event files
# ==============================================================================================
@given(st.binary(min_size=1, max_size=40))
def test_checksum_is_tensorboards(data):
    assert masked_crc(data) == masked_crc32c(data)


def test_episodes_are_those_that_tensorboard_reads(tmp_path):
    def log(writer, steps):
        for step in steps:
            writer.add_scalar("charts/episodic_return", step / 3, step)
            writer.add_scalar("losses/value_loss", -1.0, step)
        writer.close()

    log(SummaryWriter(tmp_path), range(0, 100, 4))
    log(SummaryWriter(tmp_path, purge_step=51), range(55, 90, 5))  # as a resumed run does
    log, problems = read_log(tmp_path)
    steps, seconds, returns = log[EPISODES]
    theirs = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    theirs.Reload()
    theirs = theirs.Scalars("charts/episodic_return")
    assert (
        steps.tolist()
        == [event.step for event in theirs]
        == [*range(0, 51, 4), *range(55, 90, 5)]
    )
    assert returns.tolist() == [event.value for event in theirs]
    assert (np.diff(seconds) >= 0).all()
    assert problems == []


def test_time_between_sessions_is_no_training_time(tmp_path):
    tag = "charts/episodic_return"
    write_events(
        tmp_path / "events.out.tfevents.1", 1000.0, [(tag, 10, 5.0, 1.0), (tag, 20, 9.0, 2.0)]
    )
    write_events(
        tmp_path / "events.out.tfevents.2", 5000.0, [(tag, 15, 3.0, 3.0)], purge_step=11
    )
    steps, seconds, returns = read_log(tmp_path)[0][EPISODES]
    assert (steps.tolist(), seconds.tolist(), returns.tolist()) == (
        [10, 15],
        [5.0, 8.0],
        [1.0, 3.0],
    )


def test_sessions_follow_each_other_by_their_checkpoints_though_the_clock_was_set_back(
    tmp_path,
):
    tag = "charts/episodic_return"
    for name, start, step, purge in (("a", 9000.0, 10, None), ("b", 5000.0, 20, 15)):
        scalars = [(tag, step, 2.0, step), (tag, step + 8, 3.0, -1.0)]
        write_events(tmp_path / f"events.out.tfevents.{name}", start, scalars, purge)
    last = tmp_path / "events.out.tfevents.c"
    write_events(last, 1000.0, [(tag, 30, 2.0, 30.0)], purge_step=25)
    steps, seconds, returns = read_log(tmp_path)[0][EPISODES]
    assert (steps.tolist(), returns.tolist()) == ([10, 20, 30], [10, 20, 30])
    assert seconds.tolist() == [2, 4, 6]


@settings(max_examples=60)
@given(st.data())
def test_damaged_event_files_yield_what_comes_before_the_damage(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("events")
    tag = "charts/episodic_return"
    write_events(
        directory / EVENT_FILE, 1000.0, [(tag, step, step, step) for step in range(1, 9)]
    )
    content = bytearray((directory / EVENT_FILE).read_bytes())
    at = data.draw(st.integers(40, len(content) - 1))
    cut = data.draw(st.booleans())
    if cut:
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    (directory / EVENT_FILE).write_bytes(content)
    log, problems = read_log(directory)
    steps = log[EPISODES][0]
    assert steps.tolist() == list(range(1, len(steps) + 1))
    assert len(problems) == 1 or (cut and len(content) in (40, *record_ends(content)))
    assert len(steps) < 8


def record_ends(content: bytes) -> list[int]:
    """Where the whole records of an event file end."""
    ends, position = [], 0
    while position + 8 <= len(content):
        position += 16 + int.from_bytes(content[position : position + 8], "little")
        ends.append(position)
    return ends


def test_only_the_tag_of_the_episodes_counts(tmp_path):
    scalars = [
        ("charts/episodic_return", 1, 1.0, 5.0),
        ("charts/episodic_return_mean", 2, 2.0, 9.0),
    ]
    write_events(tmp_path / EVENT_FILE, 1000.0, scalars)
    assert read_log(tmp_path)[0][EPISODES][2].tolist() == [5.0]


def test_each_tag_has_its_own_entries_and_only_numbers_count(tmp_path):
    writer = SummaryWriter(tmp_path)
    for step in (8, 16):
        writer.add_scalar(EPISODES, step / 2, step)
        writer.add_scalar("losses/kl", step / 4, step)
        writer.add_scalar("losses/kl_to_old", step / 8, step)
    writer.add_text("notes", "losses/kl", 8)
    writer.add_histogram("losses/kl", np.arange(4), 24)
    writer.close()
    log, problems = read_log(tmp_path, ["losses/kl_to_old", "losses/kl", "none"])
    assert problems == []
    assert {tag: x[[0, 2]].tolist() for tag, x in log.items()} == {
        EPISODES: [[8, 16], [4, 8]],
        "losses/kl": [[8, 16], [2, 4]],
        "losses/kl_to_old": [[8, 16], [1, 2]],
        "none": [[], []],
    }
    assert runs.read_tags(tmp_path) == {EPISODES, "losses/kl", "losses/kl_to_old"}


def test_a_resumed_run_disowns_what_it_logged_too(tmp_path):
    first = [(EPISODES, 8, 2.0, 0.0), ("losses/kl", 10, 3.0, 1.0), ("losses/kl", 20, 9.0, 2.0)]
    write_events(tmp_path / "events.out.tfevents.1", 1000.0, first)
    second = [("losses/kl", 16, 1.0, 3.0)]
    write_events(tmp_path / "events.out.tfevents.2", 5000.0, second, purge_step=11)
    log = read_log(tmp_path, ["losses/kl"])[0]["losses/kl"]
    assert log.tolist() == [[10, 16], [3, 3], [1, 3]]  # its episodes took 2 seconds


# ==============================================================================================
# The report
# ==============================================================================================
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


def test_every_run_is_counted(mixed, tmp_path):
    runs, problems = write_report(mixed, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "12 runs: 10 done, 1 failed, 1 unfinished, 0 missing." in text
    assert "bad: n = 3, 0 failed, 1 unfinished; good: n = 4, 1 failed" in text
    assert "good on CartPole-v1, seed 4: failed, killed by SIGKILL" in text
    captions = re.findall(r"^\*.*\*$", text, re.MULTILINE)
    assert len(captions) > 8
    assert all(re.search(r"n = \d+, \d+ failed", caption) for caption in captions)
    assert len(problems) == 4, problems
    assert sum("is corrupt" in problem for problem in problems) == 1
    assert sum("no run directory of these scripts" in problem for problem in problems) == 2
    assert not any(
        str(tmp_path) in path.read_text() for path in (tmp_path / "out").glob("*.[chm]*")
    )  # no place names
    assert all(problem in text for problem in problems)

    table = rows(tmp_path / "out" / "results.csv")
    assert len(table) == len(runs) == 12
    assert sorted(row["status"] for row in table) == ["done"] * 10 + ["failed", "unfinished"]
    failed = next(row for row in table if row["status"] == "failed")
    assert (failed["reason"], failed["eval_return_mean"]) == ("killed by SIGKILL", "")


def test_numbers_in_the_tables(mixed, tmp_path):
    write_report(mixed, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    # Student's interval of three values 1 apart, by the table: 4.303 / sqrt(3) = 2.48.
    assert "| bad | 3 | 0 | 10,000 | 102.0 [99.5, 104.5] | 102.0 [101.0, 103.0] |" in text
    # The corrupt one is unknown, not "never".
    assert "| bad | 0/2 | never | never | 1,000 (saturated) |" in text
    assert "bad: n = 2, 0 failed, 1 unfinished, 1 no curve; good: n = 4, 1 failed" in text
    assert "| bad | good | 1 | 0.00 (saturated) |" in text
    assert (
        "Not in these scores, for want of a score_range in the suite: CartPole-v1, Pendulum-v1"
        in text
    )

    # Where the last 100 of the 200 episodes of a rising run first average 475, by counting:
    steps = []
    for final_return in (481, 482, 483, 490):
        returns = np.minimum(2 * np.arange(1, 201) / 200, 1) * final_return
        first = next(i for i in range(99, 200) if returns[i - 99 : i + 1].mean() >= 475)
        steps.append((first + 1) * 50)
    good = [row for row in rows(tmp_path / "out" / "results.csv") if row["algorithm"] == "good"]
    assert [
        float(row["steps_to_threshold"])
        for row in good
        if row["threshold"] and row["status"] == "done"
    ] == steps
    middle = sum(sorted(steps)[1:3]) / 2
    assert f"| good | 4/4 | {middle:,.0f} [" in text


def test_curves_csv_has_every_run_on_one_grid(mixed, tmp_path):
    write_report(mixed, tmp_path / "out")
    curves = rows(tmp_path / "out" / "curves.csv")
    mine = [
        row
        for row in curves
        if (row["algorithm"], row["env_id"], row["axis"]) == ("good", "CartPole-v1", "steps")
    ]
    assert sorted({row["seed"] for row in mine}) == ["1", "2", "3", "9"]
    assert [float(row["position"]) for row in mine[: report.BINS]] == list(
        range(200, 10_001, 200)
    )
    assert float(mine[0]["return"]) == pytest.approx(
        np.mean([1, 2, 3, 4]) / 100 * 481, rel=1e-4
    )


@pytest.mark.parametrize("aggregate", ["iqm", "mean"])
def test_curves_and_bands_against_every_resample_there_is(tmp_path, figures, aggregate):
    finals = [100.0, 110.0, 150.0, 200.0, 300.0]
    for seed, final_return in enumerate(finals):
        write_job(
            tmp_path / "runs", "a", "CartPole-v1", seed, final_return=final_return, episodes=199
        )
    write_report(tmp_path / "runs", tmp_path / "out", aggregate)

    def middle(values):
        kept = sorted(values)[1:-1]  # a quarter of five, rounded down, is one
        return sum(kept) / len(kept)

    if aggregate == "iqm":
        estimate, resamples = middle(finals), product(finals, repeat=5)
        ends = np.quantile([middle(values) for values in resamples], [0.025, 0.975])
    else:
        estimate = np.mean(finals)
        ends = estimate + np.array([-1, 1]) * 2.776 * np.std(finals, ddof=1) / 5**0.5
    # Of 199 episodes none but the last ends where one of the 50 bins does; every run rises to
    # its return halfway.
    bins = [[i for i in range(1, 200) if k < i * 50 / 199 <= k + 1] for k in range(50)]
    shape = np.array([np.mean([min(2 * i / 199, 1) for i in inside]) for inside in bins])
    for axis, length in (("steps", 10_000), ("seconds", 10)):
        x, y, low, high = lines_of(figures[f"curve-{axis}-CartPole-v1"])["a"]
        np.testing.assert_allclose(x, np.arange(1, 51) * length / 50)
        np.testing.assert_allclose(y, estimate * shape, rtol=1e-4)
        np.testing.assert_allclose(low, ends[0] * shape, rtol=0.05)  # 2000 of 3125 resamples
        np.testing.assert_allclose(high, ends[1] * shape, rtol=0.05)


def test_a_curve_ends_with_its_shortest_run(tmp_path, figures):
    write_job(tmp_path / "runs", "a", "CartPole-v1", 1, total_timesteps=10_000)
    write_job(tmp_path / "runs", "a", "CartPole-v1", 2, total_timesteps=5_000)
    _, problems = write_report(tmp_path / "runs", tmp_path / "out")
    assert lines_of(figures["curve-steps-CartPole-v1"])["a"][0].max() == 5_000
    assert any(
        "mixes runs with different total_timesteps: 10000, 5000" in problem
        for problem in problems
    )


def section(text: str, heading: str) -> str:
    """What stands under a heading of report.md."""
    return text.partition(f"## {heading}")[2].partition("\n## ")[0]


def test_runs_that_share_a_seed_all_count(tmp_path):
    write_job(tmp_path / "runs" / "one", "a", "CartPole-v1", 1, final_return=100)
    write_job(tmp_path / "runs" / "two", "a", "CartPole-v1", 1, final_return=200)
    write_report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| a | 2 | 0 | 10,000 | 150.0 [-485.3, 785.3] | 150.0 [100.0, 200.0] |" in text


def test_an_algorithm_without_a_result_stands_in_every_count(tmp_path):
    root = tmp_path / "runs"
    for seed in (1, 2):
        for env_id in ("CartPole-v1", "Acrobot-v1"):
            write_job(root, "good", env_id, seed)
            write_job(root, "dead", env_id, seed, "failed", "exit status 1")
        write_job(root, "half", "CartPole-v1", seed)
        write_job(root, "half", "Acrobot-v1", seed, "failed", "exit status 1")
    write_report(root, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    counts = (
        "Acrobot-v1: dead: n = 0, 2 failed; good: n = 2, 0 failed; half: n = 0, 2 failed. "
        "CartPole-v1: dead: n = 0, 2 failed; good: n = 2, 0 failed; half: n = 2, 0 failed."
    )
    assert counts in section(text, "Summary")
    for heading, captions in (("Normalised scores", 2), ("Probability of improvement", 2)):
        part = section(text, heading)
        assert part.count(counts) == captions, part
        assert "half on Acrobot-v1: n = 0, 2 failed, so there is no result." in part
        assert "dead on CartPole-v1: n = 0, 2 failed, so there is no result." in part
    assert "| half | 2 | - | - |" in text  # no score over two environments from one of them
    assert "| good | 4 | 1.00 (saturated) | 1.00 (saturated) |" in text
    assert "| dead | good | 0 | - |" in text
    assert "| good | half | 1 | 0.50 (saturated) |" in text


def test_area_under_the_learning_curve(tmp_path):
    root = tmp_path / "runs"
    for seed, final in ((1, 100.0), (2, 200.0)):
        write_job(root, "high", "CartPole-v1", seed, final_return=final)
    write_job(root, "low", "CartPole-v1", 1, final_return=40.0)
    write_job(root, "long", "CartPole-v1", 1, final_return=100.0, total_timesteps=20_000)
    write_job(root, "none", "CartPole-v1", 1, episodes=0)
    write_report(root, tmp_path / "out")
    # A line from 0 to the final return over the first half of the run and flat over the second:
    # 3/4 of it on average.
    areas = {
        (row["algorithm"], row["seed"]): row["curve_mean"]
        for row in rows(tmp_path / "out" / "results.csv")
    }
    assert float(areas["high", "1"]) == pytest.approx(75, abs=0.5)
    assert float(areas["high", "2"]) == pytest.approx(150, abs=1)
    assert float(areas["low", "1"]) == pytest.approx(30, abs=0.2)
    assert areas["none", "1"] == ""
    # Twice as long, and compared over the first half: the rising one, half of the final return
    # on average.
    assert float(areas["long", "1"]) == pytest.approx(50, abs=0.5)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "area under the learning curve" in section(text, "CartPole-v1")
    improvement = section(text, "Probability of improvement")
    assert (
        "| high | low | 1 | 1.00 |"
        in improvement.partition("By area under the learning curve")[2]
    )


def test_areas_count_the_bins_before_the_first_ended_episode(tmp_path):
    """By hand: late's two episodes end at 5,000 and 10,000 of 10,000 steps, so 24 of 50 bins
    come before them; the worst bin of any run is bad's second half."""
    root = tmp_path / "runs"
    for seed in (1, 2):
        write_job(root, "late", "CartPole-v1", seed, final_return=100.0, episodes=2)
        write_job(root, "bad", "CartPole-v1", seed, final_return=-100.0)
    write_report(root, tmp_path / "out")
    table = {row["algorithm"]: row for row in rows(tmp_path / "out" / "results.csv")}
    assert float(table["late"]["curve_mean"]) == pytest.approx((24 * -100 + 26 * 100) / 50)
    assert float(table["bad"]["curve_mean"]) == pytest.approx(-75, abs=0.5)
    text = section((tmp_path / "out" / "report.md").read_text(), "CartPole-v1")
    assert "over the first 10,000 steps, which all runs have, in 50 bins" in text
    assert "counts as the worst bin of any run there, -100.0" in text
    # The table of curves says the same: its means are over equally many bins.
    curves = [r for r in rows(tmp_path / "out" / "curves.csv") if r["axis"] == "steps"]
    late = [r["return"] for r in curves if (r["algorithm"], r["seed"]) == ("late", "1")]
    assert (late[:24], len(late)) == ([""] * 24, 50)


def test_runs_of_other_lengths_are_compared_at_equal_steps(tmp_path):
    """b ends higher, after twice the steps; at a's end it is still rising, below a."""
    root = tmp_path / "runs"
    for seed in (1, 2):
        write_job(root, "a", "CartPole-v1", seed, final_return=97.0)
        write_job(root, "b", "CartPole-v1", seed, final_return=100.0, total_timesteps=20_000)
        write_job(root, "a", "Acrobot-v1", seed, final_return=97.0)
        write_job(root, "b", "Acrobot-v1", seed, final_return=100.0, total_timesteps=10_300)
    write_report(root, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    differ = (
        "Budgets differ (10,000 to 20,000 steps). Scores and probabilities compare training "
        "returns at equal steps, from step 9,200 to 10,000."
    )
    assert differ in section(text, "CartPole-v1")
    assert "Budgets differ" not in section(text, "Acrobot-v1")  # by less than 5%
    assert "| b | 2 | 0 | 20,000 | 100.0 (saturated) |" in section(text, "CartPole-v1")
    # Of 200 episodes of b, which rises to 100 in the first 100, those that end at 9,300 to
    # 10,000 steps are the 93rd to the 100th: 96.5 on average.
    scores = section(text, "Normalised scores")
    assert "| a | 4 | 0.97 (saturated) |" in scores
    assert f"| b | 4 | {(0.965 + 1) / 2:.2f} (saturated) |" in scores
    improvement = section(text, "Probability of improvement")
    assert "| a | b | 2 | 0.50 (saturated) |" in improvement  # b by evaluation on Acrobot-v1

    write_job(root, "c", "CartPole-v1", 1, episodes=0)
    write_report(root, tmp_path / "out")
    text = section((tmp_path / "out" / "report.md").read_text(), "CartPole-v1")
    assert "compare final evaluations at unequal steps, since not every run has a curve" in text


def test_pairs_are_compared(tmp_path):
    """X beats Y as often as the table says: three pairs of 2 by 2 seeds by hand."""
    root, finals = tmp_path / "runs", {"low": (1, 3), "mid": (2, 3), "high": (4, 5)}
    for name, returns in finals.items():
        for seed, final in enumerate(returns):
            write_job(root, name, "CartPole-v1", seed, final_return=float(final))
    write_report(root, tmp_path / "out")
    text = section((tmp_path / "out" / "report.md").read_text(), "Probability of improvement")
    table = re.findall(r"\| (\w+) \| (\w+) \| 1 \| (\d\.\d\d) ", text.partition("By area")[0])
    assert {(x, y) for x, y, _ in table} == {("high", "low"), ("high", "mid"), ("low", "mid")}
    for x, y, cell in table:
        wins = [(a > b) + (a == b) / 2 for a in finals[x] for b in finals[y]]
        assert float(cell) == pytest.approx(np.mean(wins), abs=0.0051)


def test_captions_count_the_runs_that_are_used(tmp_path):
    root = tmp_path / "runs"
    for seed in (1, 2, 3):
        write_job(root, "a", "CartPole-v1", seed, episodes=0 if seed == 3 else 200)
    write_job(root, "b", "CartPole-v1", 1, score_range=None)
    write_report(root, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert (
        "a: n = 3, 0 failed; b: n = 1, 0 failed. For the last 100 episodes: "
        "a: n = 2, 0 failed, 1 without an episode; b: n = 1, 0 failed. For the area: "
        "a: n = 2, 0 failed, 1 no curve; b: n = 1, 0 failed." in section(text, "CartPole-v1")
    )
    scores = section(text, "Normalised scores")
    assert "Each algorithm: n = 3, 0 failed" in scores  # b's run has no scale
    assert "b" not in [line.split()[1] for line in scores.splitlines() if line.startswith("| ")]


def test_never_is_not_unknown_in_the_csv(tmp_path):
    root = tmp_path / "runs"
    write_job(root, "a", "CartPole-v1", 1, final_return=10)
    write_job(root, "a", "CartPole-v1", 2, episodes=0)
    write_job(root, "a", "Pendulum-v1", 1)  # no threshold is registered
    write_report(root, tmp_path / "out")
    cells = [row["steps_to_threshold"] for row in rows(tmp_path / "out" / "results.csv")]
    assert cells == ["never", "", ""]


def test_scores_against_numbers_worked_out_by_hand(tmp_path):
    root = tmp_path / "runs"  # two environments of 2 and 6 runs weigh the same
    for seed, value in enumerate((100, 300), start=1):
        write_job(
            root, "a", "CartPole-v1", seed, final_return=value, score_range=(0, 200)
        )  # scores 0.5 and 1.5
    for seed in range(1, 7):
        write_job(
            root, "a", "Acrobot-v1", seed, final_return=-500, score_range=(-500, -100)
        )  # 0
    write_report(root, tmp_path / "out")
    # Each run on CartPole-v1 weighs 1/4, on Acrobot-v1 1/12. Mean: (0.5 + 1.5) / 4, with an
    # error of 1/4 and one degree of freedom, where t is 12.7. The middle half by weight is a
    # quarter of zeros and a quarter of 0.5.
    assert (
        "| a | 8 | 0.50 [-2.68, 3.68] | 0.25 [0.25, 0.75] |"
        in (tmp_path / "out" / "report.md").read_text()
    )


# ==============================================================================================
# What there was to run, and with what
# ==============================================================================================
def test_what_the_grid_names_and_nobody_began_is_missing(tmp_path):
    root = tmp_path / "runs"
    write_job(root, "a", "CartPole-v1", 1)
    write_job(root, "a", "CartPole-v1", 2, "running")
    (root / "CartPole-v1__a__3").mkdir()  # claimed, no more
    cells = [("a", "CartPole-v1", seed) for seed in (1, 2, 3)] + [("b", "Acrobot-v1", 1)]
    names = ("algorithm", "env_id", "seed")
    grid = {f"{x[1]}__{x[0]}__{x[2]}": dict(zip(names, x, strict=True)) for x in cells}
    (root / "grid.json").write_text(json.dumps(grid | {"bad": 3, "worse": {"seed": "x"}}))
    runs, problems = write_report(root, tmp_path / "out")
    assert [(run.algorithm, run.seed, run.status) for run in runs] == [
        ("b", 1, "missing"), ("a", 1, "done"), ("a", 2, "unfinished"), ("a", 3, "missing"),
    ]  # fmt: skip
    assert len(problems) == 2
    assert all("grid.json" in problem for problem in problems)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "4 runs: 1 done, 0 failed, 1 unfinished, 2 missing." in text
    assert (
        "Acrobot-v1: each algorithm: n = 0, 0 failed, 1 missing. CartPole-v1: each algorithm: "
        "n = 1, 0 failed, 1 unfinished, 1 missing." in section(text, "Summary")
    )
    assert "- b on Acrobot-v1, seed 1: missing, never begun" in text
    statuses = [row["status"] for row in rows(tmp_path / "out" / "results.csv")]
    assert statuses == ["missing", "done", "unfinished", "missing"]


def test_few_seeds_other_devices_and_other_processors_are_pointed_out(tmp_path):
    for seed in range(1, 7):
        folder = write_job(tmp_path, "a", "CartPole-v1", seed)
        record = json.loads((folder / "job.json").read_text())
        about = {"attempts": seed, "resumes": 1, "seconds": 2.5, "cpu": "fast one"}
        (folder / "job.json").write_text(json.dumps(record | about))
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Beware" not in text
    assert "Device: cpu, fast one." in text
    table = rows(tmp_path / "out" / "results.csv")
    names = ("attempts", "resumes", "seconds", "cpu")
    assert [table[5][name] for name in names] == ["6", "1", "2.5", "fast one"]

    (folder / "job.json").write_text(json.dumps(record | about | {"cpu": "slow one"}))
    args = folder / "run" / "args.json"
    args.write_text(args.read_text().replace('"cpu"', '"cuda"'))
    write_job(tmp_path, "b", "CartPole-v1", 1)
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "some results have 5 seeds or fewer" in text
    seconds = "so their seconds do not compare"
    assert f"Beware: the runs were made on different devices, {seconds}: cpu, cuda." in text
    assert f"different CPU models, {seconds}: fast one, slow one." in text


def test_the_report_says_how_often_its_intervals_cover_the_truth(tmp_path, monkeypatch):
    table = tmp_path / "coverage.csv"
    table.write_text("statistic,n,coverage\nmean,5,0.951\nmean,5,0.7\nmean,10,0.94\n")
    monkeypatch.setattr(report, "COVERAGE", table)
    assert report.coverage_words().endswith(
        "mean 0.70 to 0.95 at n = 5, 0.94 to 0.94 at n = 10."
    )
    monkeypatch.setattr(report, "COVERAGE", tmp_path / "none.csv")
    assert report.coverage_words() == ""


def write_by_hand(root: Path, name: str, env_id: str, seed: int, **flags) -> None:
    """A run of ppo.py that no suite made, with these flags."""
    write_run(root / name, "ppo", env_id, seed, final_return=100.0 + seed)
    path = root / name / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | flags))


def test_runs_made_by_hand_are_told_apart_by_their_flags(tmp_path):
    root = tmp_path / "runs"
    for seed in (1, 2):
        about = {"device": ("cpu", "cuda")[seed - 1], "log_interval": seed, "num_envs": 4}
        write_by_hand(root, f"x{seed}", "CartPole-v1", seed, clip_coef=0.1, **about)
        write_by_hand(root, f"y{seed}", "CartPole-v1", seed, clip_coef=0.2, **about)
        # Another environment may have other flags, as long as they are the same within it.
        more = about | {"num_envs": 16}
        write_by_hand(root, f"z{seed}", "Acrobot-v1", seed, clip_coef=0.2, **more)
        write_job(root, "ppo", "Pendulum-v1", seed)  # by a suite, which named it
    runs, problems = write_report(root, tmp_path / "out")
    assert {(run.env_id, run.algorithm) for run in runs} == {
        ("CartPole-v1", "ppo clip_coef=0.1"), ("CartPole-v1", "ppo clip_coef=0.2"),
        ("Acrobot-v1", "ppo clip_coef=0.2"), ("Pendulum-v1", "ppo"),
    }  # fmt: skip
    assert problems == []
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| ppo clip_coef=0.1 | 2 | 0 |" in text
    assert "| ppo clip_coef=0.1 | ppo clip_coef=0.2 | 1 | 0.50" in text


def test_runs_made_by_hand_with_the_same_flags_are_one_algorithm(tmp_path):
    for seed in (1, 2):
        write_by_hand(tmp_path, f"x{seed}", "CartPole-v1", seed, clip_coef=0.1)
    assert {run.algorithm for run in find_runs(tmp_path)[0]} == {"ppo"}


def test_differences_to_a_reference(tmp_path):
    """Against scipy's Welch on each environment, and over both by hand on the scores."""
    finals = {
        "CartPole-v1": {"ref": (10.0, 20.0, 40.0), "new": (50.0, 55.0, 70.0)},
        "Acrobot-v1": {"ref": (1.0, 2.0, 3.0, 9.0), "new": (4.0, 4.5), "only": (5.0, 6.0)},
    }
    for env_id, sides in finals.items():
        for name, returns in sides.items():
            for seed, value in enumerate(returns):
                write_job(tmp_path / "runs", name, env_id, seed, final_return=value)
    write_job(tmp_path / "runs", "none", "Acrobot-v1", 1, "failed", "exit status 1")
    write_report(tmp_path / "runs", tmp_path / "out", reference="ref")
    text = section((tmp_path / "out" / "report.md").read_text(), "Differences to ref")
    cells = {
        tuple(row[1:3]): row[3:-1]
        for line in text.splitlines()
        if len(row := [cell.strip() for cell in line.split("|")]) > 3
    }
    for env_id, sides in finals.items():
        x, y = sides["new"], sides["ref"]
        low, high = scipy_stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
        expected = f"{np.mean(x) - np.mean(y):.1f} [{low:.1f}, {high:.1f}]"
        assert cells["new", env_id][:3] == [str(len(x)), str(len(y)), expected]
    # A return of 100 is a score of 1. Both differences count half: half the sum of the squares
    # of the errors, with Welch's and Satterthwaite's degrees of freedom over all four groups.
    groups = [
        np.divide(x, 100) for sides in finals.values() for x in map(sides.get, ("new", "ref"))
    ]
    parts = np.array([x.var(ddof=1) / len(x) for x in groups]) / 4
    freedom = parts.sum() ** 2 / (parts**2 / [len(x) - 1 for x in groups]).sum()
    middle = (groups[0].mean() - groups[1].mean() + groups[2].mean() - groups[3].mean()) / 2
    half = scipy_stats.t.ppf(0.975, freedom) * parts.sum() ** 0.5
    mean = cells["new", "score over these 2"][2]
    assert mean == f"{middle:.2f} [{middle - half:.2f}, {middle + half:.2f}]"
    # IQMs of three, four and two: the mean, that of the middle two, the mean.
    assert cells["new", "CartPole-v1"][3].startswith("35.0 [")
    assert cells["new", "Acrobot-v1"][3].startswith("1.8 [")  # 4.25 - 2.5
    assert ("only", "score over these 1") not in cells
    assert cells["none", "Acrobot-v1"] == ["0", "4", "-", "-", "-", "-"]
    assert ("ref", "CartPole-v1") not in cells
    with pytest.raises(BadInput, match="no algorithm reff to compare with; did you mean ref"):
        write_report(tmp_path / "runs", tmp_path / "out", reference="reff")


def test_bold_is_who_is_not_beaten(tmp_path):
    for seed in range(1, 5):
        for name, final in (("high", 100), ("near", 99), ("low", 50)):
            write_job(tmp_path, name, "CartPole-v1", seed, final_return=final + seed)
            write_job(tmp_path, name, "Acrobot-v1", seed, final_return=100 + seed)
    write_report(tmp_path, tmp_path / "out")
    table = section((tmp_path / "out" / "report.md").read_text(), "Summary")
    assert "| algorithm | Acrobot-v1 | CartPole-v1 |" in table
    row = {line.split()[1]: line for line in table.splitlines() if line.startswith("| ")}
    even = "| 102.5 [101.0, 104.0]<br>"
    assert all(even in row[name] for name in ("high", "near", "low"))
    assert "**102.5 [101.0, 104.0]**<br>never |" in row["high"]
    assert "**101.5 [" in row["near"]
    assert "| 52.5 [" in row["low"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<b>102.5 <span>[101.0, 104.0]</span></b><br>never" in page
    n = "Each algorithm on each environment: n = 4, 0 failed."  # of a cell's seeds, not of all
    assert n in table


def test_the_first_figures_are_aggregates_and_sample_efficiency(tmp_path, figures):
    """By hand: late's first episode ends halfway, and before that it counts as low's start."""
    root = tmp_path / "runs"
    for seed in (1, 2):
        write_job(root, "late", "CartPole-v1", seed, final_return=100.0, episodes=2)
        write_job(root, "low", "CartPole-v1", seed, final_return=10.0, total_timesteps=20_000)
    write_report(root, tmp_path / "out")
    values = figures["aggregates"]["data"]["values"]
    found = {(row["measure"], row["algorithm"]): row["mid"] for row in values}
    low = np.mean([10 * k / 100 for k in range(93, 101)]) / 100  # at equal steps
    assert found == pytest.approx({
        ("mean", "late"): 1, ("mean", "low"): low, ("IQM", "late"): 1, ("IQM", "low"): low,
    })  # fmt: skip
    x, y, *_ = lines_of(figures["efficiency"])["late"]
    assert x[-1] == 1
    assert y[:20] == pytest.approx([0.0025] * 20)  # low's first bin: 0.1, 0.2, 0.3 and 0.4
    assert y[-20:] == pytest.approx([1] * 20)
    text = section((tmp_path / "out" / "report.md").read_text(), "Summary")
    assert text.index("aggregates.png") < text.index("efficiency.png")


def test_no_episode_ends_within_the_steps_that_all_runs_have(tmp_path, figures):
    """Bins of 200 steps: the short run's one episode ends in its second, which it does not
    fill, and the long run's in its last."""
    root = tmp_path / "runs"
    write_job(root, "short", "CartPole-v1", 1, episodes=1, total_timesteps=290)
    write_job(root, "long", "CartPole-v1", 1, episodes=1, total_timesteps=10_000)
    write_report(root, tmp_path / "out")
    assert "aggregates" in figures
    assert "efficiency" not in figures


# ==============================================================================================
# A report made again
# ==============================================================================================
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
    write_report(tmp_path / "mine", tmp_path / "out", "mean", reference="a")
    write_report(tmp_path / "out", tmp_path / "again")
    texts = [(tmp_path / out / "report.md").read_text() for out in ("out", "again")]
    assert texts[0] == texts[1]
    assert texts[0].startswith("# Benchmark: mine\n")
    assert "*Mean of the final evaluation" in section(texts[0], "Summary")
    assert "| b | CartPole-v1 | 2 | 2 |" in section(texts[0], "Differences to a")
    write_report(tmp_path / "out", tmp_path / "other", "iqm", reference="b")
    text = (tmp_path / "other" / "report.md").read_text()
    assert "*IQM of the final evaluation" in text
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
    assert len(figures) == 7
    assert all(f'id="{stem}"' in text for stem in figures)
    assert page.loaded
    assert all(value[1:] in page.ids for value in page.loaded)  # the list of contents
    assert "@import" not in text
    # of every run that has any: the failed one never started
    assert text.count("<summary>show</summary>") == 11


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
        assert page.locator(".scroll").count() > 5
        assert page.locator(".scroll").evaluate_all(cut) == 0
        page.reload()
        page.set_viewport_size({"width": 400, "height": 800})

        table = page.locator("table").last
        head, cells = table.locator("th button"), table.locator("tbody tr")
        column = "(rows, i) => rows.map(row => row.cells[i].textContent)"
        numbers = ["-200.0"] * 3 + ["101.0", "102.0", "103.0"]
        numbers += ["481.0", "482.0", "483.0", "490.0"]
        head.nth(4).click()
        assert cells.evaluate_all(column, 4) == [*numbers, "-", "-"]
        head.nth(4).click()
        assert cells.evaluate_all(column, 4) == [*reversed(numbers), "-", "-"]
        head.nth(3).click()
        words = ["done"] * 10 + ["failed: killed by SIGKILL", "unfinished"]
        assert cells.evaluate_all(column, 3) == words

        assert page.locator("figure svg").count() == 7
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
        write_report(mixed, tmp_path / out, "mean")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    stems = [{path.stem for path in (tmp_path / "one").glob(f"*.{x}")} for x in ("svg", "png")]
    assert stems[0] == stems[1]
    assert {"report.md", "index.html", "results.csv", "curves.csv", "profile.png"} <= set(names)
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
            "../job.json",
            '{"algorithm": "a", "env_id": "x", "seed": 1, "status": "done", "reason": "", '
            '"score_range": 3}',
            "job.json has a strange score_range",
        ),
        (
            "../job.json",
            '{"algorithm": "a", "env_id": "x", "seed": 1, "status": "done", "reason": "", '
            '"threshold": "high"}',
            "job.json has a strange threshold",
        ),
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


def test_a_full_disk_leaves_the_report_before_as_it_was(mixed, tmp_path):
    out = tmp_path / "out"
    write_report(mixed, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    result = benchmark("report", mixed, "--out", out, "--aggregate", "mean", preexec_fn=limit)
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
            store.write_csv(tmp_path / "results.csv", ["a"], [["x" * 10_000]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    assert (tmp_path / "results.csv").read_text() == "old"


# ==============================================================================================
# Language models
# ==============================================================================================
def write_task_job(
    root: Path, algorithm: str, seed: int, exact: float = 0.9, kl: float = 0.5, **run
) -> Path:
    """A job on the task "sums", of a script that knows its exact success."""
    further = {"exact_success": exact, "kl": kl, "base_exact_success": 0.42, "note": "x"}
    options = {"score_range": (0.4, 1.0), "threshold": 0.95, "further": further}
    return write_job(root, algorithm, "sums", seed, write=write_task_run, **options | run)


def test_eight_completions_are_logged_together_and_all_of_them_count(tmp_path):
    folder = write_task_job(tmp_path / "runs", "a", 1, completions=60) / "run"
    ((run,), problems) = find_runs(tmp_path / "runs")
    assert problems == []
    assert run.env_id == "sums"
    steps, returns = run.points["steps"]
    assert steps.tolist() == [step for step in range(8, 57, 8) for _ in range(8)] + [60] * 4
    assert returns.tolist() == pytest.approx([0.9] * 60)
    tag, path = "charts/episodic_return", folder / EVENT_FILE
    write_events(path, 1e9, [(tag, step, 1.0, 0.9) for step in (8, 16, 32, 40, 48, 56, 60)])
    ((run,), (problem,)) = find_runs(tmp_path / "runs")  # those up to step 24 were lost
    assert "hold 52 of its 60 episodes" in problem
    assert not run.has_curve


def test_a_task_run_made_by_hand(tmp_path):
    write_task_run(tmp_path / "runs" / "mine", "grpo", "sums", 3)
    ((run,), problems) = find_runs(tmp_path / "runs")
    assert problems == []
    assert (run.algorithm, run.env_id, run.seed, run.threshold) == ("grpo", "sums", 3, None)


def test_further_numbers_of_the_summaries_are_further_columns(tmp_path):
    write_job(tmp_path / "runs", "a2c", "CartPole-v1", 1)
    write_report(tmp_path / "runs", tmp_path / "before")
    assert list(rows(tmp_path / "before" / "results.csv")[0]) == store.COLUMNS
    write_task_job(tmp_path / "runs", "rloo", 1, exact=0.875, kl=0.25)
    write_task_job(tmp_path / "runs", "dpo", 1, kl=float("nan"))
    write_report(tmp_path / "runs", tmp_path / "out")
    table = rows(tmp_path / "out" / "results.csv")
    names = ["base_exact_success", "exact_success", "kl"]
    assert list(table[0]) == [*store.COLUMNS, *names]
    assert {row["algorithm"]: [row[name] for name in names] for row in table} == {
        "a2c": ["", "", ""],
        "rloo": ["0.42", "0.875", "0.25"],
        "dpo": ["0.42", "0.9", ""],
    }
    first = rows(tmp_path / "before" / "results.csv")[0]
    assert first.items() <= next(row for row in table if row["algorithm"] == "a2c").items()


def test_the_threshold_is_reached_by_exact_success_where_it_is_logged(tmp_path):
    root = tmp_path / "runs"
    write_task_job(root, "a", 1, exact=0.97, kl=0.7, completions=400,
                   log=((40, 0.5), (120, 0.949), (200, 0.951), (400, 0.97)))  # fmt: skip
    write_task_job(root, "a", 2, exact=0.99, kl=0.9, completions=400,
                   log=((40, 0.96), (120, 0.9), (400, 0.99)))  # fmt: skip
    write_task_job(root, "a", 3, exact=0.94, kl=0.5, completions=400,
                   log=((40, 0.5), (400, 0.94)))  # fmt: skip
    write_task_job(root, "a", 4, exact=0.98, kl=0.7, completions=400,
                   log=((40, 0.5), (200, 0.97), (400, 0.98)))  # fmt: skip
    write_task_job(root, "b", 1, final_return=1.0)  # logs none: by the training episodes
    write_task_job(root, "b", 2, status="failed", reason="exit status 1")
    write_report(root, tmp_path / "out")
    table = rows(tmp_path / "out" / "results.csv")
    times = [(row["steps_to_threshold"], row["seconds_to_threshold"]) for row in table]
    half = ("200.0", "5.0")
    assert times[:4] == [half, ("40.0", "1.0"), ("never", "never"), half]
    assert times[4][0] == "104.0"  # the 100th completion is logged with the 104th
    assert [row["threshold"] for row in table] == ["0.95"] * 6
    text = section((tmp_path / "out" / "report.md").read_text(), "sums")
    # Means with Student's intervals, t = 3.182: 0.0216 / 2 and 0.163 / 2 times that. Of
    # resamples of four, 5% have the fastest three times or more often, 26% what never got
    # there twice or more often: then these are the median.
    assert (
        "| a | 4 | 0.900 (saturated) | 0.970 [0.936, 1.004] | 0.700 [0.440, 0.960] | 3/4 "
        "| 200.0 [40.0, never] | 5.0 [1.0, never] | 40.0 (saturated) |" in text
    )
    assert "| b | 1 | 1.000 | 0.900 | 0.500 | 1/1 | 104.0 | 2.6 | 40.0 |" in text
    assert "threshold 0.95" in text
    assert "a: n = 4, 0 failed; b: n = 1, 1 failed" in text
    assert "| a | 4 | 0 | 400.0 | 0.900 (saturated) |" in text  # not 0.9
    assert "return of the training episodes by completions" in text


def test_seconds_of_exact_success_go_on_from_the_last_completion_of_a_session(tmp_path):
    tags = ("eval/exact_success", "charts/episodic_return")
    for name, start, step, purge in (("1", 1000.0, 8, None), ("2", 5000.0, 24, 17)):
        scalars = [(tags[0], step, 1.0, 0.5), (tags[1], step + 8, 3.0, 0.5)]
        write_events(tmp_path / f"events.out.tfevents.{name}", start, scalars, purge)
    steps, seconds, values = read_log(tmp_path, tags[:1])[0][tags[0]]
    assert (steps.tolist(), seconds.tolist(), values.tolist()) == ([8, 24], [1, 4], [0.5, 0.5])


def test_the_optimum_is_the_best_trade_of_success_for_divergence():
    base, shares = np.array([0.5, 0.25]), np.array([0.6, 0.4])
    kl, success = report.optimum(base, shares, 5000)  # between points it is drawn too low
    assert (kl[0], success[0]) == pytest.approx((0, 0.4))
    assert success[-1] > 0.999
    # sigmoid(logit p + 1 / beta), worked out by hand for p = 0.4 and beta = 0.5: 0.8313
    one = report.optimum(np.array([0.4]), np.ones(1))
    q = 1 / (1 + 1.5 * np.exp(-2))
    divergence = q * np.log(q / 0.4) + (1 - q) * np.log((1 - q) / 0.6)
    assert q == pytest.approx(0.8313, abs=1e-4)
    assert np.interp(q, *one[::-1]) == pytest.approx(divergence, abs=1e-3)
    # No other success on the two kinds of problems is above the curve.
    a, b = np.random.default_rng(0).uniform(0.01, 0.99, (2, 10_000))
    other = sum(
        share * (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)))
        for share, q, p in zip(shares, (a, b), base, strict=True)
    )
    slack = np.interp(other, kl, success) - (0.6 * a + 0.4 * b)
    assert (slack[other < kl[-1]] > -1e-3).all()
    assert slack.min() < 1e-3


@pytest.mark.parametrize(
    ("flags", "levels", "shares"),
    [
        ({"carelessness": 0.5, "coherent": False}, [0.5, 0.25], [0.68, 0.32]),
        ({"carelessness": 0.4, "coherent": False}, [0.6, 0.36], [0.25, 0.75]),
        ({"carelessness": 0.58, "coherent": True}, [0.42], [1]),
        ({"carelessness": 0.5, "coherent": None}, [0.42], [1]),
        ({"carelessness": 0.2, "coherent": False}, [0.42], [1]),  # no shares would give 0.42
        ({}, [0.42], [1]),
        ({"task_kwargs": "{}"}, [0.5, 0.25], [0.68, 0.32]),
        ({"task_kwargs": '{"carelessness": 0.4}'}, [0.6, 0.36], [0.25, 0.75]),
        ({"task_kwargs": '{"carelessness": 0.58, "coherent": true}'}, [0.42], [1]),
    ],
)
def test_base_success_by_construction_or_as_measured(tmp_path, flags, levels, shares):
    write_task_job(tmp_path, "a", 1, flags=flags)
    found = report.base_success(find_runs(tmp_path)[0])
    assert found[0].tolist() == pytest.approx(levels)
    assert found[1].tolist() == pytest.approx(shares)
    assert ("by construction" in found[2]) == (len(levels) == 2)


def test_frontier(tmp_path, figures):
    root = tmp_path / "runs"
    for seed, (exact, kl) in enumerate(((0.8, 0.3), (0.9, 0.5)), start=1):
        write_task_job(
            root, "a", seed, exact, kl, flags={"carelessness": 0.5, "coherent": False}
        )
    write_task_job(root, "b", 1, 0.7, 0.2)
    write_task_job(root, "c", 1, further={"kl": 1.0})  # knows no exact success
    write_report(root, tmp_path / "out")
    a, b = figures["frontier-sums"]["data"]["values"]
    assert (a["algorithm"], b["algorithm"]) == ("a (n = 2, 0 failed)", "b (n = 1, 0 failed)")
    half = 12.706 * 0.1  # Student's, of two values 0.2 apart
    ends = [a[name] for name in ("x", "left", "right", "success")]
    assert ends == pytest.approx([0.4, 0.4 - half, 0.4 + half, 0.85], rel=1e-3)
    assert b["x"] == 0.2
    assert b["left"] is b["low"] is None  # one seed tells nothing about the spread
    text = (tmp_path / "out" / "report.md").read_text()
    assert "![frontier-sums](frontier-sums.png)" in text
    assert "success of 0.5 on 68% of the problems and 0.25 on the others" in text
    assert "| c | 0 | - | - | - | - | - | - | - |" in text


def test_no_frontier_without_a_base_model_to_start_from(mixed, tmp_path, figures):
    write_task_job(mixed, "a", 1, further={"exact_success": 0.9, "kl": 0.5})
    write_report(mixed, tmp_path / "out")
    assert not [name for name in figures if name.startswith("frontier")]


def test_the_frontier_joins_algorithms_that_differ_in_the_kl_weight_alone(tmp_path):
    for name, script, flags in (
        ("first", "a.py", {"kl_coef": 0.5, "clip": 0.2}),
        ("third", "a.py", {"kl_coef": 0.0, "clip": 0.2}),
        ("second", "a.py", {"kl_coef": 0.05, "clip": 0.2}),
        ("other-clip", "a.py", {"kl_coef": 0.05, "clip": 0.3}),
        ("other-script", "b.py", {"kl_coef": 0.05, "clip": 0.2}),
        ("no-weight", "a.py", {"clip": 0.2}),
    ):
        for seed in (1, 2):
            write_task_job(tmp_path, name, seed, flags=flags | {"script": script, "seed": seed})
    groups = grouped(find_runs(tmp_path)[0], "env_id", "algorithm")["sums"]
    families = report.kl_families(groups)
    assert sorted(families, key=len, reverse=True)[0] == ["third", "second", "first"]
    assert sorted(map(len, families)) == [1, 1, 3]


def frontier_of(tmp_path, variants: dict[str, tuple]) -> dict:
    """The figure of runs by algorithm: script, kl_coef, exact success, KL."""
    for name, (script, kl_coef, exact, kl) in variants.items():
        flags = {"script": script, "kl_coef": kl_coef}
        write_task_job(tmp_path / "runs", name, 1, exact, kl, flags=flags)
    found = find_runs(tmp_path / "runs")[0]
    scripts = {run.algorithm: Path(run.args["script"]).stem for run in found}
    groups = grouped(found, "env_id", "algorithm")["sums"]
    return report.frontier("sums", groups, plots.styles(variants, scripts)).spec


def channel(spec: dict, name: str) -> dict:
    """The scale of a channel of the frontier's points."""
    scale = spec["layer"][-1]["encoding"][name]["scale"]
    return dict(zip(scale["domain"], scale["range"], strict=True))


@pytest.mark.parametrize("length", [5, 17, 20, 30, 34, 50])
def test_legends_hold_their_labels_below_the_plot(length):
    """Where Vega puts them: no label is cut, and the picture is as wide as they need."""
    names = [f"{k}" * length for k in range(7)]
    line = tuple(np.arange(4.0) for _ in range(4))
    spec = plots.plot_bands(dict.fromkeys(names, line), plots.styles(names), "t", "x", "y")
    svg = plots.vl_convert.vegalite_to_svg(spec)
    assert all(f">{name}</text>" in svg for name in names)
    width = float(re.search(r'<svg[^>]* width="([\d.]+)"', svg)[1])
    assert width < (480 if length < 20 else 800)


def test_many_algorithms_have_a_panel_each():
    names = [f"algorithm {k}" for k in range(8)]
    line = tuple(np.arange(4.0) for _ in range(4))
    spec = plots.plot_bands(dict.fromkeys(names, line), plots.styles(names), "t", "x", "y")
    assert [panel["title"]["text"] for panel in spec["concat"]] == names
    svg = plots.vl_convert.vegalite_to_svg(spec)
    assert all(f">{name}</text>" in svg for name in names)
    assert svg.count("line mark") >= 8 * 8  # its own, and the others behind it
    seven = plots.plot_bands(dict.fromkeys(names[:7], line), plots.styles(names), "t", "x", "y")
    assert "concat" not in seven


def test_colours_are_the_same_in_every_report_and_a_peer_has_its_scripts():
    style = plots.styles(["ppo", "sb3-ppo", "trpo", "ppo clip_coef=0.1", "mine"])
    alone = plots.styles(["trpo"])
    assert style["trpo"] == alone["trpo"]
    assert len({style[name]["colour"] for name in ("ppo", "trpo", "mine")}) == 3
    assert len({style[n]["colour"] for n in ("ppo", "sb3-ppo", "ppo clip_coef=0.1")}) == 1
    assert len({str(style[n]["dash"]) for n in ("ppo", "sb3-ppo", "ppo clip_coef=0.1")}) == 3
    assert style["ppo"]["dash"] == plots.DASHES[0]
    variant = plots.styles(["short", "ppo"], {"short": "ppo", "ppo": "ppo"})
    assert variant["short"]["colour"] == variant["ppo"]["colour"] == style["ppo"]["colour"]


def test_one_failed_seed_cannot_squash_an_axis(tmp_path, figures):
    for seed in range(1, 5):
        write_job(tmp_path / "runs", "a", "CartPole-v1", seed, final_return=100.0 + seed)
    write_job(tmp_path / "runs", "a", "CartPole-v1", 5, final_return=-1e6)
    write_report(tmp_path / "runs", tmp_path / "out", "mean")
    for layer in figures["curve-steps-CartPole-v1"]["layer"]:
        low, high = layer["encoding"]["y"]["scale"]["domain"]
        assert -80 < low < 0
        assert 100 < high < 160
        assert layer["mark"]["clip"]


def test_eighteen_points_of_the_frontier_can_be_told_apart(tmp_path):
    variants = {
        f"script_{k % 5}-true-kl-{k}": (f"script_{k % 5}.py", k, 0.5 + k / 50, 0.1 + k / 20)
        for k in range(18)
    }
    spec = frontier_of(tmp_path, variants)
    names = [row["algorithm"] for row in spec["data"]["values"]]
    assert names == sorted(variants)  # of one script beside each other
    colours, shapes = channel(spec, "color"), channel(spec, "shape")
    assert len({(colours[name], shapes[name]) for name in names}) == 18
    assert len({(name.split("-")[0], colours[name]) for name in names}) == 5
    assert len(set(colours.values())) == 5


def test_lines_of_the_frontier_are_straight_without_its_scales(tmp_path):
    variants = {
        "a": ("a.py", 0.5, 0.6, 0.1),
        "b": ("a.py", 0.1, 0.9, 0.7),
        "c": ("c.py", 1, 0.5, 0),
    }
    spec = frontier_of(tmp_path, variants)
    paths = spec["layer"][0]["data"]["values"]
    line = [row for row in paths if row["line"] == "b"]
    x = np.array([row["x"] for row in line])
    y = 1 / (1 + np.exp(-np.array([row["y"] for row in line])))  # drawn as log-odds
    assert (x[0], y[0], x[-1], y[-1]) == pytest.approx((0.7, 0.9, 0.1, 0.6), rel=1e-4)
    np.testing.assert_allclose(y, 0.6 + (x - 0.1) / 2, rtol=1e-3)
    assert {row["colour"] for row in line} == {channel(spec, "color")["b"]}


def test_the_frontier_shows_certain_success_and_none(tmp_path):
    spec = frontier_of(tmp_path, {"a": ("a.py", 0, 1.0, 0.9), "b": ("b.py", 0, 0.0, 0.7)})
    shown = {r["algorithm"]: 1 / (1 + np.exp(-r["y"])) for r in spec["data"]["values"]}
    assert shown == pytest.approx({"a": 0.999, "b": 0.001}, rel=1e-3)
    low, high = spec["layer"][-1]["encoding"]["y"]["scale"]["domain"]
    assert low < -6.9 < 6.9 < high


def test_the_frontier_has_room_for_what_went_far(tmp_path):
    variants = {"a": ("a.py", 0, 0.9, 0.9), "b": ("b.py", 0, 0.1, 40.0)}
    x = frontier_of(tmp_path / "far", variants)["layer"][-1]["encoding"]["x"]
    assert x["scale"]["type"] == "symlog"
    variants["b"] = ("b.py", 0, 0.1, 2.0)
    x = frontier_of(tmp_path / "near", variants)["layer"][-1]["encoding"]["x"]
    assert "type" not in x["scale"]


def test_the_frontier_is_as_high_as_its_points_need(tmp_path):
    variants = {"a": ("a.py", 0, 0.9, 0.9), "b": ("b.py", 0, 0.7, 0.7)}
    ends = frontier_of(tmp_path, variants)["layer"][-1]["encoding"]["y"]["scale"]["domain"]
    low, high = 1 / (1 + np.exp(-np.array(ends)))
    assert 0.3 < low < 0.42  # where the optimum begins
    assert 0.9 < high < 0.95


def test_legends_count_only_where_the_counts_differ(tmp_path):
    for name, seeds in (("a", 2), ("b", 2), ("c", 3)):
        for seed in range(seeds):
            write_job(tmp_path, name, "CartPole-v1", seed)
    groups = grouped(find_runs(tmp_path)[0], "env_id", "algorithm")["CartPole-v1"]
    assert report.legend_labels("ab", groups) == {"a": "a", "b": "b"}
    assert report.legend_labels("ac", groups) == {
        "a": "a (n = 2, 0 failed)",
        "c": "c (n = 3, 0 failed)",
    }


# ==============================================================================================
# Logged values
# ==============================================================================================
def test_logged_values_are_drawn_counted_and_stored(tmp_path, figures):
    root, out = tmp_path / "runs", tmp_path / "out"
    finals = [1.0, 2.0, 4.0, 9.0]
    for seed, final in enumerate(finals, start=1):
        logged = {"losses/score": {80: final, 240: 2 * final, 400: 3 * final}}
        write_task_job(root, "a", seed, logged=logged | {"losses/kl": {80: 0.5}})
    write_task_job(root, "a", 5)  # logs nothing
    write_task_job(root, "a", 6, status="failed", reason="exit status 1")
    write_task_job(root, "b", 1, logged={"losses/kl": {80: 0.25}})
    write_task_job(root, "c", 1, status="failed", reason="exit status 1")  # might have
    write_task_job(root, "d", 1, status="running", logged=logged)
    write_job(root, "a", "CartPole-v1", 1)
    write_report(root, out, tags=["losses/score", "losses/kl"])

    spec = figures["log-losses_score-sums"]
    channels = spec["layer"][1]["encoding"]
    assert (spec["title"], channels["x"]["title"]) == ("sums", "completions")
    assert channels["y"]["title"] == "losses/score"
    assert list(lines_of(spec)) == ["a"]
    x, y, low, high = lines_of(spec)["a"]
    assert x.tolist() == [80, 240, 400]
    assert y.tolist() == pytest.approx([4, 8, 12])  # the mean, though curves show the IQM
    half = 3.182 * np.std(finals, ddof=1) / 2  # Student's
    np.testing.assert_allclose(low, (4 - half) * np.arange(1, 4), rtol=1e-3)
    np.testing.assert_allclose(high, (4 + half) * np.arange(1, 4), rtol=1e-3)
    names = [name.partition(" ")[0] for name in lines_of(figures["log-losses_kl-sums"])]
    assert names == ["a", "b"]
    assert [name for name in figures if name.startswith("log")] == [
        "log-losses_score-sums",
        "log-losses_kl-sums",
    ]

    text = section((out / "report.md").read_text(), "sums")
    assert "![log-losses_score-sums](log-losses_score-sums.png)" in text
    score, kl = re.findall(r"\*(sums: losses/.*)\*", text)
    assert "Student's 95% band" in score
    assert (
        "a: n = 4, 1 failed, 1 without this log; c: n = 0, 1 failed; "
        "d: n = 0, 0 failed, 1 unfinished. Not logged by b." in score
    )
    assert "b: n = 1, 0 failed; c" in kl
    assert kl.endswith("1 unfinished.")

    table = rows(out / "logged.csv")
    assert list(table[0]) == ["env_id", "algorithm", "seed", "tag", "step", "value"]
    assert [list(row.values())[:4] for row in table[:3]] == [
        ["sums", "a", "1", "losses/score"]
    ] * 3
    assert [(row["seed"], row["step"], float(row["value"])) for row in table[:12]] == [
        (str(seed), str(step), k * final)
        for seed, final in enumerate(finals, start=1)
        for k, step in enumerate((80, 240, 400), start=1)
    ]
    assert [(row["algorithm"], row["tag"], row["value"]) for row in table[12:]] == [
        *[("a", "losses/kl", "0.5")] * 4,
        ("b", "losses/kl", "0.25"),
    ]


def test_without_tags_nothing_is_drawn_or_stored_of_the_log(tmp_path):
    write_task_job(tmp_path / "runs", "a", 1, logged={"losses/kl": {80: 0.5}})
    write_report(tmp_path / "runs", tmp_path / "out")
    assert not list((tmp_path / "out").glob("log*"))
    assert "losses/kl" not in (tmp_path / "out" / "report.md").read_text()


def drawn_log(tmp_path, *logs: dict[int, float], **options) -> list[list[float]]:
    """Steps and means of the line that runs with these logs give."""
    for seed, log in enumerate(logs):
        write_task_job(tmp_path, "a", seed, logged={"x": log}, **options)
    groups = grouped(find_runs(tmp_path, ["x"])[0], "env_id", "algorithm")["sums"]
    (figure,) = report.log_figures("sums", groups, plots.styles("a"), ["x"])
    return [part.tolist() for part in lines_of(figure.spec)["a"][:2]]


def test_seeds_that_log_at_other_steps_are_read_where_the_sparsest_log_is(tmp_path):
    sparse = {100: 1.0, 200: 2.0, 400: 4.0}
    dense = {90: 3.0, 101: 5.0, 150: 6.0, 200: 10.0, 401: 99.0}
    # Of the dense one: 3; the mean of 5, 6 and 10, which is 7; 7 again.
    steps, means = drawn_log(tmp_path, dense, sparse, completions=408)
    assert steps == [100, 200, 400]
    assert means == pytest.approx([(1 + 3) / 2, (2 + 7) / 2, (4 + 7) / 2])


def test_a_logged_line_begins_and_ends_where_every_run_does(tmp_path):
    short = dict.fromkeys((100, 200, 300, 310), 4.0)
    write_task_job(tmp_path, "a", 9, completions=320, logged={"x": short})
    sparse, late = (dict.fromkeys(at, 2.0) for at in ((250, 300, 400), (280, 290, 300, 400)))
    steps, means = drawn_log(tmp_path, sparse, late, completions=400)
    assert (steps, means) == ([300], pytest.approx([8 / 3], rel=1e-4))


def test_the_grid_of_a_long_log_is_thinned_and_keeps_its_last_step():
    log = np.array([np.arange(1, 251), np.zeros(250), np.zeros(250)])
    assert report.log_grid([log], 250).tolist() == list(range(1, 251, 3))
    assert report.log_grid([log], 249).tolist() == list(range(3, 250, 3))
    assert report.log_grid([log], 100).tolist() == list(range(1, 101))
    assert report.log_grid([log, log[:, [4, 4, 9]]], 250).tolist() == [5, 10]
    assert report.log_grid([log], 0).tolist() == []


def test_a_log_that_has_no_step_in_common_still_makes_a_report(tmp_path, figures, drawn):
    write_task_job(tmp_path / "runs", "a", 1, completions=400, logged={"x": {400: 1.0}})
    write_task_job(tmp_path / "runs", "a", 2, completions=80, logged={"x": {8: 1.0, 80: 1.0}})
    write_report(tmp_path / "runs", tmp_path / "out", tags=["x"])
    assert figures["log-x-sums"]["data"]["values"] == []
    assert len(rows(tmp_path / "out" / "logged.csv")) == 3


def test_the_log_of_a_damaged_file_is_not_used(tmp_path):
    logged = {"x": dict.fromkeys(range(8, 401, 8), 1.0)}
    whole = write_task_job(tmp_path / "runs", "a", 1, logged=logged)
    folder = write_task_job(tmp_path / "runs", "a", 2, logged=logged) / "run"
    content = (folder / EVENT_FILE).read_bytes()
    (folder / EVENT_FILE).write_bytes(content[: len(content) // 2])
    write_report(tmp_path / "runs", tmp_path / "out", tags=["x"])
    assert {row["seed"] for row in rows(tmp_path / "out" / "logged.csv")} == {"1"}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Each algorithm: n = 1, 0 failed, 1 without this log" in text
    shutil.rmtree(whole)
    with pytest.raises(BadInput, match="no run that is done logged x; they logged "):
        write_report(tmp_path / "runs", tmp_path / "out", tags=["x"])


def test_report_draws_and_refuses_tags_from_the_command_line(tmp_path, capsys):
    write_task_job(tmp_path / "runs", "a", 1, logged={"losses/kl": {80: 0.5}})
    write_task_job(tmp_path / "runs", "b", 1, logged={"losses/b": {80: 0.5}})
    words = ["report", tmp_path / "runs", "--out", tmp_path / "out", "--log", "losses/kl"]
    result = benchmark(*words, "losses/score")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: no run that is done logged losses/score; "
        "they logged charts/episodic_return, losses/b, losses/kl\n"
    )
    assert not (tmp_path / "out").exists()
    assert benchmark(*words, "--log", "losses/b", "losses/kl").returncode == 0
    tags = [row["tag"] for row in rows(tmp_path / "out" / "logged.csv")]
    assert tags == ["losses/kl", "losses/b"]
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    assert "--log TAG [TAG ...]" in capsys.readouterr().out


def test_environments_are_drawn_apart_and_in_their_own_steps(tmp_path):
    write_job(tmp_path / "runs", "a", "CartPole-v1", 1, losses=16)
    write_job(tmp_path / "runs", "a", "Pendulum-v1", 1)
    write_task_job(tmp_path / "runs", "b", 1, logged={"losses/3": {80: 0.5}})
    write_report(tmp_path / "runs", tmp_path / "out", tags=["losses/3"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "losses/3 by environment steps" in section(text, "CartPole-v1")
    assert "losses/3 by completions" in section(text, "sums")
    assert "losses/3" not in section(text, "Pendulum-v1")
    assert [row["step"] for row in rows(tmp_path / "out" / "logged.csv")] == ["3", "11", "80"]


def test_check_compares_runs_on_tasks(tmp_path):
    for seed in range(1, 6):
        write_task_job(tmp_path / "stored", "a", seed, final_return=0.98 + seed / 1000)
        write_task_job(tmp_path / "worse", "a", seed, final_return=0.95 + seed / 1000)
    write_report(tmp_path / "stored", tmp_path / "out")
    assert not check(tmp_path / "stored", tmp_path / "out" / "results.csv")[1]
    lines, worse = check(tmp_path / "worse", tmp_path / "out" / "results.csv")
    assert worse
    assert lines[0].startswith(
        "WORSE: a on sums, eval_return_mean: 0.953 (n = 5), stored 0.983"
    )


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("benchmark/results/*/results.csv")),
    ids=lambda path: path.parent.name,
)
def test_stored_reports_are_made_again_to_the_byte(path, tmp_path, figures):
    """When reports change: python -m benchmark report benchmark/results/NAME, for all."""
    write_report(path.parent, tmp_path)
    for made in tmp_path.glob("*.[cmj]*"):
        assert made.read_bytes() == path.with_name(made.name).read_bytes(), made.name
    files = {file.name for stem in figures for file in path.parent.glob(f"{stem}.*")}
    assert files == {f"{stem}.{kind}" for stem in figures for kind in ("svg", "png")}
    files |= {made.name for made in tmp_path.iterdir()} - {"index.html"}
    assert files == {file.name for file in path.parent.iterdir()} - {"index.html"}


@pytest.mark.skipif(
    not version("vl-convert-python").startswith("1.9."), reason="stored figures are 1.9's"
)
@pytest.mark.parametrize("name", ["defaults", "sac"])
def test_stored_figures_are_made_again_to_the_byte(name, tmp_path, drawn):
    """A PNG is not, unless its figure has changed: its pixels depend on the fonts here."""
    stored, again = ROOT / "benchmark" / "results" / name, tmp_path / name
    shutil.copytree(stored, again)
    (again / "index.html").unlink(missing_ok=True)
    write_report(again, again)
    for file in stored.glob("*.[sp]*"):
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_figure_is_drawn_anew_if_it_has_changed_or_a_file_is_gone(tmp_path, drawn):
    spec = plots.plot_bands(
        {"a": ((0, 1), (0, 1), (0, 1), (0, 1))}, plots.styles("a"), "", "", ""
    )
    svg, png = tmp_path / "x.svg", tmp_path / "x.png"
    plots.save(spec, tmp_path / "x")
    first = png.read_bytes()
    png.write_bytes(b"of other fonts")
    plots.save(spec, tmp_path / "x")
    assert png.read_bytes() == b"of other fonts"
    for spoil in (png.unlink, svg.unlink, lambda: svg.write_bytes(b"of another figure")):
        spoil()
        plots.save(spec, tmp_path / "x")
        assert png.read_bytes() == first
        png.write_bytes(b"of other fonts")


# ==============================================================================================
# check
# ==============================================================================================
ENVIRONMENTS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")


def write_set(
    root: Path, first_seed: int, means: dict[str, float], seeds: int = 5, **options
) -> Path:
    """Runs of two algorithms whose returns scatter around `means` by environment."""
    rng = np.random.default_rng(first_seed)
    for env_id in ENVIRONMENTS:
        for algorithm in ("a", "b"):
            for seed in range(first_seed, first_seed + seeds):
                value = rng.normal(
                    means.get(f"{algorithm}/{env_id}", means.get(env_id, 300.0)), 20
                )
                write_job(
                    root, algorithm, env_id, seed, final_return=value, episodes=5, **options
                )
    return root


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", lambda *_: None)
        patch.setattr(page, "bundle", lambda: "")
        write_report(write_set(root / "stored", 1, {}), root / "stored-report")
    return root


@pytest.fixture
def stored(tmp_path, made_once):
    """Runs in "stored" and the results that were stored of them."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "stored-report" / "results.csv"


def test_check_passes_a_repeat_with_other_seeds(tmp_path, stored):
    lines, worse = check(write_set(tmp_path / "new", 101, {}), stored)
    assert not worse, lines
    assert len(lines) == 12  # 2 algorithms, 3 environments, 2 measures
    assert benchmark("check", tmp_path / "new", "--against", stored).returncode == 0


def test_check_finds_a_planted_regression_and_only_that(tmp_path, stored):
    new = write_set(tmp_path / "new", 101, {"b/Acrobot-v1": 200.0})
    lines, worse = check(new, stored)
    assert worse
    bad = [line for line in lines if line.startswith("WORSE")]
    assert len(bad) == 2
    assert all("b on Acrobot-v1" in line for line in bad)
    result = benchmark("check", new, "--against", stored)
    assert result.returncode == 1
    assert "WORSE: b on Acrobot-v1, eval_return_mean" in result.stdout


def test_check_lets_an_improvement_pass(tmp_path, stored):
    assert not check(write_set(tmp_path / "new", 101, {"CartPole-v1": 450.0}), stored)[1]


def test_check_counts_a_failed_run_as_worse_and_says_what_is_not_here(tmp_path, stored):
    for seed in (101, 102, 103):
        write_job(
            tmp_path / "new", "a", "CartPole-v1", seed, final_return=300 + seed, episodes=5
        )
    lines, worse = check(tmp_path / "new", stored)
    assert not worse
    assert "not here: b on Pendulum-v1" in lines
    write_job(tmp_path / "new", "a", "CartPole-v1", 104, "failed", "exit status 1")
    lines, worse = check(tmp_path / "new", stored)
    assert worse
    assert "failed: a on CartPole-v1, seed 104 exit status 1" in lines


def test_check_lists_the_failures_where_every_run_failed(tmp_path, stored):
    write_job(tmp_path / "new", "a", "CartPole-v1", 101, "failed", "exit status 1")
    result = benchmark("check", tmp_path / "new", "--against", stored)
    assert result.returncode == 1
    assert "failed: a on CartPole-v1, seed 101 exit status 1" in result.stdout
    assert "not here: a on CartPole-v1" in result.stdout


def test_check_counts_a_measure_that_has_vanished_as_worse(tmp_path, stored):
    for seed in (101, 102, 103):  # not one episode ended
        write_job(
            tmp_path / "new", "a", "CartPole-v1", seed, final_return=300 + seed, episodes=0
        )
    lines, worse = check(tmp_path / "new", stored)
    assert worse
    assert (
        "WORSE: a on CartPole-v1, train_return_mean: no run has it, 5 stored ones do" in lines
    )


def test_check_refuses_what_cannot_be_compared(tmp_path, stored):
    for name, text in (
        ("empty.csv", ""),
        ("other.csv", "a,b\n1,2\n"),
        ("bad.csv", "status,algorithm\ndone,a\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput):
            check(tmp_path / "stored", tmp_path / name)
    with pytest.raises(BadInput, match="cannot read"):
        check(tmp_path / "stored", tmp_path / "missing.csv")
    with pytest.raises(BadInput, match=r"ran \[500\] steps here and \[10000\]"):
        check(write_set(tmp_path / "short", 1, {}, total_timesteps=500), stored)
    write_job(tmp_path / "one", "a", "CartPole-v1", 1)
    with pytest.raises(BadInput, match="two seeds or more"):
        check(tmp_path / "one", stored)


# ==============================================================================================
# With the real scripts
# ==============================================================================================
def test_real_scripts_from_run_to_report_and_again(tmp_path, drawn):
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
