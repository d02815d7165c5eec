"""Compares a new set of runs with stored results: are the returns worse than chance explains?"""

import csv
from pathlib import Path

import numpy as np

from .grid import BadInput
from .runs import find_runs
from .stats import is_worse

MEASURES = ("eval_return_mean", "train_return_mean")
FAMILY = 0.05  # the chance that a repeat as good as the stored runs is called worse, over all comparisons together


def stored_results(path: Path) -> dict[tuple[str, str], list[dict]]:
    """(algorithm, env_id) -> the rows of a results.csv whose runs are done."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {getattr(error, 'strerror', error)}") from None
    groups: dict[tuple[str, str], list[dict]] = {}
    try:
        for row in rows:
            if row["status"] == "done":
                values = {name: float(row[name]) for name in MEASURES if row[name]}
                values["global_step"] = int(row["global_step"])
                groups.setdefault((row["algorithm"], row["env_id"]), []).append(values)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is no results.csv of a report ({type(error).__name__}: {error})") from None
    if not groups:
        raise BadInput(f"{path} holds no run that is done")
    return groups


def check(root: Path, against: Path) -> tuple[list[str], bool]:
    """A line for each comparison, and whether anything is worse.

    For each algorithm and environment that both sets hold, and for each measure: Welch's interval of the difference in
    mean return. Its level is chosen so that all comparisons together raise a false alarm in at most 5% of repeats
    (Bonferroni). Runs that failed, and a measure that none of the new runs has, are worse too. Raises BadInput where
    nothing can be compared.
    """
    stored = stored_results(against)
    runs, problems = find_runs(root)
    new: dict[tuple[str, str], list[dict]] = {}
    lines, worse = [f"problem: {problem}" for problem in problems], False
    for run in runs:
        if run.status == "done":
            new.setdefault((run.algorithm, run.env_id), []).append(run.summary)
        else:
            worse = worse or run.status == "failed"
            lines.append(f"{run.status}: {run.algorithm} on {run.env_id}, seed {run.seed} {run.reason}".rstrip())
    comparisons = []
    for key in sorted(stored.keys() & new.keys()):
        name = f"{key[0]} on {key[1]}"
        lengths = [sorted({row["global_step"] for row in rows}) for rows in (new[key], stored[key])]
        if lengths[0] != lengths[1]:
            raise BadInput(f"{name} ran {lengths[0]} steps here and {lengths[1]} in {against}; run it equally long")
        for measure in MEASURES:
            pair = [
                np.array([row[measure] for row in rows if row.get(measure) is not None], float)
                for rows in (new[key], stored[key])
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
        low, high, is_bad = is_worse(values, before, level)
        worse = worse or is_bad
        verdict = "WORSE" if is_bad else "ok"
        digits = 3 if max(abs(values).max(), abs(before).max()) <= 1 else 1  # a share of successes, or a return
        lines.append(
            f"{verdict}: {name}: {values.mean():.{digits}f} (n = {len(values)}), stored {before.mean():.{digits}f} "
            f"(n = {len(before)}), difference within [{low:.{digits}f}, {high:.{digits}f}]"
        )
    return lines, worse
