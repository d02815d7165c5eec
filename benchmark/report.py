"""From runs to tables, figures, CSV files, a Markdown page and an HTML page."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from . import plots, stats, store
from .grid import BadInput, did_you_mean
from .page import Figure, Section, Table, html_page, markdown_page
from .pool import read_json, write_atomically
from .runs import Run, done, grouped, read_tags

BINS = 50  # of a learning curve, up to the longest run of its environment
LAST = 0.1  # of the steps that all have: what runs of other lengths are compared by
SAME = 1.05  # lengths whose ratio is at most this are equal: runs end with a whole batch
FEW = 5  # seeds from which an interval is hardly to be trusted
PROFILE_POINTS = 101
LOG_POINTS = 100  # of a logged value, at most
AGGREGATES = {"mean": stats.mean, "iqm": stats.iqm}
COVERAGE = Path(__file__).parent / "results" / "coverage.csv"


# ======================================================================================================================
# Words and numbers
# ======================================================================================================================
def number(value: float | None) -> str:
    """A return, a number of steps or of seconds, as a table shows it."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def fine(value: float | None) -> str:
    """A return between 0 and 1, or a divergence in nats."""
    return number(value) if value is None or math.isnan(value) else f"{value:.3f}"


def share(value: float) -> str:
    """A probability or a normalised score."""
    return f"{value:.2f}"


def with_interval(groups: list[np.ndarray], statistic, show=number) -> str:
    """'12.3 [11.0, 13.5]'; the estimate alone where there is no interval; '500.0 (saturated)' where it has no width."""
    if not groups or not all(map(len, groups)):
        return "-"
    estimate, (low, high) = float(statistic(groups)), stats.interval(groups, statistic)
    if math.isnan(low) or low == math.inf:
        return show(estimate)
    if math.isfinite(high) and high - low <= 1e-9 * max(1, abs(estimate)):
        return f"{show(estimate)} (saturated)"
    return f"{show(estimate)} [{show(low)}, {show(high)}]"


def known(run: Run, needs: str) -> bool:
    """Whether a run that is done has what is needed: its curve, what it logged under a tag, a number of its summary."""
    if needs == "curve":
        return run.has_curve
    return not needs or needs in run.logged or run.summary.get(needs) is not None


def count_words(runs: list[Run], needs: str = "") -> str:
    """'n = 5, 1 failed, 1 unfinished': what the runs of one algorithm came to; n counts those that are used. With
    `needs`, those that are done but lack it are no part of n."""
    lack = {"curve": "no curve", "train_return_mean": "without an episode"}.get(needs, "without this log")
    counts = Counter(lack if run.status == "done" and not known(run, needs) else run.status for run in runs)
    others = [f"{counts[name]} {name}" for name in ("unfinished", "missing", lack) if counts[name]]
    return ", ".join([f"n = {counts['done']}", f"{counts['failed']} failed", *others])


def caption_counts(groups: dict[str, list[Run]], needs: str = "") -> str:
    """The counts of each algorithm for a caption, said once where they are all the same."""
    words = {name: count_words(runs, needs) for name, runs in groups.items()}
    if len(set(words.values())) == 1:
        return f"Each algorithm: {next(iter(words.values()))}"
    return "; ".join(f"{name}: {text}" for name, text in words.items())


def cell_counts(runs: list[Run], needs: str = "") -> str:
    """The counts of each algorithm on each environment, said once where they are all the same."""
    words: dict[str, list[str]] = {}
    for env_id, groups in grouped(runs, "env_id", "algorithm").items():
        words.setdefault(caption_counts(groups, needs), []).append(env_id)
    if len(words) == 1:
        ((text, environments),) = words.items()
        return text.replace("Each algorithm", "Each algorithm on each environment") if environments[1:] else text
    return ". ".join(f"{', '.join(names)}: {text.replace('Each', 'each')}" for text, names in words.items())


def legend_labels(names: Iterable[str], groups: dict[str, list[Run]], needs: str = "") -> dict[str, str]:
    """What a legend calls the algorithms: with their counts, unless these are all the same; the caption says them."""
    words = {name: count_words(groups[name], needs) for name in names}
    return {name: name if len(set(words.values())) == 1 else f"{name} ({text})" for name, text in words.items()}


def file_stem(*words: str) -> str:
    """The name of a figure's files."""
    return "-".join(words).replace("/", "_").replace(":", "_")


def span(values: Iterable[float]) -> str:
    """'100,000' or '99,840 to 300,000'."""
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def steps_label(runs: list[Run]) -> str:
    """What a step of these runs is."""
    return "completions" if any(run.is_task for run in runs) else "environment steps"


