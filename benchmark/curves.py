"""The figures of returns by steps and seconds, and of what was logged."""

import math
from collections.abc import Sequence

import numpy as np

from . import plots, stats
from .captions import (
    Groups,
    all_runs,
    caption_counts,
    file_stem,
    steps_label,
    threshold,
)  # fmt: skip
from .page import Figure
from .prepared import BINS, Prepared
from .runs import done

LOG_POINTS = 100  # of a logged value, at most

Lines = dict[str, tuple]  # by algorithm: x, y and the ends of its band, (points,) each


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


def beyond(lines: Lines, ends: tuple[float, float] | None) -> str:
    """For a caption: that bands are cut off, where they are."""
    drawn = np.concatenate([np.concatenate(line[1:]) for line in lines.values()])
    cut = ends and (np.nanmin(drawn) < ends[0] or np.nanmax(drawn) > ends[1])
    return "Bands go on beyond the axis. " if cut else ""


def learning_curve(env_id: str, groups: Groups, axis: str, style: dict) -> Figure | None:
    """The curves of one environment by steps or by seconds; None where no run has one."""
    known = {name: [run for run in runs if axis in run.curve] for name, runs in groups.items()}
    stacks = {name: stacked(runs, axis) for name, runs in known.items() if runs}
    if not stacks:
        return None
    lines = {name: band(x, [y], stats.iqm) for name, (x, y) in stacks.items()}
    level = threshold(all_runs(groups))
    ends = limits([y for _, y in stacks.values()], lines, level)
    if level is not None and not (ends and ends[0] <= level <= ends[1]):
        level = None
    x_label = steps_label(all_runs(known)) if axis == "steps" else "seconds of training"
    y_label = "training return"
    spec = plots.plot_bands(lines, style, env_id, x_label, y_label, level, ends)
    caption = (
        f"{env_id}: return of the training episodes by {x_label}, IQM over seeds with a "
        f"95% bootstrap band, in bins of 1/{BINS} of the longest run; a line ends with its "
        f"shortest run. {beyond(lines, ends)}{caption_counts(groups, 'curve')}."
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
    x_label = steps_label(all_runs(logged))
    ends = limits([y for _, y in stacks.values()], lines, None)
    spec = plots.plot_bands(lines, style, env_id, x_label, tag, limits=ends)
    without = [name for name, runs in groups.items() if not logged[name] and done(runs)]
    counted = {name: runs for name, runs in groups.items() if name not in without}
    caption = (
        f"{env_id}: {tag} by {x_label}, mean over seeds with Student's 95% band. Points are at "
        f"the steps of the algorithm's sparsest log, at most {LOG_POINTS} of them; for each "
        "run they average what it logged since the point before, or repeat that point where it "
        "logged nothing. A line ends with its shortest run. "
        f"{beyond(lines, ends)}{caption_counts(counted, tag)}."
    )
    caption += f" Not logged by {', '.join(without)}." if without else ""
    return Figure(caption, file_stem("log", tag, env_id), spec)


def environment_figures(
    env_id: str, groups: Groups, style: dict, tags: Sequence[str]
) -> list[Figure]:
    """The curves and logged values of one environment."""
    # A plot for each of many says little of seconds, which stand in a table.
    axes = ("steps",) if len(groups) > plots.PANELS else ("steps", "seconds")
    figures = [learning_curve(env_id, groups, axis, style) for axis in axes]
    figures += [log_figure(env_id, groups, style, tag) for tag in tags]
    return [figure for figure in figures if figure]
