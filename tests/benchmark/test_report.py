"""python -m benchmark report: what is counted, and the numbers in its tables."""

import json
import re
import shutil
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from fake_runs import write_job, write_run
from harness import ROOT
from report_helpers import lines_of, rows, section, write_task_job
from scipy import stats as scipy_stats

from benchmark import prepared
from benchmark.report import write_report
from benchmark.runs import find_runs
from benchmark.words import BadInput

pytestmark = pytest.mark.usefixtures("figures")


def test_every_run_is_counted(mixed, tmp_path):
    runs, problems = write_report(mixed, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "12 runs: 10 done, 1 failed, 1 unfinished, 0 missing." in text
    assert "bad: n = 3, 0 failed, 1 unfinished; good: n = 4, 1 failed" in text
    assert "good on CartPole-v1, seed 4: failed, killed by SIGKILL" in text
    found = re.findall(r"^\*.*\*$", text, re.MULTILINE)
    assert len(found) > 8
    assert all(re.search(r"n = \d+, \d+ failed", caption) for caption in found)
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
    assert [float(row["position"]) for row in mine[: prepared.BINS]] == list(
        range(200, 10_001, 200)
    )
    assert float(mine[0]["return"]) == pytest.approx(
        np.mean([1, 2, 3, 4]) / 100 * 481, rel=1e-4
    )


def test_curves_and_bands_against_every_resample_there_is(tmp_path, figures):
    finals = [100.0, 110.0, 150.0, 200.0, 300.0]
    for seed, final_return in enumerate(finals):
        write_job(
            tmp_path / "runs", "a", "CartPole-v1", seed, final_return=final_return, episodes=199
        )
    write_report(tmp_path / "runs", tmp_path / "out")

    def middle(values):
        kept = sorted(values)[1:-1]  # a quarter of five, rounded down, is one
        return sum(kept) / len(kept)

    estimate, resamples = middle(finals), product(finals, repeat=5)
    ends = np.quantile([middle(values) for values in resamples], [0.025, 0.975])
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
    part = section(text, "Normalised scores")
    assert part.count(counts) == 1
    assert "half on Acrobot-v1: n = 0, 2 failed, so there is no result." in part
    assert "dead on CartPole-v1: n = 0, 2 failed, so there is no result." in part
    assert "| half | 2 | - | - |" in text  # no score over two environments from one of them
    assert "| good | 4 | 1.00 (saturated) | 1.00 (saturated) |" in text


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
        "Budgets differ (10,000 to 20,000 steps). Scores and differences compare training "
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

    write_job(root, "c", "CartPole-v1", 1, episodes=0)
    write_report(root, tmp_path / "out")
    text = section((tmp_path / "out" / "report.md").read_text(), "CartPole-v1")
    assert "compare final evaluations at unequal steps, since not every run has a curve" in text


def test_captions_count_the_runs_that_are_used(tmp_path):
    root = tmp_path / "runs"
    for seed in (1, 2, 3):
        write_job(root, "a", "CartPole-v1", seed, episodes=0 if seed == 3 else 200)
        write_job(root, "a", "Acrobot-v1", seed)
    write_job(root, "b", "CartPole-v1", 1, score_range=None)
    write_report(root, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert (
        "a: n = 3, 0 failed; b: n = 1, 0 failed. For the last 100 episodes: "
        "a: n = 2, 0 failed, 1 without an episode; b: n = 1, 0 failed. For the area: "
        "a: n = 2, 0 failed, 1 no curve; b: n = 1, 0 failed." in section(text, "CartPole-v1")
    )
    scores = section(text, "Normalised scores")
    # b's run has no scale
    assert "Each algorithm on each environment: n = 3, 0 failed" in scores
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
    assert "for want of a score_range" not in text  # the grid does not have it
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


def write_by_hand(root: Path, name: str, env_id: str, seed: int, **flags) -> None:
    """A run of ppo.py that no suite made, with these flags."""
    write_run(root / name, "ppo", env_id, seed, final_return=100.0 + seed)
    path = root / name / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | flags))