def all_runs(groups: dict[str, list[Run]]) -> list[Run]:
    """The runs of all algorithms."""
    return [run for runs in groups.values() for run in runs]


def threshold(runs: list[Run]) -> float | None:
    """The return at which the environment of these runs counts as solved, if any of them knows it."""
    return next((run.threshold for run in runs if run.threshold is not None), None)


def values(runs: list[Run], key: str) -> np.ndarray:
    """A number of each run that is done and has it: "area", "compared", or an entry of its summary."""
    found = [getattr(run, key) if key in ("area", "compared") else run.summary.get(key) for run in done(runs)]
    return np.array([value for value in found if value is not None], float)


def coverage_words() -> str:
    """How often intervals cover the truth, from the table beside the stored reports; "" where there is none."""
    if not COVERAGE.exists():
        return ""
    rows, parts = store.read_csv(COVERAGE), []
    for name in dict.fromkeys(row["statistic"] for row in rows):
        mine = [row for row in rows if row["statistic"] == name]
        sizes = {n: sorted(float(row["coverage"]) for row in mine if row["n"] == n) for n in ("5", "10")}
        parts.append(f"{name} " + ", ".join(f"{x[0]:.2f} to {x[-1]:.2f} at n = {n}" for n, x in sizes.items()))
    return f"Simulated with normal and skewed returns, 95% intervals cover the truth this often: {'; '.join(parts)}."


# ======================================================================================================================
# What makes runs of one environment comparable
# ======================================================================================================================
def prepare(runs: list[Run]) -> dict[str, str]:
    """Give the runs their curves in the bins of their environment, their areas, and the return that they are compared
    by; return a sentence for each environment.

    All areas of an environment are over the same bins: those that end within its shortest run. Where runs are of
    unequal length, and all have curves, they are compared by the end of those bins instead of by their evaluation.
    """
    words = {}
    for env_id, groups in grouped(runs, "env_id", "algorithm").items():
        members = done(all_runs(groups))
        curved = [run for run in members if run.has_curve]
        for axis, length in (("steps", "global_step"), ("seconds", "wall_seconds")):
            known = [run for run in curved if axis in run.points]  # a report put together by hand may lack one
            grid = np.linspace(0, max((run.summary[length] for run in known), default=0), BINS + 1)[1:]
            for run in known:
                line = np.array([float(f"{y:.6g}") for y in stats.binned(*run.points[axis], grid)])  # as in curves.csv
                run.curve[axis] = grid, np.where(np.append(0, grid[:-1]) < run.summary[length], line, np.nan)
        lengths = [run.summary["global_step"] for run in members] or [0]
        equal = max(lengths) <= SAME * min(lengths)
        grid = curved[0].curve["steps"][0] if curved else np.zeros(1)
        count = max(1, int((grid <= min((run.summary["global_step"] for run in curved), default=0)).sum()))
        lines = np.array([run.curve["steps"][1][:count] for run in curved]).reshape(-1, count)
        worst = np.nanmin(lines) if np.isfinite(lines).any() else None
        last = max(1, round(LAST * count))
        for run in members:
            run.compared = run.summary["eval_return_mean"]
        for run, line in zip(curved, lines, strict=True):
            if worst is not None:
                run.common = float(worst), float(grid[count - 1])
                line = np.where(np.isnan(line), worst, line)
                run.area = float(line.mean())
                if not equal and len(curved) == len(members):
                    run.compared = float(line[-last:].mean())
        end, before = f"{grid[count - 1]:,.0f}", f"{span(lengths)} steps"
        area = "" if worst is None else (
            f"Area: the mean of the learning curve over the first {end} steps, which all runs have, in {count} bins; "
            f"one before a run's first ended episode counts as the worst bin of any run there, {number(float(worst))}, "
            "a later one in which none ended, as the bin before it."
        )  # fmt: skip
        unequal = f"Budgets differ ({before}). Scores and probabilities compare "
        unequal += (
            f"training returns at equal steps, from step {grid[count - 1 - last] if count > last else 0:,.0f} to {end}."
            if len(curved) == len(members)
            else "final evaluations at unequal steps, since not every run has a curve."
        )
        words[env_id] = " ".join(filter(None, [unequal * (not equal), area]))
    return words


# ======================================================================================================================
# The first screen
# ======================================================================================================================
def headline(groups: dict[str, list[Run]]) -> str:
    """What the first table shows of an environment: the exact success where all know it, or else the evaluation."""
    exact = {name for name, runs in groups.items() if done(runs)} <= with_exact(groups).keys() != set()
    return "exact_success" if exact else "eval_return_mean"


