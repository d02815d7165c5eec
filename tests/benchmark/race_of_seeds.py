"""How many seeds a trial of a search should get: simulated with the returns of stored settings.

python -m tests.benchmark.race_of_seeds

True means of trials are those of A2C on LunarLander-v3 in benchmark/results/tuning.csv, blurred
by a fifth of their spread; a run adds normal noise with 0.62 of that spread, as the stored
seeds have it. At an equal number of runs: the true mean of the trial that is chosen, with a
fixed number of seeds each by their mean, and with up to so many as `benchmark tune` gives them.
"""

import numpy as np

from benchmark import tune
from benchmark.files import read_csv

RUNS, REPEATS, NOISE = (80, 40, 160), 500, 0.62


def true_means() -> np.ndarray:
    """The mean return of each stored setting."""
    path = tune.ROOT / "benchmark" / "results" / "tuning.csv"
    rows = [row for row in read_csv(path) if row["script"] == "a2c.py"]
    found = [np.array(row["eval_by_seed"].split(), float) for row in rows]
    return np.array([returns.mean() for returns in found if len(returns) >= 3])


def fixed(rng: np.random.Generator, means: np.ndarray, runs: int, seeds: int) -> float:
    """The true mean of the trial with the highest mean of `seeds` runs."""
    blur = rng.normal(size=runs // seeds) * means.std() / 5
    truth = rng.choice(means, runs // seeds) + blur
    noise = rng.normal(size=(runs // seeds, seeds)) * NOISE * means.std()
    return truth[np.argmax(truth + noise.mean(1))]


def race(rng: np.random.Generator, means: np.ndarray, runs: int, seeds: int) -> float:
    """The true mean of the trial with the highest lower bound, seeds given as by tune."""
    scale, left, spread, bar = means.std(), runs, None, -np.inf
    complete: list[tuple[list[float], float]] = []
    while left >= seeds or not complete:
        truth, values = rng.choice(means) + rng.normal() * scale / 5, []
        while len(values) < seeds:
            values.append(truth + rng.normal() * NOISE * scale)
            left -= 1
            if len(complete) >= tune.BEGUN and tune.bounds(values, spread)[1] < bar:
                break
        if len(values) == seeds:
            complete.append((values, truth))
            spread = float(np.mean([np.var(x, ddof=1) for x, _ in complete]))
            bar = max(tune.bounds(x, spread)[0] for x, _ in complete)
    return max(complete, key=lambda trial: tune.bounds(trial[0], spread)[0])[1]


def main() -> None:
    means, rng = true_means(), np.random.default_rng(0)
    for runs in RUNS:
        words = [f"{runs} runs:"]
        for choose, several in ((fixed, (1, 2, 3)), (race, (2, 3, 5))):
            for seeds in several:
                found = [choose(rng, means, runs, seeds) for _ in range(REPEATS)]
                words.append(f"{choose.__name__} {seeds} {np.mean(found):.0f}")
        print(*words, flush=True)


if __name__ == "__main__":
    main()