def test_runs_made_by_hand_go_by_their_script(tmp_path):
    """Flags in which they differ are a problem, but for those of the machine."""
    for seed in (1, 2):
        about = {"device": ("cpu", "cuda")[seed - 1], "log_interval": seed}
        write_by_hand(tmp_path, f"x{seed}", "CartPole-v1", seed, clip_coef=0.1, **about)
    write_by_hand(tmp_path, "z", "Acrobot-v1", 1, clip_coef=0.2)
    runs, problems = find_runs(tmp_path)
    assert ({run.algorithm for run in runs}, problems) == ({"ppo"}, [])
    write_by_hand(tmp_path, "y", "CartPole-v1", 3, clip_coef=0.2)
    (problem,) = find_runs(tmp_path)[1]
    assert problem == "ppo on CartPole-v1 mixes runs with different clip_coef: 0.1, 0.2"


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


def test_differences_on_the_same_base_models(tmp_path):
    """Against scipy's paired t test; apart from it stands who has other base models, or one."""
    finals = {
        "ref": {1: 0.5, 2: 0.7, 3: 0.9, 4: 0.8},
        "new": {1: 0.52, 2: 0.71, 3: 0.93, 5: 0.1},
        "other": {6: 0.5, 7: 0.7},
        "single": {1: 0.4, 8: 0.6},
    }
    for name, by_base in finals.items():
        for seed, (base, success) in enumerate(by_base.items()):
            several = (-0.01, 0.01) if (name, base) == ("new", 1) else (0.0,)
            for extra, step in enumerate(several):
                further = {"exact_success": success + step, "kl": 0.25}
                flags = {"task_kwargs": json.dumps({"base_seed": base})}
                options = {"further": further, "flags": flags, "final_return": success}
                write_task_job(tmp_path / "runs", name, seed + 10 * extra, **options)
    write_report(tmp_path / "runs", tmp_path / "out", reference="ref")
    text = section((tmp_path / "out" / "report.md").read_text(), "Differences to ref")
    split = [[x.strip() for x in line.split("|")[1:-1]] for line in text.splitlines()]
    cells = {row[0]: row[2:] for row in split if len(row) > 2}
    shared = [[finals[name][base] for base in (1, 2, 3)] for name in ("new", "ref")]
    low, high = scipy_stats.ttest_rel(*shared).confidence_interval(0.95)
    expected = f"{np.mean(shared[0]) - np.mean(shared[1]):.3f} [{low:.3f}, {high:.3f}]"
    assert cells["new"][:2] == [expected, "3 / 0 of 3"]
    assert cells["new"][2:4] == ["0.000 (saturated)", "0 / 0 of 3"]
    assert len(cells["new"]) == 6
    assert cells["other"][:2] == ["2", "4"]
    assert cells["single"][:2] == ["2", "4"]
    assert "from the same base model" in text
    assert "Welch" in text


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


def test_runs_of_one_environment_have_no_score_over_environments(tmp_path, figures):
    for name in ("a", "b"):
        write_job(tmp_path, name, "CartPole-v1", 1)
    write_report(tmp_path, tmp_path / "out")
    assert "Normalised scores" not in (tmp_path / "out" / "report.md").read_text()
    assert figures.keys() == {"curve-steps-CartPole-v1", "curve-seconds-CartPole-v1"}


def test_scripts_at_equal_steps(tmp_path):
    """By hand: 200 episodes rise in a line to the final return over the first half of the run.
    After a quarter, half and all of the 10,000 that both have, in two bins of 400."""
    for seed in (1, 2):
        write_job(tmp_path, "a", "CartPole-v1", seed, final_return=100.0)
        write_job(
            tmp_path, "b", "CartPole-v1", seed, final_return=100.0, total_timesteps=20_000
        )
        write_job(tmp_path, "b", "Acrobot-v1", seed)
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    table = section(text, "CartPole-v1").partition("at equal environment steps")[2]
    # Bins of 400 steps: those that end at 2,000 and 2,400, 4,400 and 4,800, 9,600 and 10,000.
    # Episode k of a ends at 50 k steps with return k, of b at 100 k with k / 2... up to 100.
    assert "| algorithm | after 2,400 | after 4,800 | after 10,000 |" in table
    lines = {"a": (50, 1.0), "b": (100, 1.0)}
    for name, (length, rise) in lines.items():
        cells = []
        for first, last in ((1600, 2400), (4000, 4800), (9200, 10_000)):
            bins = [(first, first + 400), (first + 400, last)]
            means = [
                np.mean([min(rise * k, 100) for k in range(201) if low < k * length <= high])
                for low, high in bins
            ]
            cells.append(f"{np.mean(means):.1f} (saturated)")
        assert f"| {name} | {' | '.join(cells)} |" in table
    assert "at equal environment steps" not in section(text, "Acrobot-v1")


