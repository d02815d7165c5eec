"""Statistics over seeds, which are the unit of replication.

Means have Student's t interval, their differences Welch's. The interquartile mean (IQM), the
median and the probability of improvement have a percentile bootstrap, seeds drawn anew within
each environment, as Agarwal et al. 2021 have it (https://arxiv.org/abs/2108.13264). How often
each covers the truth is in results/coverage.csv.

A statistic takes a list of groups of seeds, one group for each environment or algorithm, (...,
n_i) each, and returns (...). Environments weigh the same, however many seeds they have.
"""

import numpy as np
from scipy.special import stdtrit

RESAMPLES = 20_000  # of a number; one of a band, where noise cannot be read off, has fewer
BAND_RESAMPLES = 2000
LEVEL = 0.95


def mean(groups: list[np.ndarray]) -> np.ndarray:
    """The mean over groups of the mean over seeds."""
    return np.mean([group.mean(-1) for group in groups], axis=0)


def iqm(groups: list[np.ndarray]) -> np.ndarray:
    """The interquartile mean of all seeds together, each weighing 1/n_i: the outer quarters
    left out.

    A quarter of the seeds is rounded down, so of fewer than four it is the mean.
    """
    sizes = [group.shape[-1] for group in groups]
    values = np.concatenate(groups, -1)
    cut = sum(sizes) // 4 / sum(sizes)
    if len(set(sizes)) == 1:
        ends = sum(sizes) // 4
        return np.sort(values, -1)[..., ends : sum(sizes) - ends].mean(-1)
    order = np.argsort(values, -1)
    weights = np.concatenate([np.full(n, 1 / (n * len(sizes))) for n in sizes])[order]
    right = np.cumsum(weights, -1)
    kept = np.clip(np.minimum(right, 1 - cut) - np.maximum(right - weights, cut), 0, None)
    return (kept * np.take_along_axis(values, order, -1)).sum(-1) / kept.sum(-1)


def median(groups: list[np.ndarray]) -> np.ndarray:
    """The median of the one group there is: infinite if half of the values are, or more."""
    (values,) = groups
    return np.median(values, -1)


def improvement(groups: list[np.ndarray]) -> np.ndarray:
    """The probability that a run of X beats one of Y on the same environment, a tie counting
    half, averaged over them.

    `groups`: X's and Y's returns in turn, [x_1, y_1, x_2, y_2, ...]. It is Mann and Whitney's U
    over the number of pairs.
    """
    wins = []
    for x, y in zip(groups[::2], groups[1::2], strict=True):
        difference = x[..., :, None] - y[..., None, :]
        wins.append(((difference > 0) + 0.5 * (difference == 0)).mean((-2, -1)))
    return np.mean(wins, axis=0)


def mean_difference(groups: list[np.ndarray]) -> np.ndarray:
    """How much higher the mean of X is than that of Y, averaged over environments: groups as in
    improvement."""
    return mean(groups[::2]) - mean(groups[1::2])


def iqm_difference(groups: list[np.ndarray]) -> np.ndarray:
    """How much higher the IQM of X is than that of Y, over the same environments: groups as in
    improvement."""
    return iqm(groups[::2]) - iqm(groups[1::2])


def interval(groups: list[np.ndarray], statistic=iqm) -> np.ndarray:
    """The 95% interval of a statistic: (2, ...), its lower and upper end; NaN where a group has
    fewer than two seeds, which tell nothing about the spread."""
    if statistic is mean_difference:
        return t_interval(groups, [2 / len(groups), -2 / len(groups)] * (len(groups) // 2))
    return t_interval(groups) if statistic is mean else bootstrap(groups, statistic)


def equivalence(groups: list[np.ndarray], margin: float) -> tuple[np.ndarray, bool]:
    """Two one-sided tests at 5% each (TOST; Schuirmann 1987): the 90% interval of the mean of X
    less that of Y, (2,), by Welch, and whether it lies within the margin on both sides.
    `groups`: X's and Y's returns. Where no value differs from another, they are equal."""
    ends = t_interval(groups, [1, -1], 0.9)
    return ends, bool(np.abs(ends).max() < margin)


def t_interval(
    groups: list[np.ndarray], weights: list[float] | None = None, level: float = LEVEL
) -> np.ndarray:
    """Student's interval of the groups' mean, or of another weighted sum of their means, with
    Welch and Satterthwaite's degrees of freedom: (2, ...)."""
    weights = weights or [1 / len(groups)] * len(groups)
    weighted = list(zip(weights, groups, strict=True))
    centre = sum(w * group.mean(-1) for w, group in weighted)
    freedom = np.array([group.shape[-1] - 1 for group in groups])
    if freedom.min() < 1:
        return np.full((2, *np.shape(centre)), np.nan)
    parts = [w**2 * group.var(-1, ddof=1) / group.shape[-1] for w, group in weighted]
    total = sum(parts)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing varies
        degrees = total**2 / sum(part**2 / n for part, n in zip(parts, freedom, strict=True))
        half = np.where(total > 0, stdtrit(degrees, (1 + level) / 2) * np.sqrt(total), 0)
    return np.stack([centre - half, centre + half])


def bootstrap(groups: list[np.ndarray], statistic) -> np.ndarray:
    """The percentile bootstrap interval of a statistic, seeds drawn anew within each group: (2,
    ...)."""
    if min(group.shape[-1] for group in groups) < 2:
        return np.full((2, *np.shape(statistic(groups))), np.nan)
    sizes = [group.shape[-1] for group in groups]
    count = RESAMPLES if groups[0].ndim == 1 else BAND_RESAMPLES
    drawn = [np.random.default_rng(i).integers(n, size=(count, n)) for i, n in enumerate(sizes)]
    pieces = [
        statistic([group[..., indices] for group, indices in zip(groups, several, strict=True)])
        for several in zip(*(np.array_split(indices, 20) for indices in drawn), strict=True)
    ]
    replicates = np.concatenate(pieces, -1)
    # Nothing lies between a number and infinity.
    method = "inverted_cdf" if np.isinf(replicates).any() else "linear"
    return np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1, method=method)


def binned(positions: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The mean of the values within each bin of a rising grid (bins,): (episodes,) each ->
    (bins,).

    Bin k is (grid[k-1], grid[k]], the first one from 0. A bin without episodes takes over the
    one before it; NaN until the first episode.
    """
    bins = np.searchsorted(grid, positions, side="left")
    inside = bins < len(grid)
    sums = np.bincount(bins[inside], values[inside], len(grid))
    counts = np.bincount(bins[inside], minlength=len(grid))
    means = np.divide(sums, counts, out=np.full(len(grid), np.nan), where=counts > 0)
    last = np.maximum.accumulate(np.where(counts > 0, np.arange(len(grid)), -1))
    return np.where(last >= 0, means[last], np.nan)


def first_reached(returns: np.ndarray, threshold: float, window: int = 100) -> int | None:
    """Index of the first episode at which the mean of the last `window` returns is at least the
    threshold, or None."""
    if len(returns) < window:
        return None
    sums = np.cumsum(np.append(0.0, returns))
    (reached,) = np.nonzero((sums[window:] - sums[:-window]) / window >= threshold)
    return int(reached[0]) + window - 1 if len(reached) else None
