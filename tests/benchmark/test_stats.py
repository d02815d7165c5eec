"""benchmark/stats.py against independent computations: loops, scipy's own intervals, and
simulation."""

import csv

import interval_coverage as coverage
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from benchmark import stats

numbers = st.floats(-1e3, 1e3, allow_nan=False, width=32)
samples = st.lists(numbers, min_size=1, max_size=20).map(np.array)


@given(samples)
def test_iqm_is_the_mean_without_the_outer_quarters(values):
    cut = len(values) // 4
    kept = sorted(values)[cut : len(values) - cut]
    assert stats.iqm([values]) == pytest.approx(sum(kept) / len(kept), rel=1e-6, abs=1e-6)


def test_iqm_by_hand():
    assert stats.iqm([np.array([-1000.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0])]) == 3.5


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(1).lognormal(size=(3, 6))
    low, high = stats.interval([values], stats.mean)
    theirs = scipy_stats.ttest_1samp(values, 0, axis=-1).confidence_interval(0.95)
    np.testing.assert_allclose((low, high), (theirs.low, theirs.high))


def test_the_interval_of_a_weighted_sum_of_means_is_welchs():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 5), rng.normal(3, 4, 9)
    theirs = scipy_stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.9)
    np.testing.assert_allclose(stats.t_interval([x, y], [1, -1], 0.9), theirs)
    mean = (x.mean() + y.mean()) / 2  # x against -y, halved
    half = np.diff(scipy_stats.ttest_ind(x, -y, equal_var=False).confidence_interval(0.95)) / 4
    np.testing.assert_allclose(
        stats.interval([x, y], stats.mean), [mean - half[0], mean + half[0]]
    )


def test_the_bootstrap_agrees_with_scipys():
    values = np.random.default_rng(1).normal(size=(3, 12))
    ours = stats.interval([values], stats.iqm)
    theirs = scipy_stats.bootstrap(
        (values,), lambda x, axis: scipy_stats.trim_mean(x, 0.25, axis=axis), axis=-1,
        n_resamples=20_000, method="percentile", rng=2,
    )  # fmt: skip
    assert ours.shape == (2, 3)
    np.testing.assert_allclose(ours[0], theirs.confidence_interval.low, atol=0.05)
    np.testing.assert_allclose(ours[1], theirs.confidence_interval.high, atol=0.05)


@pytest.mark.parametrize("case", coverage.CASES, ids=lambda case: "-".join(map(str, case)))
def test_coverage_is_as_published(case):
    """The intervals of normal means cover what they claim, and all what the table says."""
    with coverage.PATH.open(newline="") as file:
        table = {
            (row["statistic"], int(row["environments"]), row["returns"], int(row["n"])): row
            for row in csv.DictReader(file)
        }
    assert list(table) == coverage.CASES
    published, samples = float(table[case]["coverage"]), 400
    error = 3 * (published * (1 - published) / samples) ** 0.5
    assert coverage.coverage(*case, samples) == pytest.approx(published, abs=error + 0.01)
    if case[0] == "mean" and case[2] == "normal":
        assert published == pytest.approx(0.95, abs=0.015)


def test_the_readme_has_the_table_of_coverage():
    readme = (coverage.PATH.parents[1] / "README.md").read_text(encoding="utf-8")
    lines = readme.partition("| 95% interval |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    shown = {
        (name, int(environments), returns, int(n)): float(value)
        for name, environments, n, *values in cells
        for returns, value in zip(coverage.RETURNS, values, strict=True)
    }
    with coverage.PATH.open(newline="") as file:
        stored = [float(row["coverage"]) for row in csv.DictReader(file)]
    assert shown == pytest.approx(dict(zip(coverage.CASES, stored, strict=True)), abs=0.00501)


def test_interval_is_the_same_every_time_and_unknown_for_one_seed():
    values = np.random.default_rng(0).normal(size=8)
    for statistic in (stats.mean, stats.iqm):
        once, again = (stats.interval([values], statistic) for _ in range(2))
        np.testing.assert_array_equal(once, again)
        assert np.isnan(stats.interval([np.array([1.0])], statistic)).all()
        assert np.isnan(stats.interval([values, np.array([1.0])], statistic)).all()
        assert np.ptp(stats.interval([np.full(5, 500.0)], statistic)) == 0


def test_median_and_its_interval_where_some_never_got_there():
    assert stats.median([np.array([3.0, 1.0, 2.0, 8.0])]) == 2.5
    assert stats.median([np.array([3.0, np.inf, 1.0, 2.0])]) == 2.5
    assert stats.median([np.array([1.0, np.inf, 2.0, np.inf])]) == np.inf
    ends = stats.interval([np.array([3.0, np.inf, 1.0, 2.0])], stats.median)
    assert ends.tolist() == [1, np.inf]
    assert stats.interval([np.full(5, np.inf)], stats.median).tolist() == [np.inf, np.inf]