def unbeaten(groups: dict[str, list[Run]], key: str, statistic) -> set[str]:
    """The algorithms whose interval lies below no other's; none where that holds for all."""
    ends = {name: stats.interval([x], statistic) for name, runs in groups.items() if len(x := values(runs, key)) > 1}
    best = {name for name, (_, high) in ends.items() if not any(low > high for low, _ in ends.values())}
    return best if len(best) < len(ends) else set()


def main_table(runs: list[Run], aggregate: str) -> Table:
    """Algorithm x environment: what came out, how sure it is, and what it took."""
    statistic, environments = AGGREGATES[aggregate], grouped(runs, "env_id", "algorithm")
    rows = []
    for name in sorted({run.algorithm for run in runs}):
        row = [name]
        for groups in environments.values():
            key, mine = headline(groups), groups.get(name, [])
            show = fine if any(run.is_task for run in all_runs(groups)) else number
            cell = with_interval([values(mine, key)], statistic, show)
            if name in unbeaten(groups, key, statistic):
                cell = f"**{cell}**"
            times = np.array([run.reached for run in mine if run.reached]).reshape(-1, 2)
            if len(times):
                steps, seconds = stats.median([times.T])
                unit = "completions" if show is fine else "steps"
                cell += f"\n{number(steps)} {unit}, {number(seconds)} s" if math.isfinite(steps) else "\nnever"
            row.append(cell)
        rows.append(row)
    words = {"eval_return_mean": "final evaluation", "exact_success": "exact success"}
    what = " or ".join(sorted({words[headline(groups)] for groups in environments.values()}))
    caption = (
        f"{'IQM' if aggregate == 'iqm' else 'Mean'} of the {what} with its 95% interval; below it the median steps and "
        "seconds to the threshold of the environment. Bold: no other interval lies wholly above this one; where that "
        "holds for all, none is bold. Saturated: the interval has no width, so it says nothing of the spread. "
        f"{cell_counts(runs)}."
    )
    return Table(caption, ["algorithm", *environments], rows)


def efficiency(members: dict[str, list[list[Run]]]) -> dict[str, tuple]:
    """IQM over environments of the normalised training return by the share of the common steps: lines for a plot."""
    lines, shares = {}, np.linspace(0, 1, BINS + 1)[1:]
    for name, several in members.items():
        groups = []
        for runs in several:
            stack = []
            for run in runs:
                (grid, line), (worst, end) = run.curve["steps"], run.common
                at = np.interp(shares * end, grid, np.where(np.isnan(line), worst, line))
                stack.append([run.score(x) for x in at])
            groups.append(np.array(stack).T)  # (points, seeds)
        lines[name] = (shares, stats.iqm(groups), *stats.interval(groups, stats.iqm))
    return lines


# ======================================================================================================================
# Per environment
# ======================================================================================================================
def stacked(runs: list[Run], axis: str) -> tuple[np.ndarray, np.ndarray]:
    """The bins in which every run has begun and none has ended, (points,), and the returns there, (points, seeds)."""
    grid, curves = runs[0].curve[axis][0], np.stack([run.curve[axis][1] for run in runs], -1)
    known = np.isfinite(curves).all(-1)
    return grid[known], curves[known]


def limits(stacks: list[np.ndarray], lines: dict[str, tuple], level: float | None) -> tuple[float, float] | None:
    """The ends of a vertical axis that no single seed can squash: what is drawn, but at most half as far beyond the
    medians over seeds as these reach, and the threshold where it is not farther; None where nothing is drawn."""
    middles = np.concatenate([np.median(stack, -1) for stack in stacks])
    if not len(middles):
        return None
    low, high = middles.min(), middles.max()
    room = (high - low or abs(high) or 1) / 2
    drawn = np.concatenate([np.concatenate(line[1:]) for line in lines.values()])
    ends = [max(np.nanmin(drawn), low - room), min(np.nanmax(drawn), high + room)]
    if level is not None and low - room <= level <= high + room:
        ends = [min(ends[0], level), max(ends[1], level)]
    pad = 0.03 * (ends[1] - ends[0] or abs(high) or 1)
    return ends[0] - pad, ends[1] + pad


