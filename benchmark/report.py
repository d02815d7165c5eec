"""From run directories to tables, figures, CSV files, a Markdown page and an HTML page."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import gymnasium as gym
import numpy as np

from . import plots, stats
from .grid import BadInput
from .page import html_page, markdown_page
from .pool import write_atomically
from .runs import SUMMARY, Run, find_runs, read_tags

BINS = 50  # points of a learning curve
PROFILE_POINTS = 101
ROWS = 30  # pairs of algorithms that a figure shows one by one; more are a matrix
LOG_POINTS = 100  # of a logged value, at most
AREA = "the mean return over the steps up to the shortest run of the environment"
AGGREGATES = {"mean": stats.mean, "iqm": stats.iqm}


@dataclass
class Table:
    """A table with its caption; cells are text as it is shown."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


@dataclass
class Figure:
    """A figure that lies in the folder as <stem>.png and <stem>.svg."""

    caption: str
    stem: str


@dataclass
class Section:
    """A heading and what stands under it."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# ======================================================================================================================
# Words and numbers
# ======================================================================================================================
def number(value: float | None) -> str:
    """A return, a number of steps or of seconds, as a table shows it."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def fine(value: float | None) -> str:
    """A return between 0 and 1, or a divergence in nats."""
    return number(value) if value is None or math.isnan(value) else f"{value:.3f}"


def maybe_never(value: float) -> str:
    """Steps or seconds until something that may never have come."""
    return number(value) if math.isfinite(value) else "never"


def with_interval(estimate: float, ends: np.ndarray, show=number) -> str:
    """'12.3 [11.0, 13.5]'; the estimate alone where there is no interval."""
    return show(estimate) if np.isnan(ends).any() else f"{show(estimate)} [{show(ends[0])}, {show(ends[1])}]"


def share(value: float) -> str:
    """A probability or a normalised score."""
    return f"{value:.2f}"


def count_words(runs: list[Run], needs: str = "") -> str:
    """'n = 5, 1 failed, 1 unfinished': what the runs of one algorithm came to; n counts those that are used.

    With `needs`, "curve", an entry of the summaries or a logged tag, those that are done but lack it are no part of n.
    """

    def word(run: Run) -> str:
        if run.status == "done" and needs == "curve" and not run.has_curve:
            return "no curve"
        if run.status == "done" and needs in run.summary and run.summary[needs] is None:
            return "without an episode"
        if run.status == "done" and needs in run.logged and not run.logged[needs].size:
            return "without this log"
        return run.status

    counts = Counter(map(word, runs))
    rare = ("unfinished", "no curve", "without an episode", "without this log")
    others = [f"{counts[name]} {name}" for name in rare if counts[name]]
    return ", ".join([f"n = {counts['done']}", f"{counts['failed']} failed", *others])


def caption_counts(groups: dict[str, list[Run]], needs: str = "") -> str:
    """The counts of each algorithm for a caption, said once where they are all the same."""
    words = {name: count_words(runs, needs) for name, runs in groups.items()}
    if len(set(words.values())) == 1:
        return f"Each algorithm: {next(iter(words.values()))}"
    return "; ".join(f"{name}: {text}" for name, text in words.items())


def legend_labels(names: Iterable[str], groups: dict[str, list[Run]], needs: str = "") -> dict[str, str]:
    """What a legend calls the algorithms: with their counts, unless these are all the same; the caption says them."""
    words = {name: count_words(groups[name], needs) for name in names}
    return {name: name if len(set(words.values())) == 1 else f"{name} ({text})" for name, text in words.items()}


def file_stem(*words: str) -> str:
    """The name of a figure's files."""
    return "-".join(words).replace("/", "_").replace(":", "_")


def steps_label(runs: list[Run]) -> str:
    """What a step of these runs is."""
    return "completions" if any(run.is_task for run in runs) else "environment steps"


def done(runs: list[Run]) -> list[Run]:
    """The runs that ended well, whose returns count."""
    return [run for run in runs if run.status == "done"]


def all_runs(groups: dict[str, list[Run]]) -> list[Run]:
    """The runs of all algorithms."""
    return [run for runs in groups.values() for run in runs]


def by_environment(runs: list[Run]) -> dict[str, dict[str, list[Run]]]:
    """env_id -> algorithm -> its runs."""
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        groups.setdefault(run.env_id, {}).setdefault(run.algorithm, []).append(run)
    return groups


