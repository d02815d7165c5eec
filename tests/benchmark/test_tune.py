"""python -m benchmark tune: spaces, bounds, a search with a script whose best flags are known,
what is pruned, resumed, refused and shared."""

import itertools
import json
import math
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import tomllib
from harness import PATIENCE, ROOT, benchmark, wait_until
from scipy import stats as scipy_stats

from benchmark import page, plots, pool, ray_pool, tune
from benchmark.grid import ROOT as HERE
from benchmark.grid import load_suite, make_jobs, parse_flags
from benchmark.runs import find_runs
from benchmark.space import SPACES, Dimension, load_space
from benchmark.variants import script_defaults
from benchmark.words import BadInput

LEARNER = Path(__file__).parent / "fake_learner.py"
SPACE = """
[space]
source = "the test"
learning_rate = { low = 1e-4, high = 1.0, scale = "log" }
num_envs = { low = 1, high = 8, scale = "powers of 2" }
norm_adv = { choices = [true, false] }
"""


@pytest.fixture
def words(tmp_path, monkeypatch):
    """The command line of a small search, figures left out."""
    monkeypatch.setattr(plots, "save", lambda spec, stem: None)
    monkeypatch.setattr(page, "bundle", lambda: "")
    (tmp_path / "space.toml").write_text(SPACE)
    return [
        "tune", LEARNER, "--env-id", "CartPole-v1", "--steps", 1000, "--trials", 8,
        "--seeds", "1000-1001", "--fresh-seeds", "2000-2003", "--workers", 2,
        "--space", tmp_path / "space.toml", "--dir", tmp_path / "out",
    ]  # fmt: skip


def study_of(folder: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name="tune", storage=storage)


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return [x for x in study_of(folder).get_trials() if tune.DEFAULT not in x.user_attrs]


def tuned_flags(folder: Path) -> dict:
    """The flags of the best trial, as best.toml has them."""
    algorithms = load_suite(str(folder / "best.toml"))["algorithms"]
    (flags,) = [x["flags"] for name, x in algorithms.items() if name.endswith("tuned")]
    return flags


# ==============================================================================================
# Spaces
# ==============================================================================================
def test_every_script_has_a_space():
    assert {path.stem for path in HERE.glob("*.py")} <= set(tomllib.loads(SPACES.read_text()))


@pytest.mark.parametrize("name", tomllib.loads(SPACES.read_text()))
def test_every_space_fits_its_script_and_draws_batches_that_divide(name):
    script = "benchmark/peers/sb3.py" if name.startswith("sb3-") else f"{name}.py"
    known, space = script_defaults(HERE / script), load_space(name)
    assert {x.name for x in space} <= known.keys()
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(50):
        trial = study.ask({x.name: x.distribution() for x in space})
        flags = {x.name: x.value(trial.params[x.name]) for x in space}
        batch = flags.get("num_envs", 1) * flags.get("num_steps", 1)
        if "num_steps" not in flags:
            batch = flags.get("batch_size", 1)
        assert batch % flags.get("num_minibatches", 1) == 0
        assert batch % flags.get("num_generations", 1) == 0
        for x in space:
            assert x.choices or x.low <= flags[x.name] <= x.high, (x, flags[x.name])
            back = x.nearest(flags[x.name])
            assert x.value(back) == flags[x.name]


