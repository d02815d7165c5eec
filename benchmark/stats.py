"""Statistics over seeds. The seed is the unit of replication; every interval is a percentile bootstrap over seeds.

Source of the choice: Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice,
https://arxiv.org/abs/2108.13264 (IQM, stratified bootstrap, performance profiles, probability of improvement).
"""

import warnings

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95


def mean(values: np.ndarray) -> np.ndarray:
    """The mean along the last axis: (..., n) -> (...)."""
    return values.mean(-1)


def iqm(values: np.ndarray) -> np.ndarray:
    """The interquartile mean along the last axis, (..., n) -> (...): the lowest and the highest quarter left out.

    A quarter of n is rounded down, so with fewer than four values it is the mean.
    """
    return stats.trim_mean(values, 0.25, axis=-1)


def median(values: np.ndarray) -> np.ndarray:
    """The lower median along the last axis, (..., n) -> (...): infinite only if more than half of the values are."""
    return np.quantile(values, 0.5, axis=-1, method="inverted_cdf")


def resamples(n: int, seed: int = 0, count: int = RESAMPLES) -> np.ndarray:
    """Indices of `count` bootstrap samples of n values: (count, n)."""
    return np.random.default_rng(seed).integers(n, size=(count, n))


def percentile_interval(replicates: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The central `level` of bootstrap replicates, (count, ...) -> (2, ...): its lower and upper end."""
    method = "inverted_cdf" if np.isinf(replicates).any() else "linear"  # nothing lies between a number and infinity
    return np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0, method=method)


def interval(values: np.ndarray, statistic=iqm, level: float = LEVEL) -> np.ndarray:
    """Bootstrap interval of a statistic over seeds, the last axis: (..., n) -> (2, ...).

    NaN for fewer than two seeds, which tell nothing about the spread.
    """
    n = values.shape[-1]
    if n < 2:
        return np.full((2, *values.shape[:-1]), np.nan)
    replicates = [statistic(values[..., indices]) for indices in np.array_split(resamples(n), 20)]
    # (..., count) pieces joined; the replicates' axis goes first
    return percentile_interval(np.moveaxis(np.concatenate(replicates, -1), -1, 0), level)


def stratified(groups: list[np.ndarray], statistic, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """A statistic of several groups of seeds, one per environment or algorithm, and its bootstrap interval, (2, ...).

    `groups` holds arrays (n_i,); seeds are drawn anew within each. `statistic` takes arrays (..., n_i) and returns
    (..., *shape). Where a group has fewer than two seeds the interval is NaN.
    """
    estimate = np.asarray(statistic(groups))
    if min(len(group) for group in groups) < 2:
        return estimate, np.full((2, *estimate.shape), np.nan)
    drawn = [group[resamples(len(group), seed=i)] for i, group in enumerate(groups)]
    return estimate, percentile_interval(np.asarray(statistic(drawn)), level)


def pooled_mean(groups: list[np.ndarray]) -> np.ndarray:
    """The mean over environments of the mean over runs: groups (..., n_i) -> (...)."""
    return np.mean([group.mean(-1) for group in groups], axis=0)


def pooled_iqm(groups: list[np.ndarray]) -> np.ndarray:
    """The interquartile mean of all runs together, each weighing 1/n_i of its environment: groups (..., n_i) -> (...).

    Where the n_i are equal it is iqm() of all runs.
    """
    sizes = [group.shape[-1] for group in groups]
    values = np.concatenate(groups, -1)
    order = np.argsort(values, -1)
    weights = np.concatenate([np.full(n, 1 / (n * len(sizes))) for n in sizes])[order]
    right = np.cumsum(weights, -1)
    cut = sum(sizes) // 4 / sum(sizes)
    kept = np.clip(np.minimum(right, 1 - cut) - np.maximum(right - weights, cut), 0, None)
    return (kept * np.take_along_axis(values, order, -1)).sum(-1) / kept.sum(-1)


def performance_profile(groups: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """The share of runs that score above each threshold, every environment weighing the same.

    `groups`: normalised scores (..., n_i) per environment; thresholds (k,) -> (..., k).
    """
    return np.mean([(group[..., :, None] > thresholds).mean(-2) for group in groups], axis=0)


def improvement(pairs: list[np.ndarray]) -> np.ndarray:
    """The probability that a run of X beats one of Y on the same environment, a tie counting half, averaged over them.

    `pairs`: X's and Y's returns in turn, [x_1, y_1, x_2, y_2, ...], each (..., n) -> (...). It is Mann and Whitney's U
    over the number of pairs.
    """
    wins = []
    for x, y in zip(pairs[::2], pairs[1::2], strict=True):
        difference = x[..., :, None] - y[..., None, :]
        wins.append(((difference > 0) + 0.5 * (difference == 0)).mean((-2, -1)))
    return np.mean(wins, axis=0)


def is_worse(new: np.ndarray, stored: np.ndarray, level: float) -> tuple[float, float, bool]:
    """The ends of Welch's interval of mean(new) - mean(stored), and whether all of it lies below zero.

    Student's t and not the bootstrap, which is too narrow for the few seeds that a check can afford. Both arrays (n,),
    n >= 2.
    """
    difference = new.mean() - stored.mean()
    if new.var() == 0 and stored.var() == 0:  # nothing varies: the interval is the difference itself
        return difference, difference, bool(difference < 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns where one side has no variance; Welch allows it
        low, high = stats.ttest_ind(new, stored, equal_var=False).confidence_interval(level)
    return float(low), float(high), bool(high < 0)


def binned(positions: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The mean of the values within each bin of a rising grid (bins,): (episodes,) each -> (bins,).

    Bin k is (grid[k-1], grid[k]], the first one from 0. A bin without episodes takes over the one before it; NaN until
    the first episode.
    """
    bins = np.searchsorted(grid, positions, side="left")
    inside = bins < len(grid)
    sums = np.bincount(bins[inside], values[inside], len(grid))
    counts = np.bincount(bins[inside], minlength=len(grid))
    means = np.divide(sums, counts, out=np.full(len(grid), np.nan), where=counts > 0)
    last = np.maximum.accumulate(np.where(counts > 0, np.arange(len(grid)), -1))
    return np.where(last >= 0, means[last], np.nan)


def first_reached(returns: np.ndarray, threshold: float, window: int = 100) -> int | None:
    """Index of the first episode at which the mean of the last `window` returns is at least the threshold, or None."""
    if len(returns) < window:
        return None
    sums = np.cumsum(np.append(0.0, returns))
    (reached,) = np.nonzero((sums[window:] - sums[:-window]) / window >= threshold)
    return int(reached[0]) + window - 1 if len(reached) else None
