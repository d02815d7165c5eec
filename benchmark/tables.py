"""The tables of a report."""

import math

import numpy as np

from . import stats
from .captions import (
    Groups,
    all_runs,
    caption_counts,
    cell_counts,
    count_words,
    replicated,
    shown,
    steps_label,
    threshold,
    with_interval,
)  # fmt: skip
from .page import Table
from .prepared import LAST, SAME, Prepared, prepare, values
from .runs import Run, done, grouped
from .tasks import with_exact
from .words import fine, interval, number, share, span

HEADS = {"eval_return_mean": "final evaluation", "exact_success": "exact success"}


# ==============================================================================================
# The first screen
# ==============================================================================================
def headline(groups: Groups) -> str:
    """What the first table shows of an environment: the exact success where all know it, or
    else the evaluation."""
    ended = {name for name, runs in groups.items() if done(runs)}
    exact = with_exact(groups).keys()
    return "exact_success" if exact and ended <= exact else "eval_return_mean"


def unbeaten(groups: Groups, key: str) -> set[str]:
    """The algorithms whose interval lies below no other's; none where that holds for all."""
    found = {name: values(runs, key) for name, runs in groups.items()}
    ends = {name: stats.interval([x]) for name, x in found.items() if len(x) > 1}
    highest = max((low for low, _ in ends.values()), default=-math.inf)
    best = {name for name, (_, high) in ends.items() if not highest > high}
    return best if len(best) < len(ends) else set()


def main_cell(runs: list[Prepared], groups: Groups, bold: bool) -> str:
    """What came out for an algorithm on an environment, how sure it is, and what it took."""
    show = shown(groups)
    cell = with_interval([values(runs, headline(groups))], stats.iqm, show)
    if bold:
        cell = f"**{cell}**"
    if not (times := [run.reached for run in runs if run.reached]):
        return cell
    steps, seconds = stats.median([np.array(times).T])
    if not math.isfinite(steps):
        return f"{cell}\nnever"
    unit = "completions" if show is fine else "steps"
    return f"{cell}\n{number(steps)} {unit}, {number(seconds)} s"


def main_table(runs: list[Prepared]) -> Table:
    """Algorithm x environment."""
    environments = grouped(runs, "env_id", "algorithm")
    rows, best = [], {}
    for env_id, groups in environments.items():
        best[env_id] = unbeaten(groups, headline(groups))
    for name in sorted({run.algorithm for run in runs}):
        rows.append([name])
        for env_id, groups in environments.items():
            rows[-1].append(main_cell(groups.get(name, []), groups, name in best[env_id]))
    what = " or ".join(sorted({HEADS[headline(groups)] for groups in environments.values()}))
    shared = "base models" in replicated(runs)
    beware = ", which ignores that base models are shared" if shared else ""
    caption = (
        f"IQM of the {what} with its 95% interval; below "
        "it the median steps and seconds to the threshold of the environment. Bold: no other "
        f"interval lies wholly above this one{beware}; where that holds for all, none is bold. "
        "Saturated: the interval has no width, so it says nothing of the spread. "
        f"{cell_counts(runs)}."
    )
    return Table(caption, ["algorithm", *environments], rows)


# ==============================================================================================
# Of one environment
# ==============================================================================================
def return_table(groups: Groups, env_id: str, comparison: str) -> Table:
    """The final evaluation, the last training episodes and the area: means and IQMs with their
    intervals."""
    measures = {
        "evaluation": "eval_return_mean",
        "last 100 episodes": "train_return_mean",
        "area": "area",
    }
    rows, show = [], shown(groups)
    for name, runs in groups.items():
        lengths = [run.summary["global_step"] for run in done(runs)]
        failed = sum(run.status == "failed" for run in runs)
        row = [name, str(len(lengths)), str(failed), span(lengths) if lengths else "-"]
        for key in measures.values():
            found = [values(runs, key)]
            row += [with_interval(found, f, show) for f in (stats.mean, stats.iqm)]
        rows.append(row)
    counts = [f"{caption_counts(groups)}."]
    if any(run.is_task for run in all_runs(groups)):
        what = "Where the base model samples, as for dpo.py without --online,"
        counts.append(f"{what} training returns and area are the base model's.")
    for what, key in (("last 100 episodes", "train_return_mean"), ("area", "curve")):
        if (text := caption_counts(groups, key)) != caption_counts(groups):
            counts.append(f"For the {what}: {text}.")
    caption = (
        f"{env_id}: returns of the final evaluation, with the mode of the policy, and of the "
        "last 100 training episodes, and the area under the learning curve; 95% intervals over "
        f"{replicated(all_runs(groups))}, Student's for means, which may exceed what returns "
        f"can be, and the bootstrap's for IQMs. {comparison} {' '.join(counts)}"
    )
    columns = [f"{what}, {statistic}" for what in measures for statistic in ("mean", "IQM")]
    return Table(caption, ["algorithm", "n", "failed", "steps", *columns], rows)