def learning_curves(env_id: str, groups: dict[str, list[Run]], style: dict, aggregate: str) -> list[Figure]:
    """The curves of one environment by steps and by seconds."""
    figures, statistic = [], AGGREGATES[aggregate]
    for axis in ("steps", "seconds"):
        used = {name: x for name, runs in groups.items() if (x := [run for run in runs if axis in run.curve])}
        if not used:
            continue
        stacks = {name: stacked(runs, axis) for name, runs in used.items()}
        lines = {name: (x, statistic([y]), *stats.interval([y], statistic)) for name, (x, y) in stacks.items()}
        level = threshold(all_runs(groups))
        ends = limits([y for _, y in stacks.values()], lines, level)
        level = level if level is not None and ends and ends[0] <= level <= ends[1] else None
        x_label = steps_label(all_runs(used)) if axis == "steps" else "seconds of training"
        labels = legend_labels(lines, groups, "curve")
        spec = plots.plot_bands(lines, style, env_id, x_label, "training return", labels, level, ends)
        kind = {"mean": "mean over seeds with Student's 95% band", "iqm": "IQM over seeds with a 95% bootstrap band"}
        caption = (
            f"{env_id}: return of the training episodes by {x_label}, {kind[aggregate]}, in bins of 1/{BINS} of the "
            f"longest run; a line ends with its shortest run. {caption_counts(groups, 'curve')}."
        )
        figures.append(Figure(caption, file_stem("curve", axis, env_id), spec))
    return figures


def log_grid(logs: list[np.ndarray], length: int) -> np.ndarray:
    """The steps at which the log with the fewest entries has them, up to `length`; at most LOG_POINTS of them, evenly
    thinned: logs (3, entries) each -> (points,)."""
    steps = np.unique(min(logs, key=lambda log: log.shape[1])[0])
    steps = steps[steps <= length]
    every = max(1, math.ceil(len(steps) / LOG_POINTS))
    return steps[::-1][::every][::-1]  # the last one stays


def log_figures(env_id: str, groups: dict[str, list[Run]], style: dict, tags: Sequence[str]) -> list[Figure]:
    """What one environment's runs logged under each tag, by steps."""
    figures = []
    for tag in tags:
        used = {name: [run for run in done(runs) if tag in run.logged] for name, runs in groups.items()}
        used, lines, stacks = {name: runs for name, runs in used.items() if runs}, {}, []
        for name, runs in used.items():
            logs = [run.logged[tag] for run in runs]
            grid = log_grid(logs, min(run.summary["global_step"] for run in runs))
            y = np.stack([stats.binned(*log, grid) for log in logs], -1)  # (points, seeds)
            begun = np.isfinite(y).all(-1)
            stacks.append(y[begun])
            lines[name] = (grid[begun], stats.mean([y[begun]]), *stats.interval([y[begun]], stats.mean))
        if not used:
            continue
        x_label, labels = steps_label(all_runs(used)), legend_labels(lines, groups, tag)
        spec = plots.plot_bands(lines, style, env_id, x_label, tag, labels, limits=limits(stacks, lines, None))
        without = [name for name, runs in groups.items() if name not in used and done(runs)]
        counted = {name: runs for name, runs in groups.items() if name not in without}
        caption = (
            f"{env_id}: {tag} by {x_label}, mean over seeds with Student's 95% band. Points are at the steps of the "
            f"algorithm's sparsest log, at most {LOG_POINTS} of them; for each run they average what it logged since "
            "the point before, or repeat that point where it logged nothing. A line ends with its shortest run. "
            f"{caption_counts(counted, tag)}."
        )
        caption += f" Not logged by {', '.join(without)}." if without else ""
        figures.append(Figure(caption, file_stem("log", tag, env_id), spec))
    return figures


def check_tags(tags: Sequence[str], runs: list[Run]) -> None:
    """Refuse tags under which no run logged anything, naming those there are, by one run of each algorithm."""
    good = done(runs)
    for tag in tags:
        if not any(tag in run.logged for run in good):
            one = {(run.env_id, run.algorithm): run for run in good}
            found = set().union(*(read_tags(run.directory) | run.logged.keys() for run in one.values()))
            raise BadInput(f"no run that is done logged {tag}; they logged {', '.join(sorted(found)) or 'nothing'}")


def return_table(groups: dict[str, list[Run]], env_id: str, words: str) -> Table:
    """The final evaluation, the last training episodes and the area: means and IQMs with their intervals."""
    measures = {"evaluation": "eval_return_mean", "last 100 episodes": "train_return_mean", "area": "area"}
    rows, show = [], fine if any(run.is_task for run in all_runs(groups)) else number
    for name, runs in groups.items():
        lengths = [run.summary["global_step"] for run in done(runs)]
        row = [
            name,
            str(len(lengths)),
            str(sum(run.status == "failed" for run in runs)),
            span(lengths) if lengths else "-",
        ]
        for key in measures.values():
            row += [with_interval([values(runs, key)], statistic, show) for statistic in (stats.mean, stats.iqm)]
        rows.append(row)
    counts = [f"{caption_counts(groups)}."]
    for what, key in (("last 100 episodes", "train_return_mean"), ("area", "curve")):
        if (text := caption_counts(groups, key)) != caption_counts(groups):
            counts.append(f"For the {what}: {text}.")
    caption = (
        f"{env_id}: returns of the final evaluation, with the mode of the policy, and of the last 100 training "
        "episodes, and the area under the learning curve; 95% intervals over seeds, Student's for means, which may go "
        f"beyond what returns can be, and the bootstrap's for IQMs. {words} {' '.join(counts)}"
    )
    columns = [f"{what}, {statistic}" for what in measures for statistic in ("mean", "IQM")]
    return Table(caption, ["algorithm", "n", "failed", "steps", *columns], rows)