@pytest.mark.parametrize(
    ("dimension", "value", "nearest"),
    [
        (Dimension("x", 4, 64, "powers of 2"), 16, 4),
        (Dimension("x", 4, 64, "powers of 2"), 1000, 6),
        (Dimension("x", 0.9, 0.99, "log of 1 - x"), 0.95, 1 - 0.95),
        (Dimension("x", 1e-5, 0.1, "log"), 0.0, 1e-5),
        (Dimension("x", 1, 20, "log"), 5, 5),
        (Dimension("x", 0, 0.5), 0.1, 0.1),
        (Dimension("x", 0, 5), 1.6, 2),
        (Dimension("x", choices=(True, False)), False, False),
        (Dimension("x", choices=(True, False)), 3, None),
        (Dimension("x", 0.1, 0.4), None, None),
        (Dimension("x", 0.1, 4.0), True, None),
    ],
)
def test_defaults_stand_at_the_nearest_place_of_a_space(dimension, value, nearest):
    assert dimension.nearest(value) == nearest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "x must be a table"),
        ("[a]\nx = { low = 1, high = 2 }", "must name the source"),
        ('[a]\nsource = "s"', "leaves no flag to vary"),
        ('[a]\nsource = "s"\nx = 1', "must be a table such as"),
        ('[a]\nsource = "s"\nx = { low = 2, high = 1 }', "two rising numbers"),
        ('[a]\nsource = "s"\nx = { low = 1, high = 2, step = 1 }', "takes low, high and scale"),
        ('[a]\nsource = "s"\nx = { low = 0, high = 1, scale = "log" }', "low must be above 0"),
        ('[a]\nsource = "s"\nx = { low = 0.5, high = 1.0, scale = "log of 1 - x" }', "below 1"),
        ('[a]\nsource = "s"\nx = { low = 3, high = 8, scale = "powers of 2" }', "powers of 2"),
        (
            '[a]\nsource = "s"\nx = { low = 3, high = 8, scale = "square" }',
            "one of linear, log",
        ),
        ('[a]\nsource = "s"\nx = { choices = [1] }', "two values or more"),
        ('[a]\nsource = "s"\nlike = "b"\nx = { choices = [1, 2] }', "no table that stands"),
        ('[a]\nsource = "s"\nlike = ["b"]\nx = { choices = [1, 2] }', "no table that stands"),
        ('[a]\nsource = "s"\nx = { choices = [2020-01-01, 1] }', "two values or more"),
        ('[a]\nsource = "s"\nx = { low = 1, high = inf }', "two rising numbers"),
        ('[a]\nsource = "s"\ntotal-timesteps = { choices = [1, 2] }', "that is --steps"),
        ('[a]\nsource = "s"\nseed = { choices = [1, 2] }', "must not give seed"),
        ("[a", "s.toml: Expected"),
    ],
)
def test_a_space_that_cannot_work_is_refused_by_its_place(tmp_path, text, says):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(BadInput, match=re.escape(says)):
        load_space(str(tmp_path / "s.toml"))


def test_a_space_takes_over_another_but_for_what_is_fixed(tmp_path):
    text = SPACE + '[like]\nsource = "s"\nlike = "space"\nnorm_adv = "fixed"\n'
    (tmp_path / "s.toml").write_text(text + "num_envs = { choices = [1, 3] }\n")
    name = f"{tmp_path / 's.toml'}:like"
    assert [x.name for x in load_space(name)] == ["learning_rate", "num_envs"]
    assert load_space(name)[1].choices == (1, 3)
    assert [x.name for x in load_space(name, {"num_envs": 4})] == ["learning_rate"]
    (tmp_path / "dashes.toml").write_text(SPACE.replace("_rate", "-rate"))
    without = load_space(str(tmp_path / "dashes.toml"), {"learning_rate": 0.1})
    assert [x.name for x in without] == ["num_envs", "norm_adv"]


def test_words_after_the_dashes_are_flags():
    text = '--gamma 0.9 --no-anneal-lr --norm-adv --shift -1 --env-kwargs={"a":"b=c"}'
    assert parse_flags(shlex.split(text.replace('"', '\\"'))) == {
        "gamma": "0.9", "anneal_lr": False, "norm_adv": True, "shift": "-1",
        "env_kwargs": '{"a":"b=c"}',
    }  # fmt: skip
    with pytest.raises(BadInput, match="3 belongs to no flag"):
        parse_flags(["--gamma", "2", "3"])


# ==============================================================================================
# Bounds and curves
# ==============================================================================================
def test_bounds_are_students_with_the_spread_of_others_as_four_degrees_of_freedom():
    values, others = [3.0, 5.0, 10.0], 4.0
    low, high = tune.bounds(values, others)
    variance = (4 * others + sum((x - 6) ** 2 for x in values)) / (4 + 2)
    expected = scipy_stats.t.interval(0.4, 6, 6, math.sqrt(variance / 3))
    assert (low, high) == pytest.approx(expected)
    expected = scipy_stats.t.interval(0.4, 2, 6, np.std(values, ddof=1) / math.sqrt(3))
    assert tune.bounds(values, None) == pytest.approx(expected)
    assert tune.bounds([7.0], None) == (7.0, 7.0)


def test_a_curve_counts_the_time_before_its_first_episode_as_that_episode():
    points = np.array([[30.0, 50.0, 100.0], [1.0, 5.0, 9.0]])  # bins of 2 steps each
    line = tune.curve(points, 100)
    assert line.tolist() == [1.0] * 24 + [5.0] * 25 + [9.0]


