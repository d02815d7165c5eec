"""Compares a new set of runs with stored results: are the returns worse than chance explains?"""

from pathlib import Path

import numpy as np

from .grid import BadInput
from .runs import done, grouped
from .stats import t_interval
from .store import load, read_results

MEASURES = ("eval_return_mean", "train_return_mean")
FAMILY = 0.05  # the chance that a repeat as good as the stored runs is called worse, over all comparisons together


def check(root: Path, against: Path) -> tuple[list[str], bool]:
    """A line for each comparison, and whether anything is worse.

    For each algorithm and environment that both sets hold, and for each measure: Welch's interval of the difference in
    mean return. Its level is chosen so that all comparisons together raise a false alarm in at most 5% of repeats
    (Bonferroni). Runs that failed, and a measure that none of the new runs has, are worse too. Raises BadInput where
    nothing can be compared.
    """
    runs, problems = load(root)
    new, stored = (grouped(done(some), "cell") for some in (runs, read_results(against)))
    bad = [run for run in runs if run.status != "done"]
    worse = any(run.status == "failed" for run in bad)
    lines = [f"problem: {problem}" for problem in problems]
    lines += [f"{run.status}: {run.algorithm} on {run.env_id}, seed {run.seed} {run.reason}".rstrip() for run in bad]
    comparisons = []
    for key in sorted(stored.keys() & new.keys()):
        name = f"{key[0]} on {key[1]}"
        lengths = [sorted({run.summary["global_step"] for run in cell}) for cell in (new[key], stored[key])]
        if lengths[0] != lengths[1]:
            raise BadInput(f"{name} ran {lengths[0]} steps here and {lengths[1]} in {against}; run it equally long")
        for measure in MEASURES:
            pair = [
                np.array([x for run in cell if (x := run.summary.get(measure)) is not None], float)
                for cell in (new[key], stored[key])
            ]
            if len(pair[1]) >= 2 and len(pair[0]) == 0:
                worse = True
                lines.append(f"WORSE: {name}, {measure}: no run has it, {len(pair[1])} stored ones do")
            elif min(map(len, pair)) < 2:
                lines.append(f"not compared: {name}, {measure}: fewer than two seeds")
            else:
                comparisons.append((f"{name}, {measure}", *pair))
    if not comparisons and not worse:
        raise BadInput(f"nothing in {root} can be compared with {against}: it takes two seeds or more of each, done")
    lines += [f"not here: {algorithm} on {env_id}" for algorithm, env_id in sorted(stored.keys() - new.keys())]
    level = 1 - 2 * FAMILY / max(len(comparisons), 1)  # two-sided, of which only the lower tail can be called worse
    for name, values, before in comparisons:
        low, high = t_interval([values, before], [1, -1], level)
        worse = worse or high < 0
        verdict = "WORSE" if high < 0 else "ok"
        digits = 3 if max(abs(values).max(), abs(before).max()) <= 1 else 1  # a share of successes, or a return
        lines.append(
            f"{verdict}: {name}: {values.mean():.{digits}f} (n = {len(values)}), stored {before.mean():.{digits}f} "
            f"(n = {len(before)}), difference within [{low:.{digits}f}, {high:.{digits}f}]"
        )
    return lines, bool(worse)