def threshold(env_id: str, runs: Iterable[Run] = ()) -> float | None:
    """The return at which the environment counts as solved: that of the suite which made the runs, or else Gymnasium's;
    None where neither names one."""
    spec = gym.registry.get(env_id)
    named = [run.threshold for run in runs if run.threshold is not None]
    return named[0] if named else None if spec is None else spec.reward_threshold


def reached(run: Run) -> tuple[float, float]:
    """Steps and seconds until the last 100 training episodes averaged the threshold, or, where a run logs its exact
    success, until that was as high; infinite where they never did."""
    level = threshold(run.env_id, [run])
    if level is not None and run.exact.size:
        steps, seconds, _ = run.exact[:, run.exact[2] >= level]
        return (steps[0], seconds[0]) if len(steps) else (math.inf, math.inf)
    index = None if level is None else stats.first_reached(run.returns, level)
    return (math.inf, math.inf) if index is None else (float(run.steps[index]), float(run.seconds[index]))


def curve_mean(run: Run, length: int) -> float | None:
    """The mean of a run's learning curve over its first `length` steps, in bins of 1/BINS of them, from the first bin
    in which an episode ended: the area under the curve, in units of the return. None where there is no curve."""
    if not run.has_curve:
        return None
    curve = stats.binned(run.steps, run.returns, np.linspace(0, length, BINS + 1)[1:])
    return None if np.isnan(curve).all() else float(np.nanmean(curve))


def set_curve_means(runs: list[Run]) -> None:
    """Give each run its curve_mean over the steps that all runs of its environment have: longer ones earn no more."""
    for groups in by_environment(runs).values():
        members = [run for group in groups.values() for run in group if run.has_curve]
        for run in members:
            run.curve_mean = curve_mean(run, min(other.summary["global_step"] for other in members))


def measure(run: Run, key: str) -> float | None:
    """An entry of a run's summary, or the mean of its curve under the key "curve"; None where it is unknown."""
    return run.curve_mean if key == "curve" else run.summary[key]


# ======================================================================================================================
# Per environment: learning curves and tables
# ======================================================================================================================
def curve_grid(runs: list[Run], axis: str) -> np.ndarray:
    """The right ends of the bins that all curves of one environment share: (BINS,), up to the longest run."""
    length = max(run.summary["global_step" if axis == "steps" else "wall_seconds"] for run in runs)
    return np.linspace(0, length, BINS + 1)[1:]


def run_curve(run: Run, axis: str, grid: np.ndarray) -> np.ndarray:
    """The mean return of the episodes that ended in each bin, (BINS,); NaN before the first and after the run's end."""
    curve = stats.binned(run.steps if axis == "steps" else run.seconds, run.returns, grid)
    length = run.summary["global_step" if axis == "steps" else "wall_seconds"]
    return np.where(np.append(0, grid[:-1]) < length, curve, np.nan)


def learning_curves(
    env_id: str, groups: dict[str, list[Run]], style: dict, aggregate: str, out: Path
) -> tuple[list[Figure], list[list]]:
    """Draw the curves of one environment by steps and by seconds; return the figures, and every run's curve as rows."""
    figures, rows = [], []
    used = {name: [run for run in runs if run.has_curve] for name, runs in groups.items()}
    used = {name: runs for name, runs in used.items() if runs}
    for axis in ("steps", "seconds") if used else ():
        grid, lines = curve_grid(all_runs(used), axis), {}
        for name, runs in used.items():
            curves = np.stack([run_curve(run, axis, grid) for run in runs], -1)  # (BINS, seeds)
            known = np.isfinite(curves).all(-1)  # where every seed has begun and none has ended
            shown = curves[known]
            lines[name] = (grid[known], AGGREGATES[aggregate](shown), *stats.interval(shown, AGGREGATES[aggregate]))
            for run, curve in zip(runs, curves.T, strict=True):
                rows += [
                    [env_id, name, run.seed, axis, f"{x:.6g}", "" if math.isnan(y) else f"{y:.6g}"]
                    for x, y in zip(grid, curve, strict=True)
                ]
        labels, stem = legend_labels(lines, groups, "curve"), file_stem("curve", axis, env_id)
        x_label = steps_label(all_runs(used)) if axis == "steps" else "seconds of training"
        word = {"iqm": "IQM", "mean": "mean"}[aggregate]
        plots.plot_bands(out / stem, lines, labels, style, env_id, x_label, "return of training episodes",
                         threshold(env_id, all_runs(groups)))  # fmt: skip
        caption = (
            f"{env_id}: return of the training episodes by {x_label}, {word} over seeds with a 95% bootstrap band, in "
            f"bins of 1/{BINS} of the longest run; a line ends with its shortest run. "
        )
        figures.append(Figure(f"{caption}{caption_counts(groups, 'curve')}.", stem))
    return figures, rows