def equal_steps_table(groups: Groups, env_id: str) -> Table | None:
    """The training return at equal steps where budgets differ: in the tenth of the common steps
    before a quarter, half and all of them; None where budgets are equal or a run has no
    curve."""
    runs = done(all_runs(groups))
    lengths = [run.summary["global_step"] for run in runs]
    if not runs or max(lengths) <= SAME * min(lengths) or not all(x.common for x in runs):
        return None
    ends = runs[0].curve["steps"][0]
    count = int((ends <= runs[0].common[1]).sum())
    width = max(1, round(LAST * count))
    stops = [max(width, round(count * share)) for share in (0.25, 0.5, 1)]
    rows, show = [], shown(groups)
    for name, some in groups.items():
        lines = np.array([run.curve["steps"][1] for run in done(some)]).reshape(-1, len(ends))
        lines = np.where(np.isnan(lines), runs[0].common[0], lines)
        found = [lines[:, stop - width : stop].mean(1) for stop in stops]
        rows.append([name, *(with_interval([x], stats.iqm, show) for x in found)])
    what, before = steps_label(runs), number(ends[width - 1])
    caption = (
        f"{env_id}, at equal {what}: IQM of the training return over the {before} {what} "
        f"before, with its 95% bootstrap interval. {caption_counts(groups)}."
    )
    columns = [f"after {number(ends[stop - 1])}" for stop in stops]
    return Table(caption, ["algorithm", *columns], rows)


def time_cells(runs: list[Prepared]) -> list[str]:
    """How many of the runs reached the threshold, after how many steps and seconds, and their
    steps per second."""
    times = np.array([run.reached for run in runs if run.reached]).reshape(-1, 2).T
    solved = f"{np.isfinite(times[0]).sum()}/{times.shape[1]}" if times.size else "-"
    medians = [with_interval([x], stats.median) for x in times]
    return [solved, *medians, with_interval([values(runs, "sps")], stats.mean)]


def time_table(groups: Groups, env_id: str) -> Table:
    """Steps and seconds to the threshold, and steps per second; for language models what they
    learned, and how far they went from their base model for it."""
    exact, level, rows = with_exact(groups), threshold(all_runs(groups)), []
    for name, runs in groups.items():
        if exact:
            known = exact.get(name, [])
            found = [values(known, key) for key in ("eval_return_mean", "exact_success", "kl")]
            learned = [with_interval([x], stats.mean, fine) for x in found]
            rows.append([name, str(len(known)), *learned, *time_cells(known)])
        else:
            rows.append([name, *time_cells([run for run in runs if run.has_curve])])
    goal = "no threshold is named" if level is None else f"threshold {level:g}"
    steps = "completions" if any(run.is_task for run in all_runs(groups)) else "steps"
    first = "reached: runs in which the last 100 training episodes averaged the threshold"
    if exact:
        first = (
            "on held-out problems: success of the policy's mode; exact success, the "
            "probability that a sampled completion is right; KL(policy || base model) in nats. "
            "Reached: runs whose exact success was once logged at the threshold"
        )
    counts = caption_counts(groups, "" if exact else "curve")
    caption = (
        f"{env_id} ({goal}), {first}; {steps} and seconds of training until then, medians over "
        "all n runs with bootstrap intervals ('never': half of them or more did not); others "
        f"are means with Student's intervals. {counts}."
    )
    columns = ["n", "mode", "exact success", "KL"] if exact else []
    columns += ["reached", *(f"to threshold, {unit}" for unit in (steps, "seconds"))]
    return Table(caption, ["algorithm", *columns, f"{steps} per second"], rows)


