"""The figures of returns: by steps and seconds, of what was logged, and of scores over
environments."""

import math
from collections.abc import Sequence

import numpy as np

from . import plots, stats
from .captions import (
    AGGREGATES,
    Groups,
    all_runs,
    caption_counts,
    cell_counts,
    file_stem,
    legend_labels,
    steps_label,
    threshold,
)  # fmt: skip
from .page import Figure
from .prepared import BINS, Prepared
from .runs import done

PROFILE_POINTS = 101
LOG_POINTS = 100  # of a logged value, at most
BANDS = {
    "mean": "mean over seeds with Student's 95% band",
    "iqm": "IQM over seeds with a 95% bootstrap band",
}

Lines = dict[str, tuple]  # by algorithm: x, y and the ends of its band, (points,) each
Scores = dict[str, list[np.ndarray]]  # by algorithm: each environment's, (seeds,)


def band(x: np.ndarray, groups: list[np.ndarray], statistic) -> tuple:
    """A line with its band: a statistic of groups of (points, seeds)."""
    return (x, statistic(groups), *stats.interval(groups, statistic))


# ==============================================================================================
# Of one environment
# ==============================================================================================
def stacked(runs: list[Prepared], axis: str) -> tuple[np.ndarray, np.ndarray]:
    """The bins in which every run has begun and none has ended, (points,), and the returns
    there, (points, seeds)."""
    ends, returns = runs[0].curve[axis][0], np.stack([run.curve[axis][1] for run in runs], -1)
    known = np.isfinite(returns).all(-1)
    return ends[known], returns[known]


def limits(
    stacks: list[np.ndarray], lines: Lines, level: float | None
) -> tuple[float, float] | None:
    """The ends of a vertical axis that no single seed can squash: what is drawn, but at most
    half as far beyond the medians over seeds as these reach, and the threshold where it is not
    farther; None where nothing is drawn."""
    medians = np.concatenate([np.median(stack, -1) for stack in stacks])
    if not len(medians):
        return None
    low, high = medians.min(), medians.max()
    room = (high - low or abs(high) or 1) / 2
    drawn = np.concatenate([np.concatenate(line[1:]) for line in lines.values()])
    bottom, top = max(np.nanmin(drawn), low - room), min(np.nanmax(drawn), high + room)
    if level is not None and low - room <= level <= high + room:
        bottom, top = min(bottom, level), max(top, level)
    pad = 0.03 * (top - bottom or abs(high) or 1)
    return bottom - pad, top + pad


def learning_curve(
    env_id: str, groups: Groups, axis: str, style: dict, aggregate: str
) -> Figure | None:
    """The curves of one environment by steps or by seconds; None where no run has one."""
    known = {name: [run for run in runs if axis in run.curve] for name, runs in groups.items()}
    stacks = {name: stacked(runs, axis) for name, runs in known.items() if runs}
    if not stacks:
        return None
    lines = {name: band(x, [y], AGGREGATES[aggregate]) for name, (x, y) in stacks.items()}
    level = threshold(all_runs(groups))
    ends = limits([y for _, y in stacks.values()], lines, level)
    if level is not None and not (ends and ends[0] <= level <= ends[1]):
        level = None
    x_label = steps_label(all_runs(known)) if axis == "steps" else "seconds of training"
    labels = legend_labels(lines, groups, "curve")
    spec = plots.plot_bands(
        lines, style, env_id, x_label, "training return", labels, level, ends
    )
    caption = (
        f"{env_id}: return of the training episodes by {x_label}, {BANDS[aggregate]}, in bins "
        f"of 1/{BINS} of the longest run; a line ends with its shortest run. "
        f"{caption_counts(groups, 'curve')}."
    )
    return Figure(caption, file_stem("curve", axis, env_id), spec)


def log_grid(logs: list[np.ndarray], length: int) -> np.ndarray:
    """The steps at which the log with the fewest entries has them, up to `length`; at most
    LOG_POINTS of them, evenly thinned: logs (3, entries) each -> (points,)."""
    steps = np.unique(min(logs, key=lambda log: log.shape[1])[0])
    steps = steps[steps <= length]
    every = max(1, math.ceil(len(steps) / LOG_POINTS))
    return steps[::-1][::every][::-1]  # the last one stays