def test_a_run_under_way_could_stay_at_the_highest_bin_of_all():
    line = np.arange(10.0)  # of 50 bins
    assert tune.most(line, 20.0) == pytest.approx((45 + 40 * 20) / 50)
    assert tune.most(line, -5.0) == pytest.approx((45 + 40 * 9) / 50)
    assert tune.most(np.ones(50), 99.0) == 1.0


@pytest.mark.parametrize(
    ("steps", "num_steps"), [(10**6, 1024), (100_000, 256), (10_000, 32), (100, 32)]
)
def test_ten_batches_fit_into_a_run_where_the_space_allows_it(steps, num_steps):
    script, path = HERE / "ppo.py", Path("x")
    search = tune.Search(
        script, "CartPole-v1", "env-id", steps, {}, load_space("ppo"), [1], [2], 1, "area", path
    )
    flags = search.flags_of({"num_envs": 5, "num_steps": 10, "num_minibatches": 5})
    assert flags == {"num_envs": 32, "num_steps": num_steps, "num_minibatches": 32}


@pytest.mark.parametrize(
    ("fixed", "num_steps", "num_minibatches"),
    [({"num_envs": "16"}, 128, 32), ({}, 256, 32), ({"num_envs": "1"}, 1024, 32)],
)
def test_batches_fit_by_the_environments_of_all_runs(fixed, num_steps, num_minibatches):
    space = [x for x in load_space("ppo") if x.name != "num_envs"]  # as where it is fixed
    search = tune.Search(
        HERE / "ppo.py", "CartPole-v1", "env-id", 20_480, fixed, space, [1], [2], 1, "area",
        Path("x"),
    )  # fmt: skip
    flags = search.flags_of({"num_steps": 10, "num_minibatches": 5})
    assert flags == {"num_steps": num_steps, "num_minibatches": num_minibatches}
    small = search.flags_of({"num_steps": 3, "num_minibatches": 5})
    assert small["num_minibatches"] <= 8 * int(fixed.get("num_envs", 8)) // 2


def test_a_kill_finds_a_trial_in_the_study_whole_or_not_at_all(tmp_path):
    """The journal's lines are what a kill can fall between: after each of them every trial in
    hand has all its parameters."""
    script, out = HERE / "ppo.py", tmp_path / "out"
    search = tune.Search(
        script, "CartPole-v1", "env-id", 100, {}, load_space("ppo"), [1], [2], 3, "area", out
    )
    search.open()
    drawn = [search.ask() for _ in range(3)]
    assert [x.params for x in drawn] == [x.params for x in trials_of(out)]
    assert len({tuple(x.params.values()) for x in drawn}) == 3
    lines = (out / "study.log").read_text().splitlines(keepends=True)
    assert len(lines) == 4  # the study and three trials
    for n in range(1, len(lines) + 1):
        (tmp_path / "study.log").write_text("".join(lines[:n]))
        trials = study_of(tmp_path).get_trials()
        assert [len(x.params) for x in trials] == [len(search.space)] * (n - 1)


# ==============================================================================================
# Searches
# ==============================================================================================
def test_a_search_finds_the_best_flags_and_runs_them_on_fresh_seeds(words, tmp_path):
    out = tmp_path / "out"
    result = benchmark(*words, "--trials", 14)
    assert result.returncode == 0, result.stderr
    trials = trials_of(out)
    assert len(trials) == 14
    assert {x.state.name for x in trials} <= {"COMPLETE", "PRUNED"}
    # The default flags entered the study at their place.
    (default,) = [x for x in study_of(out).get_trials() if tune.DEFAULT in x.user_attrs]
    assert default.params == {"learning_rate": 0.1, "num_envs": 2, "norm_adv": True}
    # A trial's value is the lower bound over its seeds, and a trial's folder holds its runs.
    runs, problems = find_runs(out / "search")
    assert problems == []
    assert {run.seed for run in runs if run.status == "done"} == {1000, 1001}
    tuned = tuned_flags(out)
    rates = {run.args["learning_rate"]: run for run in runs if run.status == "done"}
    nearest = min(rates, key=lambda rate: abs(math.log10(rate / 0.01)))
    assert abs(math.log10(tuned["learning_rate"] / 0.01)) < 0.7
    assert tuned["learning_rate"] == nearest or tuned["norm_adv"]
    # Promised and came.
    fresh, _ = find_runs(out / "fresh")
    assert len(fresh) == 8
    assert {run.seed for run in fresh} == {2000, 2001, 2002, 2003}
    found = {}
    for run in fresh:
        found.setdefault(run.algorithm, []).append(tune.curve(run.points["steps"], 1000).mean())
    ours, theirs = found["fake_learner-tuned"], found["fake_learner"]
    wins = np.mean([(x > y) + 0.5 * (x == y) for x, y in itertools.product(ours, theirs)])
    assert f"with probability {wins:.2f}" in result.stdout
    assert f"it came to {np.mean(ours):.1f} [" in result.stdout
    assert f"the default flags to {np.mean(theirs):.1f} [" in result.stdout
    assert "better than the default flags" in result.stdout
    text = (out / "report" / "report.md").read_text()
    for word in ("## The best trials", "![history]", "![parallel]", "P(tuned > default)"):
        assert word in text
    # The command line works as it is printed.
    (line,) = [x for x in result.stdout.splitlines() if x.startswith("python ")]
    command = [sys.executable, *shlex.split(line)[1:], "--run-dir", str(tmp_path / "copied")]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    args = json.loads((tmp_path / "copied" / "args.json").read_text())
    assert {name: args[name] for name in tuned} == tuned
    # best.toml is a suite.
    assert len(make_jobs(load_suite(str(out / "best.toml")), tmp_path / "x")) == 20
    # Once more there is nothing to do.
    again = benchmark(*words, "--trials", 14)
    assert again.returncode == 0
    assert ": done" not in again.stdout
    assert (out / "report" / "report.md").read_text() == text