def time_table(groups: dict[str, list[Run]], env_id: str) -> Table:
    """Steps and seconds to the threshold, and steps per second; for language models what they learned, and how far they
    went from their base model for it."""
    level, known_exact, rows = threshold(all_runs(groups)), with_exact(groups), []
    for name, runs in groups.items():
        row, used = [name], known_exact.get(name, []) if known_exact else [run for run in runs if run.has_curve]
        if known_exact:
            row.append(str(len(used)))
            keys = ("eval_return_mean", "exact_success", "kl")
            row += [with_interval([values(used, key)], stats.mean, fine) for key in keys]
        timed = np.array([run.reached for run in used if run.reached]).reshape(-1, 2).T
        row.append(f"{np.isfinite(timed[0]).sum()}/{timed.shape[1]}" if timed.size else "-")
        row += [with_interval([x], stats.median) for x in timed]
        rows.append([*row, with_interval([values(used, "sps")], stats.mean)])
    goal = "no threshold is named" if level is None else f"threshold {level:g}"
    steps = "completions" if any(run.is_task for run in all_runs(groups)) else "steps"
    first = (
        "on held-out problems: success of the policy's mode; exact success, the probability that a sampled completion "
        "is right; KL(policy || base model) in nats. Reached: runs whose exact success was once logged at the threshold"
        if known_exact
        else "reached: runs in which the last 100 training episodes averaged the threshold"
    )
    caption = (
        f"{env_id} ({goal}), {first}; {steps} and seconds of training until then, medians over all n runs with "
        "bootstrap intervals ('never': half of them or more did not); others are means with Student's intervals. "
        f"{caption_counts(groups, '' if known_exact else 'curve')}."
    )
    columns = ["n", "mode", "exact success", "KL"] if known_exact else []
    times = [f"to threshold, {unit}" for unit in (steps, "seconds")]
    return Table(caption, ["algorithm", *columns, "reached", *times, f"{steps} per second"], rows)


# ======================================================================================================================
# Per task: what a language model has learned, and how far it went from its base model for it
# ======================================================================================================================
def with_exact(groups: dict[str, list[Run]]) -> dict[str, list[Run]]:
    """Of each algorithm the runs that know their exact success and their divergence from the base model, if any."""
    found = {
        name: [run for run in runs if {"exact_success", "kl"} <= run.further.keys()] for name, runs in groups.items()
    }
    return {name: runs for name, runs in found.items() if runs}


def base_success(runs: list[Run]) -> tuple[np.ndarray, np.ndarray, str]:
    """The base model's probabilities of success on the held-out problems, the share of each, and where from.

    A teacher who forgets every carry with probability `carelessness` is right on problems of one carry and of two with
    known probabilities, and the base model imitates him; the shares are those that give its mean success.
    """
    mean = float(np.mean([run.summary["base_exact_success"] for run in runs]))
    flags = runs[0].args
    if "task_kwargs" in flags:  # where these two are, unless they have their defaults
        flags = {"carelessness": 0.5, "coherent": False} | json.loads(flags["task_kwargs"])
    right = 1 - flags.get("carelessness", math.nan)
    if flags.get("coherent") is False and right**2 < mean < right:
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


def frontier(env_id: str, groups: dict[str, list[Run]], style: dict) -> Figure | None:
    """Success against divergence, beside the best there is; None where no run knows both."""
    members = with_exact(groups)
    based = [run for run in all_runs(members) if 0 < run.further.get("base_exact_success", 0) < 1]
    if not based:
        return None
    scripts = {name: str(runs[0].args.get("script", name)) for name, runs in members.items()}
    points = {}
    for name, runs in sorted(members.items(), key=lambda item: (scripts[item[0]], item[0])):
        pair = [values(runs, key) for key in ("kl", "exact_success")]
        points[name] = [(x.mean(), *stats.interval([x], stats.mean)) for x in pair]
    levels, shares, text = base_success(based)
    labels = legend_labels(points, groups)
    spec = plots.plot_frontier(points, kl_families(members), optimum(levels, shares), labels, style, env_id,
                               "KL(policy || base model), nats", "exact success")  # fmt: skip
    caption = (
        f"{env_id}: exact success on held-out problems against KL(policy || base model) at the end of training, means "
        "over seeds with Student's 95% intervals of both. The curve is the optimum in closed form: base policy * "
        f"exp(reward / beta) for every beta, from the base model's success of {text}. A colour stands for a script; "
        "lines join its algorithms that differ in kl_coef alone. Success is on a logit scale, from 0.001 to 0.999; the "
        f"divergence, if it goes beyond 2, is on a log scale from 1 on. {caption_counts(groups)}."
    )
    return Figure(caption, file_stem("frontier", env_id), spec)