# ==============================================================================================
# Algorithms beside each other
# ==============================================================================================
def difference_rows(name: str, ours: Groups, theirs: Groups) -> list[list[str]]:
    """How much higher an algorithm's returns are than the reference's, and over environments
    its scores: both by environment."""
    statistics, rows = (stats.mean_difference, stats.iqm_difference), []
    scores: dict[str, list[np.ndarray]] = {"compared": [], "area": []}
    common = [env_id for env_id in ours if env_id in theirs]
    for env_id in common:
        sides, run = (ours[env_id], theirs[env_id]), ours[env_id][0]
        row = [name, env_id, *(str(len(done(runs))) for runs in sides)]
        for key, groups in scores.items():
            found = [values(runs, key) for runs in sides]
            show = fine if run.is_task else number
            row += [with_interval(found, statistic, show) for statistic in statistics]
            groups += map(run.score, found)
        rows.append(row)
    if len(common) > 1 and all(ours[env_id][0].score_range for env_id in common):
        cells = [with_interval(x, f, share) for x in scores.values() for f in statistics]
        rows.append([name, f"score over these {len(common)}", "", "", *cells])
    return rows


def differences_table(runs: list[Prepared], reference: str) -> Table:
    """How much higher than the reference's every other algorithm's returns are, where the two
    share no base models."""
    tried = grouped(runs, "algorithm", "env_id")
    theirs, rows = tried.pop(reference), []
    for name, ours in tried.items():
        apart = {key: some for key, some in ours.items() if not bases(some, theirs, key)}
        rows += difference_rows(name, apart, theirs)
    caption = (
        f"By how much it is higher than that of {reference}. Return: of the final evaluation, "
        "or of the training at equal steps where budgets differ (see the environment). Area: "
        "under the learning curve. Score: normalised, each environment weighing the same. 95% "
        "intervals, each for itself: Welch's for differences of means, the bootstrap's, seeds "
        "drawn anew on each side and environment, for those of IQMs. One that holds 0 leaves "
        f"open which of the two is higher. {cell_counts(runs)}."
    )
    measures = [f"{what}, {x}" for what in ("return", "area") for x in ("mean", "IQM")]
    columns = ["algorithm", "environment", "n", f"n of {reference}", *measures]
    return Table(caption, columns, rows)


def bases(ours: list[Run], theirs: Groups, env_id: str) -> list[tuple]:
    """The base models from which both sides trained language models; none if it is only one."""
    sides = (ours, theirs.get(env_id, []))
    known = [{run.base for run in done(runs) if run.is_task} for runs in sides]
    shared = sorted(set.intersection(*known), key=str)
    return shared if len(shared) > 1 else []


def paired(ours: list[Prepared], theirs: Groups, env_id: str, key: str) -> np.ndarray:
    """How much higher a number is on each of the base models that both share: means over the
    runs of one base model, NaN where a side lacks the number."""
    differences = []
    for base in bases(ours, theirs, env_id):
        sides = ([x for x in runs if x.base == base] for runs in (ours, theirs[env_id]))
        means = [found.mean() if len(found := values(x, key)) else np.nan for x in sides]
        differences.append(means[0] - means[1])
    return np.array(differences)