def test_seeds_are_drawn_anew_within_each_group():
    """Drawn together, two groups that differ by 5 throughout would have no other difference."""
    values = np.random.default_rng(0).normal(size=10)
    low, high = stats.bootstrap([values, values + 5], lambda g: g[1].mean(-1) - g[0].mean(-1))
    error = np.sqrt(2 / 10) * values.std()
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    low, high = stats.interval([values, values + 10])  # the distance of the two is no spread
    assert high - low < 3


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=1, max_size=4)
    )
)
def test_statistics_of_equally_many_runs_are_those_of_all_runs(groups):
    together = np.concatenate(groups)
    groups = [np.array(group) for group in groups]
    assert stats.mean(groups) == pytest.approx(together.mean(), abs=1e-6)
    trimmed = scipy_stats.trim_mean(together, 0.25)
    assert stats.iqm(groups) == pytest.approx(trimmed, abs=1e-6)


def test_environments_weigh_the_same():
    groups = [np.array([0.5, 1.5]), np.zeros(6)]
    assert stats.mean(groups) == 0.5
    assert stats.iqm(groups) == pytest.approx(
        0.25
    )  # a quarter of the weight is 0, a quarter 0.5


@given(samples, samples)
def test_improvement_counts_pairs(x, y):
    wins = sum((a > b) + 0.5 * (a == b) for a in x for b in y)
    assert stats.improvement([x, y]) == pytest.approx(wins / (len(x) * len(y)))
    u = scipy_stats.mannwhitneyu(x, y).statistic
    assert stats.improvement([x, y]) == pytest.approx(u / (len(x) * len(y)))
    assert stats.improvement([x, y, y, x]) == pytest.approx(0.5)  # averaged over environments


@given(st.lists(st.tuples(st.floats(0.01, 12), numbers), max_size=30))
def test_binned_means(episodes):
    grid = np.array([2.0, 4.0, 6.0, 8.0, 10.0])
    positions, values = np.array(episodes).reshape(-1, 2).T
    result, last = stats.binned(positions, values, grid), np.nan
    for k, right in enumerate(grid):
        inside = [value for position, value in episodes if right - 2 < position <= right]
        last = sum(inside) / len(inside) if inside else last
        assert result[k] == pytest.approx(last, abs=1e-3, nan_ok=True)


@given(st.lists(st.integers(0, 10), max_size=30), st.integers(1, 5))
def test_first_reached(returns, window):
    expected = next(
        (
            i
            for i in range(window - 1, len(returns))
            if np.mean(returns[i - window + 1 : i + 1]) >= 6 - 1e-12
        ),
        None,
    )
    assert stats.first_reached(np.array(returns, float), 6.0, window) == expected


def test_the_level_of_a_check_finds_a_regression_and_seldom_cries_wolf():
    rng = np.random.default_rng(0)

    def draw(n):  # as bimodal as returns can be: a run learns, or it does not
        return np.where(rng.random(n) < 0.8, 500.0, 150.0) + rng.normal(0, 10, n)

    def high(new, stored):  # of the difference; below zero is worse
        return stats.t_interval([new, stored], [1, -1], 1 - 2 * 0.05 / 10)[1]

    alarms = [any(high(draw(5), draw(5)) < 0 for _ in range(10)) for _ in range(300)]
    assert np.mean(alarms) < 0.07
    assert high(rng.normal(300, 30, 5), rng.normal(480, 30, 5)) < 0
    assert high(rng.normal(480, 30, 5), rng.normal(300, 30, 5)) >= 0
    assert high(np.full(5, 499.0), np.full(5, 500.0)) == -1.0
    assert high(np.full(5, 500.0), np.full(5, 500.0)) == 0


@pytest.mark.parametrize("seed", range(8))
def test_equivalence_is_that_of_two_one_sided_tests(seed):
    """scipy's one-sided Welch tests, of X moved up and down by the margin."""
    rng, margin = np.random.default_rng(seed), 1.0
    x, y = rng.normal(0.2 * (seed - 4), 1, 12), rng.normal(0, 0.5, 20)
    found, same = stats.equivalence([x, y], margin)
    theirs = scipy_stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.9)
    np.testing.assert_allclose(found, theirs)
    low = scipy_stats.ttest_ind(x + margin, y, equal_var=False, alternative="greater").pvalue
    high = scipy_stats.ttest_ind(x - margin, y, equal_var=False, alternative="less").pvalue
    assert same == (max(low, high) < 0.05)


def test_seeds_that_all_agree_are_equivalent():
    ends, same = stats.equivalence([np.full(5, 500.0), np.full(5, 500.0)], 1.0)
    assert (ends.tolist(), same) == ([0, 0], True)