# ======================================================================================================================
# Algorithms beside each other
# ======================================================================================================================
def differences_section(runs: list[Run], reference: str) -> Section:
    """How much higher than the reference's every other algorithm's returns are, and over environments its scores."""
    tried = grouped(runs, "algorithm", "env_id")
    if reference not in tried:
        raise BadInput(f"there is no algorithm {reference} to compare with; {did_you_mean(reference, list(tried))}")
    theirs, rows = tried.pop(reference), []
    statistics = (stats.mean_difference, stats.iqm_difference)
    for name, environments in tried.items():
        scores: dict[str, list[np.ndarray]] = {"compared": [], "area": []}
        for env_id in (common := [env_id for env_id in environments if env_id in theirs]):
            pair = environments[env_id], theirs[env_id]
            row, show = [name, env_id, *(str(len(done(x))) for x in pair)], fine if pair[0][0].is_task else number
            for key, groups in scores.items():
                both = [values(x, key) for x in pair]
                row += [with_interval(both, statistic, show) for statistic in statistics]
                groups += map(pair[0][0].score, both)
            rows.append(row)
        if len(common) > 1 and all(environments[env_id][0].score_range for env_id in common):
            cells = [with_interval(groups, statistic, share) for groups in scores.values() for statistic in statistics]
            rows.append([name, f"score over these {len(common)}", "", "", *cells])
    caption = (
        f"By how much it is higher than that of {reference}. Return: of the final evaluation, or of the training at "
        "equal steps where budgets differ (see the environment). Area: under the learning curve. Score: normalised, "
        "each environment weighing the same. 95% intervals, each for itself: Welch's for differences of means, the "
        "bootstrap's, seeds drawn anew on each side and environment, for those of IQMs. One that holds 0 leaves open "
        f"which of the two is higher. {cell_counts(runs)}."
    )
    columns = [f"{what}, {statistic}" for what in ("return", "area") for statistic in ("mean", "IQM")]
    table = Table(caption, ["algorithm", "environment", "n", f"n of {reference}", *columns], rows)
    return Section(
        f"Differences to {reference}", [table], notes=["Nothing shares an environment with it."] * (not rows)
    )


def without_result(groups: dict[str, dict[str, list[Run]]]) -> list[str]:
    """A sentence for each algorithm and environment of which no run is done."""
    return [
        f"{name} on {env_id}: {count_words(runs)}, so there is no result."
        for name, environments in groups.items()
        for env_id, runs in environments.items()
        if not done(runs)
    ]


