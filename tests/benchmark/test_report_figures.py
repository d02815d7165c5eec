"""The figures of a report: language models, styles and axes, logged values."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_runs import EVENT_FILE, write_events, write_job, write_task_run
from harness import benchmark
from report_helpers import lines_of, rows, section, write_task_job

from benchmark import curves, plots, store, tasks
from benchmark.__main__ import main
from benchmark.events import read_log
from benchmark.report import write_report
from benchmark.runs import find_runs, grouped
from benchmark.words import BadInput

pytestmark = pytest.mark.usefixtures("figures")


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
    kl, success = tasks.optimum(base, shares, 5000)  # between points it is drawn too low
    assert (kl[0], success[0]) == pytest.approx((0, 0.4))
    assert success[-1] > 0.999
    # sigmoid(logit p + 1 / beta), worked out by hand for p = 0.4 and beta = 0.5: 0.8313
    one = tasks.optimum(np.array([0.4]), np.ones(1))
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
    found = tasks.base_success(find_runs(tmp_path)[0])
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
    assert (a["algorithm"], b["algorithm"]) == ("a", "b")
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


def frontier_of(tmp_path, variants: dict[str, tuple]) -> dict:
    """The figure of runs by algorithm: script, kl_coef, exact success, KL."""
    for name, (script, kl_coef, exact, kl) in variants.items():
        flags = {"script": script, "kl_coef": kl_coef}
        write_task_job(tmp_path / "runs", name, 1, exact, kl, flags=flags)
    found = find_runs(tmp_path / "runs")[0]
    scripts = {run.algorithm: Path(run.args["script"]).stem for run in found}
    groups = grouped(found, "env_id", "algorithm")["sums"]
    return tasks.frontier("sums", groups, plots.styles(variants, scripts)).spec


def channel(spec: dict, name: str) -> dict:
    """The scale of a channel of the frontier's points."""
    scale = spec["layer"][-1]["encoding"][name]["scale"]
    return dict(zip(scale["domain"], scale["range"], strict=True))


@pytest.mark.parametrize(("level", "dy"), [(18.0, 8), (10.0, -5), (-21.0, -5)])
def test_the_name_of_a_threshold_is_not_cut_off_at_the_top(level, dy):
    line = {"a": tuple(np.zeros((4, 2)))}
    spec = plots.plot_bands(line, plots.styles(line), "t", "x", "y", level, (-21.5, 19.0))
    (text,) = (x["mark"] for x in spec["layer"] if x["mark"].get("text"))
    assert (text["text"], text["dy"]) == (f"threshold {level:g}", dy)


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
    """And the caption says that something is cut off, but only then."""
    for seed in range(1, 5):
        write_job(tmp_path / "runs", "a", "CartPole-v1", seed, final_return=100.0 + seed)
    write_report(tmp_path / "runs", tmp_path / "whole")
    write_job(tmp_path / "runs", "a", "CartPole-v1", 5, final_return=-1e6)
    write_report(tmp_path / "runs", tmp_path / "out")
    says = [
        "go on beyond" in (tmp_path / x / "report.md").read_text() for x in ("whole", "out")
    ]
    assert says == [False, True]
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
    figure = curves.log_figure("sums", groups, plots.styles("a"), "x")
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
    assert curves.log_grid([log], 250).tolist() == list(range(1, 251, 3))
    assert curves.log_grid([log], 249).tolist() == list(range(3, 250, 3))
    assert curves.log_grid([log], 100).tolist() == list(range(1, 101))
    assert curves.log_grid([log, log[:, [4, 4, 9]]], 250).tolist() == [5, 10]
    assert curves.log_grid([log], 0).tolist() == []


def test_a_log_that_has_no_step_in_common_still_makes_a_report(tmp_path, figures):
    write_task_job(tmp_path / "runs", "a", 1, completions=400, logged={"x": {400: 1.0}})
    write_task_job(tmp_path / "runs", "a", 2, completions=80, logged={"x": {8: 1.0, 80: 1.0}})
    write_report(tmp_path / "runs", tmp_path / "out", tags=["x"])
    assert figures["log-x-sums"]["data"]["values"] == []
    assert plots.vl_convert.vegalite_to_svg(figures["log-x-sums"]).startswith("<svg")
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
    with pytest.raises(BadInput, match="no run that is done logged x"):
        write_report(tmp_path / "runs", tmp_path / "out", tags=["x"])


def test_report_draws_and_refuses_tags_from_the_command_line(tmp_path, capsys):
    write_task_job(tmp_path / "runs", "a", 1, logged={"losses/kl": {80: 0.5}})
    write_task_job(tmp_path / "runs", "b", 1, logged={"losses/b": {80: 0.5}})
    words = ["report", tmp_path / "runs", "--out", tmp_path / "out", "--log", "losses/kl"]
    result = benchmark(*words, "losses/score")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == ("error: no run that is done logged losses/score\n")
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
