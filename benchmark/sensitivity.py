"""What each flag of a script does: the figure and the table of its variants."""

import numpy as np

from . import plots, stats
from .captions import Groups, caption_counts, shown, with_interval
from .page import Figure, Section, Table
from .prepared import Prepared, prepare, values
from .runs import Run, done, grouped

AREA = "area under the learning curve, the mean return over the steps that all its runs have,"
WORDS = {"area": AREA, "eval_return_mean": "final evaluation"}


def sections(runs: list[Run], lacking: list[str]) -> tuple[list[Prepared], list[Section]]:
    """The runs prepared, each script's by themselves and with their areas in place of hundreds
    of curves; and a section for each script: its returns by each flag."""
    prepared, found = [], []
    for env_id, groups in grouped(runs, "env_id", "algorithm").items():
        for name in dict.fromkeys(name.partition(" ")[0] for name in groups):
            family = [
                x for y in groups.values() for x in y if x.algorithm.split(" ")[0] == name
            ]
            family, _ = prepare(family)
            for run in family:
                run.curve, run.points = {}, {}
                run.area = run.record.get("curve_mean") if run.area is None else run.area
            prepared += family
            found.append(section(name, env_id, grouped(family, "algorithm"), lacking))
    return prepared, found


def section(name: str, env_id: str, groups: Groups, lacking: list[str]) -> Section:
    """The returns of one script by each of its flags: figure and table."""
    show = shown(groups)
    base, panels, rows = groups.get(name, []), {}, []
    key = "area" if len(values(base, "area")) else "eval_return_mean"
    rows.append(["", "default", *cells(base, show)])
    for other, runs in groups.items():
        if other == name:
            continue
        flag, _, value = other.partition(" ")[2].partition("=")
        rows.append([flag, value, *cells(runs, show)])
        title = f"1 - {flag}" if flag in lacking else flag
        default = next((run.args[flag] for run in base if flag in run.args), None)
        if default is not None and title not in panels:
            panels[title] = [point(default, base, key, flag in lacking, True)]
        if done(runs) and title in panels:
            panels[title].append(point(float(value), runs, key, flag in lacking, False))
    rows[1:] = sorted(rows[1:], key=lambda row: (row[0], float(row[1])))
    caption = (
        f"{name}: IQM of the {WORDS[key]} on {env_id} with its 95% interval by one flag at a "
        "time; a dashed line marks the default. Axes of flags are logarithmic. "
        f"{caption_counts(groups)}."
    )
    columns = ["flag", "value", "n", "failed", "area", "evaluation", "last 100 episodes"]
    table = Table(f"The same as numbers. {caption_counts(groups)}.", columns, rows)
    if not panels or not done(base):
        return Section(name, [table])
    spec = plots.plot_flags({x: sorted(y) for x, y in panels.items()}, f"{name}, {env_id}")
    return Section(name, [table], [Figure(caption, f"sensitivity-{name}", spec)])


def cells(runs: list[Prepared], show) -> list[str]:
    """n, failed runs, and the returns with their intervals."""
    keys = ("area", "eval_return_mean", "train_return_mean")
    found = [with_interval([values(runs, key)], stats.iqm, show) for key in keys]
    failed = sum(run.status == "failed" for run in runs)
    return [str(len(done(runs))), str(failed), *found]


def point(
    value: float, runs: list[Prepared], key: str, lacking: bool, is_default: bool
) -> tuple[float, ...]:
    """Where a variant is drawn: flag, estimate, the ends of its interval, and whether it is the
    default."""
    x = float(f"{1 - value:.4g}") if lacking else float(value)
    group = [values(runs, key)]
    if not len(group[0]):
        return (x, *[np.nan] * 3, is_default)
    return (x, float(stats.iqm(group)), *stats.interval(group), is_default)