def log_grid(logs: list[np.ndarray], length: int) -> np.ndarray:
    """The steps at which the log with the fewest entries has them, up to `length`; at most LOG_POINTS of them, evenly
    thinned: logs (3, entries) each -> (points,)."""
    steps = np.unique(min(logs, key=lambda log: log.shape[1])[0])
    steps = steps[steps <= length]
    every = max(1, math.ceil(len(steps) / LOG_POINTS))
    return steps[::-1][::every][::-1]  # the last one stays


def log_figures(
    env_id: str, groups: dict[str, list[Run]], style: dict, tags: Sequence[str], out: Path
) -> tuple[list[Figure], list[list]]:
    """Draw what one environment's runs logged under each tag, by steps; return the figures, and every entry as rows."""
    figures, rows = [], []
    for tag in tags:
        used = {name: [run for run in done(runs) if run.logged[tag].size] for name, runs in groups.items()}
        used, lines = {name: runs for name, runs in used.items() if runs}, {}
        for name, runs in used.items():
            logs = [run.logged[tag] for run in runs]
            grid = log_grid(logs, min(run.summary["global_step"] for run in runs))
            values = np.stack([stats.binned(steps, y, grid) for steps, _, y in logs], -1)  # (points, seeds)
            known = np.isfinite(values).all(-1)  # where every seed has begun
            shown = values[known]
            lines[name] = (grid[known], stats.mean(shown), *stats.interval(shown, stats.mean))
            for run, log in zip(runs, logs, strict=True):
                rows += [[env_id, name, run.seed, tag, f"{step:.0f}", f"{y:.6g}"] for step, _, y in log.T]
        if not used:
            continue
        stem, x_label = file_stem("log", tag, env_id), steps_label(all_runs(used))
        labels = legend_labels(lines, groups, tag)
        plots.plot_bands(out / stem, lines, labels, style, env_id, x_label, tag)
        without = [name for name, runs in groups.items() if name not in used and done(runs)]
        counted = {name: runs for name, runs in groups.items() if name not in without}
        caption = (
            f"{env_id}: {tag} by {x_label}, mean over seeds with a 95% bootstrap band. Points are at the steps of the "
            f"algorithm's sparsest log, at most {LOG_POINTS} of them; for each run they average what it logged since "
            "the point before, or repeat that point where it logged nothing. A line ends with its shortest run. "
            f"{caption_counts(counted, tag)}."
        )
        figures.append(Figure(f"{caption} Not logged by {', '.join(without)}." if without else caption, stem))
    return figures, rows


def check_tags(tags: Sequence[str], runs: list[Run]) -> None:
    """Refuse tags under which no run logged anything, naming those there are, by one run of each algorithm."""
    good = done(runs)
    for tag in tags:
        if not any(run.logged[tag].size for run in good):
            one = {(run.env_id, run.algorithm): run for run in good}
            known = set().union(*(read_tags(run.directory) for run in one.values()))
            raise BadInput(f"no run that is done logged {tag}; they logged {', '.join(sorted(known)) or 'nothing'}")


def return_table(groups: dict[str, list[Run]], env_id: str, key: str, what: str, show=number) -> Table:
    """Mean, IQM, intervals and per-seed values of one measure."""
    rows = []
    for name, runs in groups.items():
        values = [(run.seed, measure(run, key)) for run in done(runs)]
        known = np.array([value for _, value in values if value is not None], float)
        cells = [
            with_interval(statistic(known), stats.interval(known, statistic), show) if len(known) else "-"
            for statistic in (stats.mean, stats.iqm)
        ]
        seeds = ", ".join(f"{seed}: {show(value)}" for seed, value in values)
        failed = sum(run.status == "failed" for run in runs)
        rows.append([name, str(len(known)), str(failed), *cells, seeds])
    caption = f"{env_id}: {what}; 95% bootstrap intervals over seeds. {caption_counts(groups, key)}."
    return Table(caption, ["algorithm", "n", "failed", "mean", "IQM", "per seed"], rows)