def test_parity_is_of_scripts_and_their_peers(tmp_path):
    """Against scipy; c has no peer, and the shorter pair takes no part in the area of the
    other."""
    finals = {"a": (90.0, 95.0, 99.0), "sb3-a": (91.0, 94.0, 97.0), "b": (50.0, 60.0, 90.0),
              "sb3-b": (95.0, 96.0, 97.0), "c": (1.0, 2.0, 3.0)}  # fmt: skip
    for name, returns in finals.items():
        for seed, final in enumerate(returns):
            steps = 1000 if name.endswith("b") else 10_000
            write_job(
                tmp_path, name, "CartPole-v1", seed, final_return=final, total_timesteps=steps
            )
    (tmp_path / "report.json").write_text('{"margin": 0.1}')
    write_report(tmp_path, tmp_path / "out")
    text = section((tmp_path / "out" / "report.md").read_text(), "Parity")
    for name, verdict in (("a", "equivalent"), ("b", "not shown")):
        x, y = finals[name], finals[f"sb3-{name}"]
        low, high = scipy_stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.9)
        cell = f"{np.mean(x) - np.mean(y):.1f} [{low:.1f}, {high:.1f}]"
        assert f"| {name} | CartPole-v1 | 3 / 3 | 10.0 | {cell} | {verdict} |" in text
    assert "| c |" not in text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["margin"] == 0.1


def test_rows_of_another_version_of_a_script_are_named(tmp_path):
    here = sha256((ROOT / "ppo.py").read_bytes()).hexdigest()
    for name, code in (("ppo", here), ("a2c", "0" * 64), ("mine", "1" * 64)):
        folder = write_job(tmp_path, name, "CartPole-v1", 1)
        path = folder / "run" / "args.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"script_sha256": code}))
        path = folder / "job.json"
        commit = {"commit": "abc-dirty" if name == "mine" else "def"}
        path.write_text(json.dumps(json.loads(path.read_text()) | commit))
    write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Rows of another version of a2c.py than lies here." in text
    assert "Beware: 1 rows are of scripts that no commit has." in text
    assert "Commit: abc-dirty, def." in text
    assert [x["commit"] for x in rows(tmp_path / "out" / "results.csv")] == [
        "def", "abc-dirty", "def",
    ]  # fmt: skip


def write_language_runs(root: Path, base_of) -> str:
    for name, seed in product(("a", "b"), (1, 2, 3, 4)):
        kwargs = json.dumps({"base_seed": base_of(seed)})
        write_task_job(root, name, seed, flags={"task_kwargs": kwargs})
    _, problems = write_report(root, root / "out")
    assert problems == []
    return (root / "out" / "report.md").read_text()


def test_the_report_says_over_how_many_base_models_its_intervals_are(tmp_path):
    own = write_language_runs(tmp_path / "own", lambda seed: seed)
    assert "intervals over base models, of which each seed has its own" in own
    assert "runs of an algorithm share" not in own
    assert "this one, which ignores that base models are shared" in own
    assert "training returns and area are the base model's" in own
    one = write_language_runs(tmp_path / "one", lambda seed: 0)
    assert "Beware: 4 runs of an algorithm share 1 base model; the intervals say little" in one
    assert "which ignores" not in one
    two = write_language_runs(tmp_path / "two", lambda seed: seed % 2)
    assert "Beware: 4 runs of an algorithm share 2 base models;" in two
    assert "95% intervals over seeds" in two