def test_more_trials_can_be_added_and_another_search_is_refused(words, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "space.toml").write_text(SPACE.replace("low = 1e-4", "low = 1e-3"))
    chosen = []
    for trials in (1, 8):
        assert benchmark(*words, "--trials", trials).returncode == 0
        assert len(trials_of(out)) == trials
        flags = tuned_flags(out)
        chosen.append(flags)
        # The runs on fresh seeds are of the best trial as it is now; the earlier ones are kept.
        fresh = [run for run in find_runs(out / "fresh")[0] if run.algorithm.endswith("tuned")]
        assert len(fresh) == 4
        assert all({name: run.args[name] for name in flags} == flags for run in fresh)
    assert chosen[0] != chosen[1]
    assert len(list(out.glob("fresh/*/superseded-1/summary.json"))) == 4
    result = benchmark(*words, "--steps", 2000, "--objective", "evaluation")
    assert result.returncode == 2
    assert "holds a search with other steps, objective; name another --dir" in result.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    result = benchmark(*words[:-1], tmp_path / "full")
    assert "is not empty and has no tune.json" in result.stderr
    result = benchmark("report", tmp_path / "out")
    assert result.returncode == 2
    assert "is a folder of `tune`; its report is report/index.html" in result.stderr


def test_a_folder_of_any_name_above_and_a_script_of_any_name_will_do(
    words, tmp_path, monkeypatch
):
    """The search's own folder has the same name, and TOML's bare keys have no dots."""
    monkeypatch.setenv("PYTHONPATH", str(LEARNER.parent))  # as it imports what lies there
    script, out = tmp_path / "my script.v2.py", tmp_path / "search" / "out"
    script.write_text(LEARNER.read_text())
    words[words.index(LEARNER)] = script
    assert benchmark(*words[:-1], out, "--trials", 1).returncode == 0
    suite = load_suite(str(out / "best.toml"))
    assert list(suite["algorithms"]) == ["my script.v2", "my script.v2-tuned"]


def test_a_search_whose_runs_end_no_episode_says_so_or_goes_by_the_evaluation(words, tmp_path):
    long = ("--trials", 1, "--", "--behaviour", "endless")
    result = benchmark(*words, *long)
    assert result.returncode == 2
    what = "no training episode ended in 1,000 steps; more --steps, or --objective evaluation"
    assert result.stderr == f"error: the default flags fail: {what}\n"
    again = benchmark(*words[:-1], tmp_path / "other", "--objective", "evaluation", *long)
    assert again.returncode == 0, again.stderr


def test_fixed_flags_and_env_kwargs_reach_every_run_and_leave_the_space(words, tmp_path):
    extra = ("--env-kwargs", '{"a": 1}', "--", "--num-envs", "3", "--no-norm-adv")
    result = benchmark(*words, "--trials", 2, *extra)
    assert result.returncode == 0, result.stderr
    runs, _ = find_runs(tmp_path / "out")
    for run in runs:
        flags = run.args
        assert (flags["num_envs"], flags["norm_adv"], flags["env_kwargs"]) == (
            3,
            False,
            '{"a": 1}',
        )
    assert all(x.params.keys() == {"learning_rate"} for x in trials_of(tmp_path / "out"))
    assert "--env-kwargs '{\"a\": 1}'" in result.stdout
    suite = load_suite(str(tmp_path / "out" / "best.toml"))
    assert suite["environments"]["CartPole-v1"]["flags"]["env_kwargs"] == '{"a": 1}'