def speed_table(groups: dict[str, list[Run]], env_id: str) -> Table:
    """Steps and seconds to the threshold, and steps per second."""
    level, rows = threshold(env_id, all_runs(groups)), []
    for name, runs in groups.items():
        good = [run for run in runs if run.has_curve]
        cells = ["-", "-", "-"]
        if level is not None and good:
            times = np.array([reached(run) for run in good])
            count = int(np.isfinite(times[:, 0]).sum())
            medians = stats.median(times.T)  # of all n, so infinite if most never do
            cells = [f"{count}/{len(good)}", *map(maybe_never, medians)]
        speeds = np.array([run.summary["sps"] for run in good], float)
        speed = with_interval(speeds.mean(), stats.interval(speeds, stats.mean)) if len(speeds) else "-"
        rows.append([name, *cells, speed])
    goal = f"threshold {level:g}" if level is not None else "no threshold is registered"
    caption = (
        f"{env_id} ({goal}): runs in which the last 100 training episodes averaged the threshold, the median steps and "
        f"seconds until then over all n runs ('never': most did not), and steps per second. "
        f"{caption_counts(groups, 'curve')}."
    )
    return Table(caption, ["algorithm", "reached", "steps", "seconds", "steps per second"], rows)


# ======================================================================================================================
# Per task: what a language model has learned, and how far it went from its base model for it
# ======================================================================================================================
def with_exact(groups: dict[str, list[Run]]) -> dict[str, list[Run]]:
    """Of each algorithm the runs that know their exact success and their divergence from the base model, if any."""
    needed = {"exact_success", "kl"}
    known = {name: [run for run in runs if needed <= run.further.keys()] for name, runs in groups.items()}
    return {name: runs for name, runs in known.items() if runs}


def task_table(groups: dict[str, list[Run]], env_id: str) -> Table:
    """Success, divergence, and completions and seconds to the threshold."""
    level, known, rows = threshold(env_id, all_runs(groups)), with_exact(groups), []
    for name in groups:
        runs, cells = known.get(name, []), []
        if not runs:
            rows.append([name, "0", *"-------"])
            continue
        for key in ("eval_return_mean", "exact_success", "kl"):
            values = np.array([run.summary[key] for run in runs], float)
            cells.append(with_interval(values.mean(), stats.interval(values, stats.mean), fine))
        timed = [run for run in runs if run.has_curve] if level is not None else []
        times = np.array([reached(run) for run in timed]).reshape(-1, 2).T
        cells.append(f"{np.isfinite(times[0]).sum()}/{len(timed)}" if timed else "-")
        cells += [with_interval(stats.median(x), stats.interval(x, stats.median), maybe_never) if timed else "-"
                  for x in times]  # fmt: skip
        speeds = np.array([run.summary["sps"] for run in runs], float)
        rows.append([name, str(len(runs)), *cells, with_interval(speeds.mean(), stats.interval(speeds, stats.mean))])
    goal = "no threshold is named" if level is None else f"threshold {level:g}"
    caption = (
        f"{env_id} ({goal}), on held-out problems: success of the policy's mode; exact success, the probability that a "
        "sampled completion is right; KL(policy || base model) in nats, means with 95% bootstrap intervals over seeds. "
        "Reached: runs whose exact success was once logged at the threshold or above; completions and seconds of "
        "training (evaluations during it included) until then, medians over all n runs with such intervals ('never': "
        f"most did not). {caption_counts(groups)}."
    )
    columns = ["algorithm", "n", "mode", "exact success", "KL", "reached", "completions", "seconds", "completions/s"]
    return Table(caption, columns, rows)


def base_success(runs: list[Run]) -> tuple[np.ndarray, np.ndarray, str]:
    """The base model's probabilities of success on the held-out problems, the share of each, and where from.

    A teacher who forgets every carry with probability `carelessness` is right on problems of one carry and of two with
    known probabilities, and the base model imitates him; the shares are those that give its mean success.
    """
    mean = float(np.mean([run.summary["base_exact_success"] for run in runs]))
    right = 1 - runs[0].args.get("carelessness", math.nan)
    if runs[0].args.get("coherent") is False and right**2 < mean < right:
        share = (mean - right**2) / (right - right**2)
        text = f"{right:g} on {share:.0%} of the problems and {right**2:g} on the others, by construction of the task"
        return np.array([right, right**2]), np.array([share, 1 - share]), f"{text} (mean {mean:.3f}, as measured)"
    return np.array([mean]), np.ones(1), f"{mean:.3f} on every problem, its measured mean"


