"""Compares a new set of runs with stored results: are the returns worse than chance
explains?"""

from pathlib import Path

import numpy as np

from .runs import Run, done, grouped
from .stats import t_interval
from .store import load, read_results
from .words import BadInput

MEASURES = ("eval_return_mean", "train_return_mean")
FAMILY = 0.05  # the chance of a false alarm, over all comparisons together


def check(root: Path, against: Path) -> tuple[list[str], bool]:
    """A line for each comparison, and whether anything is worse.

    For each algorithm and environment that both sets hold, and for each measure: Welch's
    interval of the difference in mean return. Its level is chosen so that all comparisons
    together raise a false alarm in at most 5% of repeats (Bonferroni). Runs that failed, and a
    measure that none of the new runs has, are worse too. Raises BadInput where nothing can be
    compared.
    """
    runs, problems = load(root)
    new, stored = (grouped(done(some), "cell") for some in (runs, read_results(against)))
    bad = [run for run in runs if run.status != "done"]
    worse = any(run.status == "failed" for run in bad)
    lines = [f"problem: {problem}" for problem in problems]
    for run in bad:
        what = f"{run.algorithm} on {run.env_id}, seed {run.seed} {run.reason}".rstrip()
        lines.append(f"{run.status}: {what}")
    comparisons = []
    for key in sorted(stored.keys() & new.keys()):
        name, cells = f"{key[0]} on {key[1]}", (new[key], stored[key])
        here, there = (sorted({run.summary["global_step"] for run in cell}) for cell in cells)
        if here != there:
            what = f"{name} ran {here} steps here and {there} in {against}; run it equally long"
            raise BadInput(what)
        for measure in MEASURES:
            values, before = (known_values(cell, measure) for cell in cells)
            what = f"{name}, {measure}"
            if len(before) >= 2 and len(values) == 0:
                worse = True
                lines.append(f"WORSE: {what}: no run has it, {len(before)} stored ones do")
            elif min(len(values), len(before)) < 2:
                lines.append(f"not compared: {what}: fewer than two seeds")
            else:
                comparisons.append((what, values, before))
    if not comparisons and not worse:
        what = f"nothing in {root} can be compared with {against}"
        raise BadInput(f"{what}: it takes two seeds or more of each, done")
    missing = sorted(stored.keys() - new.keys())
    lines += [f"not here: {algorithm} on {env_id}" for algorithm, env_id in missing]
    # Two-sided, of which only the lower tail can be called worse.
    level = 1 - 2 * FAMILY / max(len(comparisons), 1)
    for what, values, before in comparisons:
        low, high = t_interval([values, before], [1, -1], level)
        worse = worse or high < 0
        verdict = "WORSE" if high < 0 else "ok"
        # A share of successes, or a return.
        digits = 3 if max(abs(values).max(), abs(before).max()) <= 1 else 1
        lines.append(
            f"{verdict}: {what}: {values.mean():.{digits}f} (n = {len(values)}), "
            f"stored {before.mean():.{digits}f} (n = {len(before)}), "
            f"difference within [{low:.{digits}f}, {high:.{digits}f}]"
        )
    return lines, bool(worse)


def known_values(runs: list[Run], measure: str) -> np.ndarray:
    """A number of the summary of each run that has it."""
    found = [run.summary.get(measure) for run in runs]
    return np.array([x for x in found if x is not None], float)