def scores_section(runs: list[Run], style: dict) -> Section:
    """Normalised scores, sample efficiency and profiles, side by side for algorithms with the same environments."""
    section = Section("Normalised scores")
    tried = grouped([run for run in runs if run.score_range is not None], "algorithm", "env_id")
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, environments in tried.items():
        groups.setdefault(tuple(environments), []).append(name)
    for i, (environments, names) in enumerate(groups.items()):
        members = {name: [run for env_id in environments for run in tried[name][env_id]] for name in names}
        ranges = {run.env_id: run.score_range for name in names for run in members[name]}
        scale = ", ".join(f"{low:g} and {high:g} on {env}" for env, (low, high) in ranges.items())
        counts, suffix = cell_counts(all_runs(members)), f"-{i + 1}" * (i > 0)
        scores = {name: [x[0].score(values(x, "compared")) for x in tried[name].values()] for name in names}
        full = {name: x for name, x in scores.items() if all(map(len, x))}
        statistics = {"mean": stats.mean, "IQM": stats.iqm}
        rows = [
            [name, str(sum(map(len, x))), *(with_interval(x, f, share) for f in statistics.values())]
            for name, x in scores.items()
        ]
        caption = (
            f"Normalised score: 0 and 1 stand for {scale}; every environment weighs the same. It is of the final "
            "evaluation, or of the training returns at equal steps where budgets differ (see the environment). 95% "
            f"intervals: Welch's for means, the bootstrap's, seeds drawn anew in each environment, for IQMs. {counts}."
        )
        section.tables.append(Table(caption, ["algorithm", "runs", "mean", "IQM"], rows))
        if not full:
            continue
        panels = {
            what: {name: (float(f(x)), *stats.interval(x, f)) for name, x in full.items()}
            for what, f in statistics.items()
        }
        where = f"over {', '.join(environments)}"
        spec = plots.plot_intervals(panels, style, "Aggregate scores", "normalised score")
        section.figures.append(
            Figure(f"Normalised scores {where}, as in the table. {counts}.", f"aggregates{suffix}", spec)
        )
        curved = {name: [[run for run in x if run.common] for x in tried[name].values()] for name in full}
        curved = {name: x for name, x in curved.items() if all(x)}
        if curved:
            spec = plots.plot_bands(efficiency(curved), style, "Sample efficiency", "share of the common steps",
                                    "normalised return", legend_labels(curved, members, "curve"))  # fmt: skip
            section.figures.append(Figure(
                f"Sample efficiency {where}: IQM of the normalised training return by the share of the steps that all "
                f"runs of an environment have, with 95% bootstrap bands. {cell_counts(all_runs(members), 'curve')}.",
                f"efficiency{suffix}", spec,
            ))  # fmt: skip
        xs = np.concatenate([np.zeros(1), *(x for several in full.values() for x in several)])
        at = np.linspace(min(0.0, xs.min()) - 0.02, max(1.0, xs.max()) + 0.02, PROFILE_POINTS)
        lines = {}
        for name, x in full.items():
            above = [(group > at[:, None]).astype(float) for group in x]
            lines[name] = (at, stats.mean(above), *stats.bootstrap(above, stats.mean))
        spec = plots.plot_bands(lines, style, "Performance profile", "normalised score s", "share of runs above s",
                                legend_labels(lines, members))  # fmt: skip
        section.figures.append(Figure(
            f"Performance profile {where}: the share of runs that score more than s, with 95% bootstrap bands; higher "
            f"is better. {counts}.", f"profile{suffix}", spec,
        ))  # fmt: skip
    section.notes += without_result(tried)
    bare = sorted({run.env_id for run in runs if run.score_range is None})
    if bare:
        section.notes.append(f"Not in these scores, for want of a score_range in the suite: {', '.join(bare)}.")
    return section