def log_stack(runs: list[Prepared], tag: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps at which all runs have logged something, (points,), and it there, (points,
    seeds)."""
    logs = [run.logged[tag] for run in runs]
    steps = log_grid(logs, min(run.summary["global_step"] for run in runs))
    y = np.stack([stats.binned(*log, steps) for log in logs], -1)
    begun = np.isfinite(y).all(-1)
    return steps[begun], y[begun]


def log_figure(env_id: str, groups: Groups, style: dict, tag: str) -> Figure | None:
    """What one environment's runs logged under a tag, by steps; None where they did not."""
    logged = {name: [x for x in done(runs) if tag in x.logged] for name, runs in groups.items()}
    stacks = {name: log_stack(runs, tag) for name, runs in logged.items() if runs}
    if not stacks:
        return None
    lines = {name: band(x, [y], stats.mean) for name, (x, y) in stacks.items()}
    x_label, labels = steps_label(all_runs(logged)), legend_labels(lines, groups, tag)
    ends = limits([y for _, y in stacks.values()], lines, None)
    spec = plots.plot_bands(lines, style, env_id, x_label, tag, labels, limits=ends)
    without = [name for name, runs in groups.items() if not logged[name] and done(runs)]
    counted = {name: runs for name, runs in groups.items() if name not in without}
    caption = (
        f"{env_id}: {tag} by {x_label}, mean over seeds with Student's 95% band. Points are at "
        f"the steps of the algorithm's sparsest log, at most {LOG_POINTS} of them; for each "
        "run they average what it logged since the point before, or repeat that point where it "
        "logged nothing. A line ends with its shortest run. "
        f"{caption_counts(counted, tag)}."
    )
    caption += f" Not logged by {', '.join(without)}." if without else ""
    return Figure(caption, file_stem("log", tag, env_id), spec)


def environment_figures(
    env_id: str, groups: Groups, style: dict, aggregate: str, tags: Sequence[str]
) -> list[Figure]:
    """The curves and logged values of one environment."""
    # A plot for each of many says little of seconds, which stand in a table.
    axes = ("steps",) if len(groups) > plots.PANELS else ("steps", "seconds")
    figures = [learning_curve(env_id, groups, axis, style, aggregate) for axis in axes]
    figures += [log_figure(env_id, groups, style, tag) for tag in tags]
    return [figure for figure in figures if figure]


# ==============================================================================================
# Of scores over environments
# ==============================================================================================
def aggregate_figure(scores: Scores, style: dict, where: str, counts: str, stem: str) -> Figure:
    """Mean and IQM of the normalised scores, side by side."""
    panels = {}
    for what, statistic in (("mean", stats.mean), ("IQM", stats.iqm)):
        panels[what] = {
            name: (float(statistic(groups)), *stats.interval(groups, statistic))
            for name, groups in scores.items()
        }
    spec = plots.plot_intervals(panels, style, "Aggregate scores", "normalised score")
    return Figure(f"Normalised scores {where}, as in the table. {counts}.", stem, spec)


def efficiency_line(environments: list[list[Prepared]]) -> tuple:
    """IQM over environments of the normalised training return by the share of the common
    steps, with its band."""
    shares, groups = np.linspace(0, 1, BINS + 1)[1:], []
    for runs in environments:
        lines = []
        for run in runs:
            (ends, line), (worst, end) = run.curve["steps"], run.common
            at = np.interp(shares * end, ends, np.where(np.isnan(line), worst, line))
            lines.append([run.score(x) for x in at])
        groups.append(np.array(lines).T)  # (points, seeds)
    return band(shares, groups, stats.iqm)


def efficiency_figure(
    curved: dict[str, list[list[Prepared]]], members: Groups, style: dict, where: str, stem: str
) -> Figure:
    """How soon scores rise: `curved` has the runs by algorithm and environment that have a
    curve, `members` all of them."""
    lines = {name: efficiency_line(environments) for name, environments in curved.items()}
    spec = plots.plot_bands(
        lines, style, "Sample efficiency", "share of the common steps", "normalised return",
        legend_labels(lines, members, "curve"),
    )  # fmt: skip
    caption = (
        f"Sample efficiency {where}: IQM of the normalised training return by the share of the "
        "steps that all runs of an environment have, with 95% bootstrap bands. "
        f"{cell_counts(all_runs(members), 'curve')}."
    )
    return Figure(caption, stem, spec)


def profile_figure(
    scores: Scores, members: Groups, style: dict, where: str, counts: str, stem: str
) -> Figure:
    """The share of runs above every score."""
    found = np.concatenate([np.zeros(1), *(x for groups in scores.values() for x in groups)])
    low, high = min(0.0, found.min()) - 0.02, max(1.0, found.max()) + 0.02
    at, lines = np.linspace(low, high, PROFILE_POINTS), {}
    for name, groups in scores.items():
        above = [(group > at[:, None]).astype(float) for group in groups]
        lines[name] = (at, stats.mean(above), *stats.bootstrap(above, stats.mean))
    spec = plots.plot_bands(
        lines, style, "Performance profile", "normalised score s", "share of runs above s",
        legend_labels(lines, members),
    )  # fmt: skip
    caption = (
        f"Performance profile {where}: the share of runs that score more than s, with 95% "
        f"bootstrap bands; higher is better. {counts}."
    )
    return Figure(caption, stem, spec)
