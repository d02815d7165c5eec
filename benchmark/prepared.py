"""What makes the runs of one environment comparable: curves in the same bins, areas over the
same steps, and the return that scores compare."""

from dataclasses import dataclass, field

import numpy as np

from .runs import Run, done, grouped
from .stats import binned
from .words import number, span

BINS = 50  # of a learning curve, up to the longest run of its environment
LAST = 0.1  # of the steps that all have: what runs of other lengths are compared by
SAME = 1.05  # lengths whose ratio is at most this are equal: runs end with a whole batch


@dataclass
class Prepared(Run):
    """A run, and what a report makes of it beside the others of its environment."""

    # By steps and by seconds: ends of bins and returns, (bins,) each, NaN where there is none.
    curve: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    area: float | None = None  # the mean of the curve over the steps that all runs have
    common: tuple[float, float] | None = None  # the worst bin of any run there, and their end
    compared: float | None = None  # the return that scores and differences compare


def prepare(runs: list[Run]) -> tuple[list[Prepared], dict[str, str]]:
    """The runs prepared, and by environment how their numbers came about, in words."""
    prepared = [Prepared(**vars(run)) for run in runs]
    environments = grouped(prepared, "env_id")
    return prepared, {env_id: compare(done(some)) for env_id, some in environments.items()}


def compare(runs: list[Prepared]) -> str:
    """Give one environment's runs that are done their curves, areas and the returns that they
    are compared by; return a sentence on each.

    All areas are over the same bins: those that end within the shortest run. Where runs are of
    unequal length, and all have curves, they are compared by the end of those bins instead of
    by their evaluation.
    """
    for run in runs:
        run.compared = run.summary["eval_return_mean"]
    curved = [run for run in runs if run.has_curve]
    bin_curves(curved)
    lengths, all_curved = [run.summary["global_step"] for run in runs], len(curved) == len(runs)
    unequal = bool(runs) and max(lengths) > SAME * min(lengths)
    if not curved:
        return budgets(lengths, "") if unequal else ""
    ends = curved[0].curve["steps"][0]
    count = max(1, int((ends <= min(run.summary["global_step"] for run in curved)).sum()))
    last, end = max(1, round(LAST * count)), f"{ends[count - 1]:,.0f}"
    start = f"{ends[count - 1 - last]:,.0f}" if count > last else "0"
    words = [budgets(lengths, f"from step {start} to {end}" if all_curved else "")]
    lines = np.array([run.curve["steps"][1][:count] for run in curved])
    if np.isfinite(lines).any():
        worst = float(np.nanmin(lines))
        lines = np.where(np.isnan(lines), worst, lines)
        for run, line in zip(curved, lines, strict=True):
            run.common, run.area = (worst, float(ends[count - 1])), float(line.mean())
            if unequal and all_curved:
                run.compared = float(line[-last:].mean())
        words.append(
            f"Area: the mean of the learning curve over the first {end} steps, which all runs "
            f"have, in {count} bins; a bin before a run's first ended episode counts as the "
            f"worst bin of any run there, {number(worst)}, a later one in which none ended, as "
            "the bin before it."
        )
    return " ".join(words if unequal else words[1:])


def bin_curves(runs: list[Prepared]) -> None:
    """Give the runs of an environment their curves in bins up to the longest of them."""
    for axis, length in (("steps", "global_step"), ("seconds", "wall_seconds")):
        known = [run for run in runs if axis in run.points]  # a table by hand may lack one
        longest = max((run.summary[length] for run in known), default=0)
        ends = np.linspace(0, longest, BINS + 1)[1:]
        for run in known:
            means = binned(*run.points[axis], ends)
            line = [float(f"{y:.6g}") for y in means]  # as in curves.csv
            begun = np.append(0, ends[:-1]) < run.summary[length]
            run.curve[axis] = ends, np.where(begun, line, np.nan)


def budgets(lengths: list[int], steps: str) -> str:
    """What is compared where budgets differ: training returns between these steps, if any."""
    by = f"training returns at equal steps, {steps}"
    if not steps:
        by = "final evaluations at unequal steps, since not every run has a curve"
    before = f"Budgets differ ({span(lengths)} steps)."
    return f"{before} Scores and differences compare {by}."


def values(runs: list[Prepared], key: str) -> np.ndarray:
    """A number of each run that is done and has it: "area", "compared", or an entry of its
    summary."""
    if key in ("area", "compared"):
        found = [getattr(run, key) for run in done(runs)]
    else:
        found = [run.summary.get(key) for run in done(runs)]
    return np.array([value for value in found if value is not None], float)