def improvement_section(runs: list[Run]) -> Section:
    """The probability of improvement for each pair of algorithms that share an environment."""
    section = Section("Probability of improvement")
    shared = {env_id for env_id, groups in grouped(runs, "env_id", "algorithm").items() if len(groups) > 1}
    tried = grouped([run for run in runs if run.env_id in shared], "algorithm", "env_id")
    for key, what in (
        ("compared", "final evaluation, or training returns at equal steps where budgets differ"),
        ("area", "area under the learning curve"),
    ):
        found = {name: {env: values(x, key) for env, x in environments.items()} for name, environments in tried.items()}
        rows = []
        for x, y in combinations(found, 2):
            common = [(found[x][env], found[y][env]) for env in found[x] if env in found[y]]
            used = [one for pair in common if all(map(len, pair)) for one in pair]
            if common:
                rows.append([x, y, str(len(used) // 2), with_interval(used, stats.improvement, share)])
        caption = (
            f"By {what}: the probability that a run of X is higher than one of Y on the same environment, a tie "
            "counting half, averaged over the environments where both have such a run; 95% bootstrap intervals. "
            f"{cell_counts([run for run in runs if run.env_id in shared], 'curve' if key == 'area' else '')}."
        )
        if rows:
            section.tables.append(Table(caption, ["X", "Y", "environments", "P(X > Y)"], rows))
    section.notes += without_result(tried) if section.tables else ["No two algorithms ran on the same environment."]
    return section


# ======================================================================================================================
# The whole report
# ======================================================================================================================
def notices(runs: list[Run]) -> list[str]:
    """How the runs ended, and what to beware of: a few sentences."""
    counts, good = Counter(run.status for run in runs), done(runs)
    text = ", ".join(f"{counts[status]} {status}" for status in ("done", "failed", "unfinished", "missing"))
    lines = [f"{len(runs)} runs: {text}. Only runs that are done enter the numbers; n counts them."]
    cells = [len(done(x)) for groups in grouped(runs, "env_id", "algorithm").values() for x in groups.values()]
    if good and min(filter(None, cells)) <= FEW:
        lines.append(f"Beware: some results have {FEW} seeds or fewer, with which intervals tell little.")
    for name, found in (("devices", "device"), ("CPU models", "cpu"), ("GPUs", "gpu")):
        mixed = sorted({str(x) for run in good if (x := run.args.get(found) or run.record.get(found))})
        if len(mixed) > 1:
            lines.append(
                f"Beware: the runs were made on different {name}, so their seconds do not compare: {', '.join(mixed)}."
            )
    return lines


def conditions(runs: list[Run]) -> list[str]:
    """How far to trust an interval, and what the runs were made with."""
    several = [run.args["versions"] for run in runs if isinstance(run.args.get("versions"), dict)]
    shown = sorted({"; ".join(f"{name} {version}" for name, version in sorted(one.items())) for one in several})
    machines = [sorted({str(run.record[x]) for run in runs if run.record.get(x)}) for x in ("cpu", "gpu")]
    devices = sorted({str(run.args["device"]) for run in runs if "device" in run.args})
    made = f"Device: {', '.join(sum(machines, devices)) or 'unknown'}. Versions: {' / '.join(shown) or 'unknown'}."
    return list(filter(None, [coverage_words(), made]))


def runs_table(runs: list[Run]) -> Table:
    """Every run with its flags."""
    rows = []
    for run in runs:
        status, value = run.status + (run.reason and f": {run.reason}"), run.summary.get("eval_return_mean")
        flags = {name: x for name, x in run.args.items() if name not in ("run_dir", "resume")}
        text = json.dumps(flags, indent=1, sort_keys=True) if flags else "-"
        rows.append([run.env_id, run.algorithm, str(run.seed), status, (fine if run.is_task else number)(value), text])
    columns = ["environment", "algorithm", "seed", "status", "evaluation", "flags"]
    failed = sum(run.status == "failed" for run in runs)
    return Table(f"Every run; n = {len(runs)}, {failed} failed.", columns, rows)


def write_report(
    root: Path, out: Path, aggregate: str | None = None, tags: Sequence[str] = (), reference: str | None = None
) -> tuple[list[Run], list[str]]:
    """Report on all runs under `root`, or those of a report there, with what they logged under `tags` and differences
    to the `reference`, into the folder `out`; return the runs and what could not be used.

    Writes results.csv, curves.csv, report.json (title and options, which a report made again keeps), report.md,
    index.html and the figures, and logged.csv if there are tags. Raises BadInput where there are no runs, no such
    reference, or no run logged anything under a tag.
    """
    kept = {"title": root.resolve().name, "aggregate": "iqm", "against": None} | (read_json(root / "report.json") or {})
    kept |= {name: x for name, x in (("aggregate", aggregate), ("against", reference)) if x is not None}
    runs, problems = store.load(root, tags)
    if not runs:
        found = f", only: {problems[0]}" if problems else ""
        raise BadInput(f"there are no runs in {root}{found}; python -m benchmark run <suite> makes some")
    tags = tags or list(dict.fromkeys(tag for run in runs for tag in run.logged))
    check_tags(tags, runs)
    words = prepare(runs)
    scripts = {run.algorithm: Path(run.args["script"]).stem for run in runs if run.args.get("script")}
    style = plots.styles({run.algorithm for run in runs}, scripts)
    sections = [Section("Summary", [main_table(runs, kept["aggregate"])], notes=conditions(runs))]
    if kept["against"] is not None:
        sections.append(differences_section(runs, kept["against"]))
    for env_id, groups in grouped(runs, "env_id", "algorithm").items():
        tables = [return_table(groups, env_id, words[env_id]), time_table(groups, env_id)]
        figures = learning_curves(env_id, groups, style, kept["aggregate"]) + log_figures(env_id, groups, style, tags)
        figures += filter(None, [frontier(env_id, groups, style)])
        sections.append(Section(env_id, tables[::-1] if with_exact(groups) else tables, figures))
    scores = scores_section(runs, style)
    sections[0].figures, scores.figures = scores.figures[:2], scores.figures[2:]
    bad = [
        f"{x.algorithm} on {x.env_id}, seed {x.seed}: {x.status}{x.reason and ', ' + x.reason}"
        for x in runs if x.status != "done"
    ]  # fmt: skip
    sections += [scores, improvement_section(runs), Section("Runs that are not done", notes=bad or ["none"])]
    sections += [Section("Problems", notes=problems or ["none"])]
    out.mkdir(parents=True, exist_ok=True)
    for figure in (figure for section in sections for figure in section.figures):
        plots.save(figure.spec, out / figure.stem)
    store.save(out, runs)
    write_atomically(out / "report.json", json.dumps(kept).encode())
    title, intro = f"Benchmark: {kept['title']}", notices(runs)
    write_atomically(out / "report.md", markdown_page(title, intro, sections).encode())
    sections.append(Section("Every run and its flags", [runs_table(runs)]))
    write_atomically(out / "index.html", html_page(title, intro, sections).encode())
    return runs, problems