def optimum(base: np.ndarray, shares: np.ndarray, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """KL and success, (points,) each, of the policies proportional to base policy * exp(reward / beta), beta falling.

    A problem with base success p, and reward 1 for success and 0 else, gets to q = p e^(1/beta) / (p e^(1/beta) + 1 -
    p), at KL = q log(q/p) + (1-q) log((1-q)/(1-p)). No others succeed more at the same mean KL.
    """
    odds = base / (1 - base) * np.exp(np.linspace(0, 15, points))[:, None]  # (points, problems)
    q = odds / (1 + odds)
    kl = q * np.log(q / base) + (1 - q) * np.log((1 - q) / (1 - base))
    return kl @ shares, q @ shares


def kl_families(groups: dict[str, list[Run]]) -> list[list[str]]:
    """The algorithms that differ from each other in nothing but their kl_coef, in order of it."""
    families: dict[str, list[tuple[float, str]]] = {}
    for name, (run, *_) in groups.items():
        flags = run.flags()
        weight = flags.pop("kl_coef", None)
        if isinstance(weight, (int, float)):
            key = json.dumps([run.args.get("script"), flags], sort_keys=True)
            families.setdefault(key, []).append((weight, name))
    return [[name for _, name in sorted(family)] for family in families.values()]


def frontier(env_id: str, groups: dict[str, list[Run]], out: Path) -> Figure | None:
    """Draw success against divergence, beside the best there is; None where no run knows both."""
    members = with_exact(groups)
    based = [run for run in all_runs(members) if 0 < run.further.get("base_exact_success", 0) < 1]
    if not based:
        return None
    scripts = {name: str(runs[0].args.get("script", name)) for name, runs in members.items()}
    points = {}
    for name, runs in sorted(members.items(), key=lambda item: (scripts[item[0]], item[0])):
        pair = [np.array([run.summary[key] for run in runs], float) for key in ("kl", "exact_success")]
        points[name] = [(values.mean(), *stats.interval(values, stats.mean)) for values in pair]
    levels, shares, text = base_success(based)
    stem, labels = file_stem("frontier", env_id), legend_labels(points, groups)
    plots.plot_frontier(out / stem, points, kl_families(members), optimum(levels, shares), labels, scripts, env_id,
                        "KL(policy || base model), nats", "exact success")  # fmt: skip
    caption = (
        f"{env_id}: exact success on held-out problems against KL(policy || base model) at the end of training, means "
        "over seeds with 95% bootstrap intervals of both. The curve is the optimum in closed form: base policy * "
        f"exp(reward / beta) for every beta, from the base model's success of {text}. A colour stands for a script; "
        "lines join its algorithms that differ in kl_coef alone. Success is on a logit scale, from 0.001 to 0.999; the "
        "divergence, if it goes beyond 2, is on a log scale from 1 on. "
    )
    return Figure(f"{caption}{caption_counts(groups)}.", stem)


# ======================================================================================================================
# Across environments
# ======================================================================================================================
def attempted(runs: list[Run]) -> dict[str, dict[str, list[Run]]]:
    """algorithm -> env_id -> its runs, however they ended."""
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        groups.setdefault(run.algorithm, {}).setdefault(run.env_id, []).append(run)
    return groups


def without_result(groups: dict[str, dict[str, list[Run]]]) -> list[str]:
    """A sentence for each algorithm and environment of which no run is done."""
    return [
        f"{name} on {env_id}: {count_words(runs)}, so there is no result."
        for name, environments in groups.items()
        for env_id, runs in environments.items()
        if not done(runs)
    ]


def scores_section(runs: list[Run], style: dict, out: Path) -> Section:
    """Normalised scores and performance profiles, side by side for algorithms that ran on the same environments."""
    section = Section("Across environments: normalised scores")
    tried = attempted([run for run in runs if run.score_range is not None])
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, environments in tried.items():
        groups.setdefault(tuple(environments), []).append(name)
    for i, (environments, names) in enumerate(groups.items()):
        members = {name: [run for env_id in environments for run in tried[name][env_id]] for name in names}
        ranges = {run.env_id: run.score_range for name in names for run in members[name]}
        scale = ", ".join(f"{low:g} and {high:g} on {env}" for env, (low, high) in ranges.items())
        counts = caption_counts(members)
        scores = {name: [np.array([run.score for run in done(x)]) for x in tried[name].values()] for name in names}
        known = {name: x for name, x in scores.items() if all(map(len, x))}
        rows, lines = [], {}
        xs = np.concatenate([np.zeros(1), *(x for several in known.values() for x in several)])
        thresholds = np.linspace(min(0.0, xs.min()) - 0.02, max(1.0, xs.max()) + 0.02, PROFILE_POINTS)
        for name, x in scores.items():
            cells = ["-", "-"]
            if name in known:
                cells = [with_interval(*stats.stratified(x, f), share) for f in (stats.pooled_mean, stats.pooled_iqm)]
                profile, ends = stats.stratified(x, lambda g: stats.performance_profile(g, thresholds))  # noqa: B023
                lines[name] = (thresholds, profile, *ends)
            rows.append([name, str(sum(map(len, x))), *cells])
        caption = (
            f"Normalised evaluation score: 0 and 1 stand for {scale}; every environment weighs the same. 95% bootstrap "
            f"intervals, seeds drawn anew within each environment. {counts}."
        )
        section.tables.append(Table(caption, ["algorithm", "runs", "mean", "IQM"], rows))
        stem = "profile" if i == 0 else f"profile-{i + 1}"
        labels = legend_labels(lines, members)
        if lines:
            plots.plot_bands(out / stem, lines, labels, style, "Performance profile", "normalised score s",
                             "share of runs above s")  # fmt: skip
            section.figures.append(Figure(
                f"Performance profile over {', '.join(environments)}: the share of runs whose evaluation scores more "
                f"than s, with 95% bootstrap bands; higher is better. {counts}.", stem,
            ))  # fmt: skip
    section.notes += without_result(tried)
    bare = sorted({run.env_id for run in runs if run.score_range is None})
    if bare:
        section.notes.append(f"Not in these scores, for want of a score_range in the suite: {', '.join(bare)}.")
    return section


def improvement_section(runs: list[Run], out: Path) -> Section:
    """The probability of improvement for each pair of algorithms that share an environment."""
    section = Section("Across environments: probability of improvement")
    shared = {env_id for env_id, groups in by_environment(runs).items() if len(groups) > 1}
    tried = attempted([run for run in runs if run.env_id in shared])
    flat = {name: [run for x in environments.values() for run in x] for name, environments in tried.items()}
    for key, what, title, stem in (
        ("eval_return_mean", "final evaluation", "Probability of improvement: evaluation", "improvement"),
        ("curve", f"area under the learning curve, {AREA}", "Probability of improvement: area", "improvement-curve"),
    ):
        values: dict[str, dict[str, np.ndarray]] = {}
        for name, environments in tried.items():
            for env_id, x in environments.items():
                known = [value for run in done(x) if (value := measure(run, key)) is not None]
                values.setdefault(name, {})[env_id] = np.array(known, float)
        rows, intervals = [], []
        for x, y in combinations(values, 2):
            common = [env for env in values[x] if env in values[y]]
            known = [env for env in common if len(values[x][env]) and len(values[y][env])]
            if known:
                groups = [values[name][env] for env in known for name in (x, y)]
                estimate, ends = stats.stratified(groups, stats.improvement)
                rows.append([x, y, str(len(known)), with_interval(float(estimate), ends, share)])
                intervals.append((f"{x} > {y}", float(estimate), *ends))
            elif common:
                rows.append([x, y, "0", "-"])
        caption = (
            f"By {what}: the probability that a run of X is higher than one of Y on the same environment, a tie "
            "counting half, averaged over the environments where both have such a run; 95% bootstrap intervals. "
            f"{caption_counts(flat, key)}."
        )
        if rows:
            section.tables.append(Table(caption, ["X", "Y", "environments", "P(X > Y)"], rows))
        if intervals:
            if len(intervals) > ROWS:
                cells = {tuple(label.split(" > ")): estimate for label, estimate, *_ in intervals}
                plots.plot_matrix(out / stem, cells, title, "Y", "X")
            else:
                plots.plot_intervals(out / stem, intervals, title, "P(X > Y)")
            section.figures.append(Figure(caption, stem))
    if section.tables:
        section.notes += without_result(tried)
    else:
        section.notes.append("No two algorithms ran on the same environment.")
    return section


# ======================================================================================================================
# The whole report
# ======================================================================================================================
def result_rows(runs: list[Run], further: list[str]) -> list[list]:
    """One row a run, the failed and unfinished ones too, under the names of RESULT_COLUMNS and of further numbers of
    the summaries."""
    rows = []
    for run in runs:
        times = ["", ""]  # unknown
        if run.has_curve and threshold(run.env_id, [run]) is not None:
            times = [x if math.isfinite(x) else "never" for x in reached(run)]
        score = run.score if run.status == "done" else math.nan
        rows.append([
            run.algorithm, run.env_id, run.seed, run.status, run.reason,
            *(run.summary.get(name) for name in SUMMARY if name not in ("env_id", "seed")),
            threshold(run.env_id, [run]), *times, "" if math.isnan(score) else score, run.curve_mean,
            run.args.get("script_sha256"), run.args.get("device"), json.dumps(run.args.get("versions")),
            json.dumps(run.flags()), *map(run.further.get, further),
        ])  # fmt: skip
    return rows


RESULT_COLUMNS = [
    "algorithm", "env_id", "seed", "status", "reason", *(name for name in SUMMARY if name not in ("env_id", "seed")),
    "threshold", "steps_to_threshold", "seconds_to_threshold", "score", "curve_mean", "script_sha256", "device",
    "versions", "flags",
]  # fmt: skip


def write_csv(path: Path, columns: list[str], rows: list[list]) -> None:
    """Write a CSV file, None as nothing."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, buffer.getvalue().encode())


def write_report(
    root: Path, out: Path, aggregate: str = "iqm", tags: Sequence[str] = ()
) -> tuple[list[Run], list[str]]:
    """Report on all runs under `root`, with what they logged under `tags`, into the folder `out`; return the runs and
    what could not be used.

    Writes results.csv, curves.csv, report.md, index.html and the figures, and logged.csv if there are tags. Raises
    BadInput where there are no runs, or no run logged anything under a tag.
    """
    if not root.is_dir():
        raise BadInput(f"there is no folder {root}; python -m benchmark run <suite> makes one")
    runs, problems = find_runs(root, tags)
    if not runs:
        found = f", only: {problems[0]}" if problems else ""
        raise BadInput(f"there are no runs in {root}{found}; python -m benchmark run <suite> makes some")
    check_tags(tags, runs)
    out.mkdir(parents=True, exist_ok=True)
    style = plots.styles(sorted({run.algorithm for run in runs}))
    set_curve_means(runs)
    sections, curve_rows, log_rows = [], [], []
    for env_id, groups in by_environment(runs).items():
        figures, rows = learning_curves(env_id, groups, style, aggregate, out)
        curve_rows += rows
        what = "return of the final evaluation, with the mode of the policy"
        show = fine if any(run.is_task for run in all_runs(groups)) else number
        tables = [
            return_table(groups, env_id, "eval_return_mean", what, show),
            return_table(groups, env_id, "train_return_mean", "return of the last 100 training episodes", show),
            return_table(groups, env_id, "curve", f"area under the learning curve, {AREA}", show),
        ]
        if with_exact(groups):
            tables.insert(0, task_table(groups, env_id))
            figures += filter(None, [frontier(env_id, groups, out)])
        else:
            tables.append(speed_table(groups, env_id))
        log, rows = log_figures(env_id, groups, style, tags, out)
        figures, log_rows = figures + log, log_rows + rows
        sections.append(Section(env_id, figures, tables))
    sections += [scores_section(runs, style, out), improvement_section(runs, out)]
    further = sorted({name for run in runs for name in run.further})
    write_csv(out / "results.csv", RESULT_COLUMNS + further, result_rows(runs, further))
    write_csv(out / "curves.csv", ["env_id", "algorithm", "seed", "axis", "position", "return"], curve_rows)
    if tags:
        write_csv(out / "logged.csv", ["env_id", "algorithm", "seed", "tag", "step", "value"], log_rows)
    title = f"Benchmark: {root.resolve().name}"
    write_atomically(out / "report.md", markdown_page(title, sections, runs, problems).encode())
    write_atomically(out / "index.html", html_page(title, sections, runs, problems, out).encode())
    return runs, problems
