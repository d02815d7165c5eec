"""benchmark/stats.py against independent computations: loops, scipy's own bootstrap, and
simulation."""

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
    assert stats.iqm(values) == pytest.approx(sum(kept) / len(kept), rel=1e-6, abs=1e-6)


def test_iqm_by_hand():
    assert stats.iqm(np.array([-1000.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0])) == 3.5


def test_interval_agrees_with_scipys_bootstrap():
    values = np.random.default_rng(1).normal(size=(3, 12))
    ours = stats.interval(values, stats.mean)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, axis=-1, n_resamples=20_000, method="percentile", rng=2
    )
    assert ours.shape == (2, 3)
    np.testing.assert_allclose(ours[0], theirs.confidence_interval.low, atol=0.05)
    np.testing.assert_allclose(ours[1], theirs.confidence_interval.high, atol=0.05)


@pytest.mark.parametrize("statistic", [stats.mean, stats.iqm])
def test_interval_covers_the_truth_in_about_95_percent(statistic):
    values = np.random.default_rng(0).normal(size=(1000, 30))  # both statistics are 0 in truth
    low, high = stats.interval(values, statistic)
    assert 0.91 < np.mean((low <= 0) & (high >= 0)) < 0.97


def test_interval_is_the_same_every_time_and_unknown_for_one_seed():
    values = np.random.default_rng(0).normal(size=8)
    np.testing.assert_array_equal(stats.interval(values), stats.interval(values))
    assert np.isnan(stats.interval(np.array([1.0]))).all()


def test_median_and_its_interval_where_some_never_got_there():
    values = np.array([3.0, np.inf, 1.0, 2.0])
    assert stats.median(values) == 2  # the lower one
    assert stats.median(np.array([1.0, np.inf, np.inf])) == np.inf
    assert stats.interval(values, stats.median).tolist() == [1, np.inf]
    assert stats.interval(np.full(5, np.inf), stats.median).tolist() == [np.inf, np.inf]


def test_stratified_interval_covers_the_truth_though_environments_differ():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        groups = [
            rng.normal(0, 1, 20),
            rng.normal(10, 1, 20),
        ]  # resampled together, their distance would widen it
        _, (low, high) = stats.stratified(
            groups, lambda g: np.mean([x.mean(-1) for x in g], axis=0)
        )
        hits += low <= 5 <= high
        assert high - low < 1
    assert 0.89 < hits / 200 < 0.99


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=1, max_size=4)
    )
)
def test_pooled_statistics_of_equally_many_runs_are_those_of_all_runs(groups):
    together = np.concatenate(groups)
    groups = [np.array(group) for group in groups]
    assert stats.pooled_mean(groups) == pytest.approx(stats.mean(together), abs=1e-6)
    assert stats.pooled_iqm(groups) == pytest.approx(stats.iqm(together), abs=1e-6)


def test_pooled_statistics_weigh_environments_equally():
    groups = [np.array([0.5, 1.5]), np.zeros(6)]
    assert stats.pooled_mean(groups) == 0.5
    assert stats.pooled_iqm(groups) == pytest.approx(
        0.25
    )  # a quarter of the weight is 0, a quarter 0.5


@given(st.lists(samples, min_size=1, max_size=3), st.lists(numbers, min_size=1, max_size=5))
def test_performance_profile_counts_runs(groups, thresholds):
    profile = stats.performance_profile(groups, np.array(thresholds))
    for threshold, value in zip(thresholds, profile, strict=True):
        shares = [sum(score > threshold for score in group) / len(group) for group in groups]
        assert value == pytest.approx(sum(shares) / len(shares))


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


def test_is_worse_finds_a_regression_and_seldom_cries_wolf():
    rng = np.random.default_rng(0)

    def draw(n):  # as bimodal as returns can be: a run learns, or it does not
        return np.where(rng.random(n) < 0.8, 500.0, 150.0) + rng.normal(0, 10, n)

    level = 1 - 2 * 0.05 / 10
    alarms = [
        any(stats.is_worse(draw(5), draw(5), level)[2] for _ in range(10)) for _ in range(300)
    ]
    assert np.mean(alarms) < 0.07
    assert stats.is_worse(rng.normal(300, 30, 5), rng.normal(480, 30, 5), level)[2]
    assert not stats.is_worse(rng.normal(480, 30, 5), rng.normal(300, 30, 5), level)[2]
    assert stats.is_worse(np.full(5, 499.0), np.full(5, 500.0), level) == (-1.0, -1.0, True)
    assert not stats.is_worse(np.full(5, 500.0), np.full(5, 500.0), level)[2]
