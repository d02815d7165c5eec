"""How often the intervals of the reports cover the truth: simulated, and kept beside the stored
reports.

python -m tests.benchmark.interval_coverage    # writes benchmark/results/coverage.csv
"""

import csv
from functools import cache
from pathlib import Path

import numpy as np
from scipy import stats as scipy_stats

from benchmark import stats

PATH = Path(stats.__file__).parent / "results" / "coverage.csv"
SAMPLES = 4000
RETURNS = {  # by name: how n returns are drawn, and the quantile function
    "normal": (lambda rng, size: rng.normal(size=size), scipy_stats.norm.ppf),
    "lognormal": (lambda rng, size: rng.lognormal(size=size), scipy_stats.lognorm(1).ppf),
    "one in five fails": (
        lambda rng, size: rng.normal(10 * (rng.random(size) < 0.8), 1),
        lambda q: np.quantile(mixture(), q),
    ),
}
MEASURED = (
    ("mean", 1), ("mean", 3), ("IQM", 1), ("IQM", 3), ("P(X > Y)", 1), ("mean difference", 1),
    ("mean difference", 3), ("IQM difference", 1), ("IQM difference", 3),
)  # fmt: skip
CASES = [
    (name, environments, returns, n)
    for name, environments in MEASURED
    for returns in RETURNS
    for n in (5, 10)
]  # fmt: skip
STATISTICS = {
    "mean": stats.mean,
    "IQM": stats.iqm,
    "P(X > Y)": stats.improvement,
    "mean difference": stats.mean_difference,
    "IQM difference": stats.iqm_difference,
}
SHIFT = 0.75  # of the logarithm of X for lognormal returns, of X itself for the others


@cache
def mixture() -> np.ndarray:
    """A million draws of the returns of which one in five fails."""
    return RETURNS["one in five fails"][0](np.random.default_rng(1), 1_000_000)


def moved(returns: str, x: np.ndarray) -> np.ndarray:
    """X's returns, which are the higher ones, from draws of the same returns as Y's."""
    return x * np.exp(SHIFT) if returns == "lognormal" else x + SHIFT


def truth(name: str, returns: str) -> float:
    """What the statistic is of infinitely many seeds, in one environment or three alike."""
    if name.endswith(" difference"):
        one = truth(name.removesuffix(" difference"), returns)
        return float(moved(returns, one) - one)  # both statistics move with the returns
    quantiles = RETURNS[returns][1](np.linspace(0, 1, 200_001)[1:-1])
    if name == "mean":
        return {"normal": 0.0, "lognormal": np.exp(0.5), "one in five fails": 8.0}[returns]
    if name == "IQM":
        return float(quantiles[50_000:150_000].mean())
    x = moved(returns, quantiles)
    return float(np.searchsorted(quantiles, x).mean() / len(quantiles))


def coverage(name: str, environments: int, returns: str, n: int, samples: int) -> float:
    """The share of samples whose interval holds the truth."""
    rng, draw = np.random.default_rng(n), RETURNS[returns][0]
    groups = [draw(rng, (samples, n)) for _ in range(environments)]
    if name == "P(X > Y)" or name.endswith(" difference"):
        pairs = [(moved(returns, x), draw(rng, (samples, n))) for x in groups]
        groups = [group for pair in pairs for group in pair]
    low, high = stats.interval(groups, STATISTICS[name])
    return float(np.mean((low <= truth(name, returns)) & (truth(name, returns) <= high)))


if __name__ == "__main__":
    with PATH.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = ["statistic", "environments", "returns", "n", "samples", "coverage"]
        writer.writerow(columns)
        for case in CASES:
            writer.writerow([*case, SAMPLES, f"{coverage(*case, SAMPLES):.3f}"])
            file.flush()