def test_the_report_of_a_sensitivity_has_a_figure_for_each_script(tmp_path, figures):
    names = {"ppo": 0.02, "ppo rate=0.01": 0.01, "ppo rate=0.06": 0.06, "ppo gamma=0.97": 0.02}
    for (name, rate), seed in product(names.items(), (1, 2, 3, 4)):
        flags = {"rate": rate, "gamma": 0.97 if "gamma" in name else 0.99}
        write_task_job(tmp_path, name, seed, flags=flags, final_return=rate * 10 + seed / 100)
    write_task_job(tmp_path, "ppo rate=0.04", 1, status="failed", reason="x")
    (tmp_path / "report.json").write_text('{"lacking": ["gamma"]}')
    write_report(tmp_path, tmp_path / "out")
    panels = {x["title"]["text"]: x for x in figures["sensitivity-ppo"]["concat"]}
    assert panels.keys() == {"rate", "1 - gamma"}
    found = {
        flag: [(row["x"], row["y"]) for row in panel["data"]["values"]]
        for flag, panel in panels.items()
    }
    # The IQM of four seeds is that of the middle two: 0.025 above the return of seed 0.
    assert found == {
        "rate": [(0.01, 0.125), (0.02, 0.225), (0.06, 0.625)],
        "1 - gamma": [(0.01, 0.225), (0.03, 0.225)],
    }
    for panel, default in ((panels["rate"], 0.02), (panels["1 - gamma"], 0.01)):
        assert panel["layer"][0]["data"]["values"] == [{"x": default}]
    text = section((tmp_path / "out" / "report.md").read_text(), "ppo")
    assert "| rate | 0.04 | 0 | 1 | - | - | - |" in text
    assert "| rate | 0.06 | 4 | 0 | 0.625 [" in text
    assert figures.keys() == {"sensitivity-ppo"}
    write_report(tmp_path / "out", tmp_path / "again")
    both = [(tmp_path / name / "report.md").read_text() for name in ("out", "again")]
    assert both[0] == both[1]
    for seed in (1, 2, 3, 4):  # without the default there is a table, and no axis to draw on
        shutil.rmtree(tmp_path / f"sums__ppo__{seed}")
    write_report(tmp_path, tmp_path / "none")
    text = section((tmp_path / "none" / "report.md").read_text(), "ppo")
    assert "| rate | 0.06 | 4 | 0 | 0.625 [" in text


def test_a_sensitivity_compares_areas_each_script_over_its_own_steps(tmp_path):
    """Returns that rise in a line for half of the run and stay: three quarters of the last."""
    for name, steps in (("ppo", 10_000), ("a2c", 20_000)):
        for seed in (1, 2, 3, 4):
            write_job(
                tmp_path, name, "CartPole-v1", seed, total_timesteps=steps, final_return=400
            )
    (tmp_path / "report.json").write_text('{"lacking": []}')
    write_report(tmp_path, tmp_path / "out")
    write_report(tmp_path / "out", tmp_path / "again")  # with no curves left
    for name, folder in product(("ppo", "a2c"), ("out", "again")):
        text = section((tmp_path / folder / "report.md").read_text(), name)
        area, evaluation = re.search(
            r"default \| 4 \| 0 \| ([\d.]+) .*?\| ([\d.]+) ", text
        ).groups()
        assert float(area) == pytest.approx(300, rel=0.02)
        assert float(evaluation) == 400
    assert (tmp_path / "out" / "curves.csv").read_text().count("\n") == 1


def test_a_suite_says_what_its_report_adds(tmp_path):
    """Unless nothing here has it."""
    for name in ("a", "b"):
        write_task_job(tmp_path, name, 1, logged={"losses/kl": {80: 0.5}})
    asked = {"log": ["losses/kl", "losses/none"], "against": "a"}
    (tmp_path / "report.json").write_text(json.dumps(asked))
    write_report(tmp_path, tmp_path / "one")
    text = (tmp_path / "one" / "report.md").read_text()
    assert "Differences to a" in text
    assert "log-losses_kl-sums.png" in text
    assert "losses_none" not in text
    (tmp_path / "report.json").write_text(json.dumps(asked | {"against": "c"}))
    write_report(tmp_path, tmp_path / "two")
    assert "Differences to" not in (tmp_path / "two" / "report.md").read_text()
