"""python -m benchmark check: regressions that are found, and what cannot be compared."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_runs import write_job
from harness import benchmark
from report_helpers import write_task_job

from benchmark import page, plots
from benchmark.check import check
from benchmark.report import write_report
from benchmark.words import BadInput

pytestmark = pytest.mark.usefixtures("figures")


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