def paired_table(runs: list[Prepared], reference: str) -> Table:
    """How much higher than the reference's the results of every other algorithm are on the same
    base models, which often differ more than algorithms do."""
    tried = grouped(runs, "algorithm", "env_id")
    theirs, rows = tried.pop(reference), []
    for name, groups in tried.items():
        for env_id, ours in groups.items():
            if not bases(ours, theirs, env_id):
                continue
            rows.append([name, env_id])
            for key in ("exact_success", "kl", "area"):
                found = paired(ours, theirs, env_id, key)
                found = found[np.isfinite(found)]
                rows[-1].append(with_interval([found], stats.mean, fine))
                ends = f"{(found > 0).sum()} / {(found < 0).sum()} of {len(found)}"
                rows[-1].append(ends if len(found) else "-")
    caption = (
        f"By how much it is higher than that of {reference} from the same base model: means "
        "over base models with Student's 95% interval of the differences, and on how many of "
        "them it is higher / lower. Exact success and the KL divergence to the base model are "
        "those at the end. Each interval stands for itself: of twenty, one is expected to miss "
        f"its difference. {cell_counts(runs)}."
    )
    columns = ["algorithm", "environment"]
    for what in ("exact success", "KL", "area"):
        columns += [what, f"{what} higher / lower"]
    return Table(caption, columns, rows)


def parity_row(name: str, env_id: str, sides: list[list[Run]], share: float) -> list[str]:
    """Ours beside a peer on one environment: for the evaluation and the area how much higher
    ours is, and whether that shows the two to be equivalent."""
    (two, _), row = prepare([run for runs in sides for run in runs]), [name, env_id]
    both = grouped(two, "algorithm").values()
    row += [" / ".join(str(len(done(runs))) for runs in both)]
    low, high = two[0].score_range
    margin = share * (high - low)
    row.append(number(margin))
    for key in ("eval_return_mean", "area"):
        groups = [values(runs, key) for runs in both]
        if min(map(len, groups)) < 2:
            row += ["-", "-"]
            continue
        ends, same = stats.equivalence(groups, margin)
        row.append(interval(float(stats.mean_difference(groups)), *ends))
        row.append("equivalent" if same else "not shown")
    return row


def parity_table(runs: list[Run], share: float) -> Table:
    """Every X beside its peer sb3-X, by environment: are they equivalent within a share of the
    score_range?"""
    cells, rows = grouped(runs, "cell"), []
    for name, env_id in cells:
        peer = cells.get((f"sb3-{name}", env_id))
        if peer and peer[0].score_range:
            rows.append(parity_row(name, env_id, [cells[name, env_id], peer], share))
    caption = (
        "Equivalence at equal hyperparameters: how much higher the mean return of a script is "
        "than that of its peer, with Welch's 90% interval. Equivalent: that lies within the "
        f"margin on both sides (two one-sided tests at 5%). The margin, {share:g} of the "
        "environment's score range, was named in the suite before the runs. Not shown says "
        "neither that they differ nor that they do not. Area: over the steps that the two have "
        f"in common. {cell_counts(runs)}."
    )
    columns = ["script", "environment", "n, both", "margin"]
    for what in ("evaluation", "area"):
        columns += [f"{what}, difference", f"{what}, verdict"]
    return Table(caption, columns, rows)


def scores_table(algorithms: dict[str, Groups]) -> Table:
    """Normalised scores of algorithms that ran on the same environments."""
    runs = [run for environments in algorithms.values() for run in all_runs(environments)]
    ranges = {run.env_id: run.score_range for run in runs}
    scale = [f"{low:g} and {high:g} on {env_id}" for env_id, (low, high) in ranges.items()]
    rows = []
    for name, environments in algorithms.items():
        groups = [some[0].score(values(some, "compared")) for some in environments.values()]
        cells = [with_interval(groups, f, share) for f in (stats.mean, stats.iqm)]
        rows.append([name, str(sum(map(len, groups))), *cells])
    caption = (
        f"Normalised score: 0 and 1 stand for {', '.join(scale)}; every environment weighs the "
        "same. It is of the final evaluation, or of the training returns at equal steps where "
        "budgets differ (see the environment). 95% intervals: Welch's for means, the "
        f"bootstrap's, seeds drawn anew in each environment, for IQMs. {cell_counts(runs)}."
    )
    return Table(caption, ["algorithm", "runs", "mean", "IQM"], rows)


def without_result(tried: dict[str, Groups]) -> list[str]:
    """A sentence for each algorithm and environment of which no run is done."""
    return [
        f"{name} on {env_id}: {count_words(runs)}, so there is no result."
        for name, environments in tried.items()
        for env_id, runs in environments.items()
        if not done(runs)
    ]