def test_objective_evaluation_is_the_final_return(words, tmp_path):
    assert benchmark(*words, "--trials", 2, "--objective", "evaluation").returncode == 0
    for trial in trials_of(tmp_path / "out"):
        rate, adv = trial.params["learning_rate"], trial.params["norm_adv"]
        mean = 100 * math.exp(-(math.log10(rate / 0.01) ** 2)) + 5 * adv + 0.05
        if trial.state.name == "COMPLETE":
            assert trial.value == pytest.approx(mean, abs=0.5)


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_run_that_cannot_catch_up_ends_as_pruned(words, tmp_path, monkeypatch, executor):
    """Every run stands at four fifths of its steps until it has been looked at. The area of one
    with the return F was 0.55 F by then; with the highest return there is, B, for the rest it
    would be 0.55 F + 0.2 B, against 0.75 B of the best: only what ends below B is pruned."""
    monkeypatch.setattr(pool, "WATCH", 0.1)
    monkeypatch.setattr(ray_pool, "WATCH", 0.1)
    monkeypatch.setattr(tune, "BEGUN", 2)
    if executor == "ray":
        i = words.index("--workers")
        words[i : i + 2] = ["--executor", "ray"]
    real = tune.Search.watch

    def look(search, job):
        begun = list(job.run_dir.glob("events*"))
        reason = real(search, job)
        if begun and not reason:
            (job.directory / "go").touch()
        return reason

    monkeypatch.setattr(tune.Search, "watch", look)
    out, extra = tmp_path / "out", ("--", "--behaviour", "slow")
    result = benchmark(*words, "--trials", 10, "--seeds", "1000", *extra)
    assert result.returncode == 0, result.stderr
    trials = trials_of(out)
    assert {x.state.name for x in trials} == {"COMPLETE", "PRUNED"}
    pruned = [run for run in find_runs(out / "search")[0] if run.status == "pruned"]
    names = {f"trial-{x.number:03d}" for x in trials if x.state.name == "PRUNED"}
    assert {run.algorithm for run in pruned} == names
    best = max(x.value for x in study_of(out).get_trials() if x.value is not None)
    for run in pruned:
        assert re.fullmatch(r"after 800.0 steps it could reach .*", run.reason)
        assert run.points["steps"][1].max() < best / 0.75 + 1
    assert benchmark("report", out / "search").returncode == 0
    assert "1 pruned" in (out / "search" / "report" / "report.md").read_text()


def test_where_the_default_flags_lead_the_best_trial_may_be_a_pruned_one(words, tmp_path):
    """The default, 0.1, is closer to 0.01 than any of the range, and bounds the race: trials
    after the fifth lose their second seed, and the best of them is not among the complete."""
    text = SPACE.replace("low = 1e-4", "low = 0.11").replace("norm_adv = ", "# ")
    (tmp_path / "space.toml").write_text(text)
    result = benchmark(*words, "--trials", 12)
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    areas = {}
    for run in find_runs(out / "search")[0]:
        if run.status == "done" and run.algorithm != tune.DEFAULT:
            area = tune.curve(run.points["steps"], 1000).mean()
            areas.setdefault(run.algorithm, []).append((area, run.args["learning_rate"]))
    _, rate = max(entry for several in areas.values() for entry in several)
    seeds = [len(several) for several in areas.values() if several[0][1] == rate]
    assert seeds == [1]  # pruned
    assert tuned_flags(out)["learning_rate"] == rate
    assert "is worse than the default flags" in result.stdout
    page = (out / "report" / "report.md").read_text()
    assert f"| {rate:g} |" in page.partition("## The best trials")[2]


def test_seeds_are_spared_where_the_first_one_shows_that_a_trial_is_behind(words, tmp_path):
    result = benchmark(*words, "--trials", 12, "--seeds", "1000-1004")
    assert result.returncode == 0
    out = tmp_path / "out"
    lengths = {}
    for run in find_runs(out / "search")[0]:
        lengths[run.algorithm] = lengths.get(run.algorithm, 0) + (run.status == "done")
    for trial in trials_of(out):
        full = lengths[f"trial-{trial.number:03d}"] == 5
        assert full == (trial.state.name == "COMPLETE")
    assert {x.state.name for x in trials_of(out)} == {"COMPLETE", "PRUNED"}


def test_an_own_environment_in_this_folder_is_named_beside_what_is_to_be_copied(
    words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_world.py").write_text("")
    words[words.index("CartPole-v1")] = "my_world:Walk-v0"
    result = benchmark(*words, "--trials", 1)
    assert result.returncode == 0, result.stderr
    (line,) = (x for x in result.stdout.splitlines() if x.startswith("PYTHONPATH=. python "))
    assert str(LEARNER) in line  # a path from here, not from the root
    assert "both as a suite for `run`, once copied beside my_world.py" in result.stdout


def test_a_search_of_which_no_run_is_done_may_be_deleted(words, tmp_path):
    fails = ("--retries", 0, "--", "--behaviour", "crash", "--learning-rate", "0.2")
    assert benchmark(*words, *fails).returncode == 2
    again = benchmark(*words, "--steps", 2000, *fails)
    assert "or delete it: no run of it is done" in again.stderr


def test_failed_trials_are_counted_and_all_failing_is_one_line(words, tmp_path):
    result = benchmark(*words, "--retries", 0, "--", "--behaviour", "crash")
    assert result.returncode == 2
    assert re.fullmatch(
        r"error: all trials fail so far, the last one for: Traceback: it crashed\n",
        result.stderr,
    )
    assert [x.state.name for x in trials_of(tmp_path / "out")].count("FAIL") >= 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--space": "ppo"}, "unrecognized arguments"),
        ({"--env-id": "CartPole-v9"}, "there is no environment CartPole-v9; did you mean"),
        ({"--seeds": "2003"}, "--fresh-seeds has 2003, which the search uses"),
        ({"--space": "nothing"}, "there is no space nothing"),
        ({"--steps": "0"}, "0 is not a positive whole number"),
    ],
)
def test_what_cannot_be_searched_is_one_line_and_leaves_nothing(words, tmp_path, change, says):
    for flag, value in change.items():
        words[words.index(flag) + 1] = value
    result = benchmark(*words)
    assert result.returncode == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_script_that_is_not_there_or_steps_twice(words):
    assert "there is no script popo" in benchmark("tune", "popo", *words[2:]).stderr
    result = benchmark(*words, "--", "--total-timesteps", "9")
    assert "that is --steps" in result.stderr


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5"])
def test_a_fixed_flag_that_is_no_number_is_refused_by_the_script_in_one_line(tmp_path, value):
    words = ["tune", "ppo", "--env-id", "CartPole-v1", "--steps", 1000, "--dir", tmp_path / "x"]
    result = benchmark(*words, "--", f"--num-envs={value}")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


# ==============================================================================================
# Shells and signals
# ==============================================================================================
def start(words: list) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmark", *map(str, words)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_ctrl_c_prints_the_best_so_far_and_a_kill_loses_nothing(words, tmp_path):
    out = tmp_path / "out"
    words = [*words, "--trials", 30]
    process = start(words)
    wait_until(lambda: (out / "search").exists() and any(  # so the study is in its log
        x.state.name == "COMPLETE" for x in trials_of(out)))  # fmt: skip
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "best so far: trial-" in output
    assert "\npython " in output
    assert "goes on from here" in errors
    done = {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")}
    process = start(words)
    wait_until(lambda: len([*out.rglob("summary.json")]) > len(done))
    process.kill()
    process.communicate()
    before = len(trials_of(out))
    result = benchmark(*words, "--trials", before)
    assert result.returncode == 0, result.stderr
    assert {x.state.name for x in trials_of(out)} <= {"COMPLETE", "PRUNED"}
    assert len(trials_of(out)) == before
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


def test_two_shells_share_one_search(words, tmp_path):
    both = [start([*words, "--workers", 1]) for _ in range(2)]
    outputs = [process.communicate(timeout=2 * PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    trials = trials_of(tmp_path / "out")
    assert len(trials) == 8
    assert len({tuple(x.params.items()) for x in trials}) == 8
    assert {x.state.name for x in trials} <= {"COMPLETE", "PRUNED"}
    assert sum("search on a page" in output for output, _ in outputs) >= 1
    began = [output.count(": done") for output, _ in outputs]
    runs = [run for run in find_runs(tmp_path / "out")[0] if run.status == "done"]
    assert sum(began) == len(runs)
    assert all(began)
