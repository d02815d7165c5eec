"""The page of a search: what the best trial came to on fresh seeds, and how it was found."""

import math

import numpy as np

from . import plots, stats
from .captions import with_interval
from .files import write_atomically
from .page import Figure, Section, Table, html_page, markdown_page
from .runs import Run, read_run
from .space import Dimension
from .tune import CONFIDENCE, DEFAULT, Candidate, Search, bounds, curve, import_optuna, spread
from .variants import script_defaults
from .words import number, share

TOP = 10
RANKED = 10  # complete trials that importances take, at least

Measured = dict[str, np.ndarray]  # "area" and "evaluation" of the runs on fresh seeds, (seeds,)


# ==============================================================================================
# On fresh seeds
# ==============================================================================================
def measured(search: Search, candidate: Candidate) -> Measured:
    """What came of a candidate's runs on fresh seeds that are done."""
    found: dict[str, list[float]] = {"area": [], "evaluation": []}
    for seed in search.fresh:
        run = read_run(search.job(candidate, seed, "fresh").run_dir, None)
        if isinstance(run, Run):
            found["evaluation"].append(run.summary["eval_return_mean"])
            if run.has_curve:
                line = curve(run.points["steps"], search.steps)
                found["area"].append(float(line.mean()))
    return {name: np.array(values, float) for name, values in found.items()}


def chance(ours: Measured, theirs: Measured, key: str) -> str:
    """The probability that a run of ours is higher than one of theirs, with its interval."""
    return with_interval([ours[key], theirs[key]], stats.improvement, share)


def verdict(ours: Measured, theirs: Measured, key: str) -> str:
    """Whether the best trial is called better than the default flags."""
    if min(len(ours[key]), len(theirs[key])) < 2:
        return "has too few runs on fresh seeds to be compared with"
    low, high = stats.interval([ours[key], theirs[key]], stats.improvement)
    if low <= 0.5 <= high:
        return "cannot be told apart from"
    return "is better than" if low > 0.5 else "is worse than"


def fresh_table(search: Search, found: dict[str, Measured]) -> Table:
    """The best trial and the default flags side by side."""
    default, tuned = found.values()
    rows = []
    for name, values in found.items():
        cells = [with_interval([values[key]], stats.mean) for key in ("area", "evaluation")]
        rows.append([name, f"{len(values[search.objective])} of {len(search.fresh)}", *cells])
        odds = [chance(tuned, default, key) for key in ("area", "evaluation")]
        rows[-1] += odds if values is tuned else ["", ""]
    caption = (
        f"On fresh seeds, n = {len(search.fresh)} each: means with Student's 95% intervals; "
        "the probability that a run with the tuned flags is higher than one with the default "
        "flags, with the bootstrap's 95% interval. Area: the mean of the learning curve in "
        "bins of equal steps. Evaluation: of the mode of the policy at the end."
    )
    odds = [f"P(tuned > default), {key}" for key in ("area", "evaluation")]
    return Table(caption, ["flags", "n", "area", "evaluation", *odds], rows)


# ==============================================================================================
# The search
# ==============================================================================================
def shown(value: object) -> str:
    """A flag's value in a table."""
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def flags_table(search: Search, best: Candidate) -> Table:
    """What was varied, and how it came out."""
    known, rows = script_defaults(search.script), []
    for x in search.space:
        ends = f"{x.low:g} to {x.high:g}, {x.scale}"
        if x.choices:
            ends = ", ".join(map(str, x.choices))
        flag = f"--{x.name.replace('_', '-')}"
        rows.append([flag, ends, shown(known.get(x.name)), shown(best.flags[x.name])])
    caption = "What was varied. A default that the script does not spell out is shown as -."
    return Table(caption, ["flag", "range", "default", "best"], rows)


def ranked(candidates: list[Candidate]) -> list[tuple[Candidate, float, float]]:
    """The candidates that are judged, with their bounds, best first."""
    width = spread(candidates)
    found = [(x, *bounds(x.values, width)) for x in candidates if x.judged]
    return sorted(found, key=lambda entry: -entry[1])


def top_table(search: Search, candidates: list[Candidate]) -> Table:
    """The best trials and the default flags, on the seeds of the search."""
    found, rows, known = ranked(candidates), [], script_defaults(search.script)
    places = [entry for entry in found if entry[0].name != DEFAULT][:TOP]
    places += [entry for entry in found if entry[0].name == DEFAULT]
    for candidate, low, high in sorted(places, key=lambda entry: -entry[1]):
        mean = f"{number(np.mean(candidate.values))} [{number(low)}, {number(high)}]"
        flags = (known if candidate.name == DEFAULT else {}) | candidate.flags
        values = [shown(flags.get(x.name)) for x in search.space]
        rows.append([candidate.name, str(len(candidate.values)), mean, *values])
    caption = (
        f"The {TOP} best trials by the lower bound of their {search.objective}, with the "
        f"default flags, on the seeds of the search. A bound holds with probability "
        f"{CONFIDENCE:g} where a trial is looked at alone; the best of many promises too much."
    )
    columns = ["trial", "n", search.objective, *(x.name for x in search.space)]
    return Table(caption, columns, rows)


def history_figure(search: Search, candidates: list[Candidate]) -> Figure:
    """Every trial by its number, and the lower bound of the best one so far."""
    width, rows, steps, best = spread(candidates), [], [], -math.inf
    for x in candidates:
        if x.number is None or not x.results:
            continue
        low, high = bounds(x.values, width)
        values = x.number, float(np.mean(x.values)), low, high
        rows.append(plots.row("x y low high", values, algorithm=x.name, state=x.state))
        if x.judged:
            best = max(best, low)
        if math.isfinite(best):
            steps.append(plots.row("x best", (x.number, best)))
    whole = {"axis": {"tickMinStep": 1}, "scale": {"padding": 12}}
    x, y = plots.axis("x", "trial", **whole), plots.axis("y", search.objective)
    names = ["complete", "pruned", "failed", "running"]
    scale = {"domain": names, "range": [plots.COLOURS[i] for i in (0, 8, 1, 4)]}
    colour = {"field": "state", "type": "nominal", "scale": scale}
    tips = plots.tips("algorithm x y low high", "trial", search.objective)
    bars = {"x": x, "y": plots.axis("low", search.objective), "y2": {"field": "high"}}
    layers = [
        plots.layer("rule", bars | {"color": colour}, opacity=0.5),
        plots.layer("point", {"x": x, "y": y, "color": colour, "tooltip": tips}, filled=True),
        plots.layer(
            "line", {"x": x, "y": plots.axis("best", search.objective)},
            {"data": {"values": steps}}, interpolate="step-after", color="#000",
        ),
    ]  # fmt: skip
    if candidates[0].results:
        default = {"values": [{"y": plots.number(float(np.mean(candidates[0].values)))}]}
        text = {"text": "default flags", "align": "left", "dy": -5, "color": "#555"}
        at = {"y": y}
        layers.append(plots.layer("rule", at, {"data": default}, strokeDash=[4, 3]))
        left = at | {"x": {"value": 3}}
        layers.append(plots.layer("text", left, {"data": default}, **text))
    spec = plots.top("History", data={"values": rows}, width=400, height=240, layer=layers)
    caption = (
        f"Mean {search.objective} over the seeds that a trial got, with its bounds; the line "
        "is the lower bound of the best trial so far. "
        f"n = {len(search.seeds)} seeds at most."
    )
    return Figure(caption, "history", spec)


def importances(search: Search) -> dict[str, float]:
    """How much each flag matters, by PED-ANOVA (Watanabe et al. 2023): how far the values of
    the best tenth of the trials are from those of all. Empty where too few trials are
    complete, or all are alike."""
    optuna = import_optuna()
    complete = search.study.get_trials(False, [optuna.trial.TrialState.COMPLETE])
    if len(complete) < RANKED or len({trial.value for trial in complete}) == 1:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(search.study, evaluator=evaluator)


def importance_figure(found: dict[str, float], trials: int) -> Figure:
    """A bar for each flag."""
    rows = [plots.row("share", [value], flag=name) for name, value in found.items()]
    y = {"field": "flag", "type": "nominal", "title": None, "sort": list(found)}
    bar = plots.layer("bar", {"x": plots.axis("share", "importance"), "y": y})
    bar["encoding"]["x"]["scale"] = {"zero": True}
    spec = plots.top("Importance", data={"values": rows}, width=300, layer=[bar])
    caption = (
        "Importance of the flags by PED-ANOVA: how far their values in the best tenth of the "
        f"trials are from those in all of them. n = {trials} complete trials, so it is rough."
    )
    return Figure(caption, "importance", spec)


def position(dimension: Dimension, seen: object) -> float:
    """Where a drawn value lies between the ends of its range, 0 to 1."""
    if dimension.choices:
        return dimension.choices.index(seen) / (len(dimension.choices) - 1)
    distribution = dimension.distribution()
    ends = [distribution.low, seen, distribution.high]
    low, at, high = map(math.log, ends) if distribution.log else ends
    return (at - low) / (high - low)


def parallel_figure(
    search: Search, candidates: list[Candidate], best: Candidate, order: list[str]
) -> Figure:
    """A line for each trial with a whole run through its flags, the most important first."""
    space = {x.name: x for x in search.space}
    names, rows = [*order, *(name for name in space if name not in order)], []
    for x in candidates:
        if x.judged and x.number is not None:
            mean = float(np.mean(x.values))
            for name in names:
                at = position(space[name], x.params[name])
                about = {"algorithm": x.name, "flag": name, "value": shown(x.flags[name])}
                rows.append(plots.row("at mean", (at, mean), **about))
    ends = {"labels": False, "ticks": False}
    where = {
        "x": {"field": "flag", "type": "nominal", "sort": names, "title": None},
        "y": plots.axis("at", "low end to high end of its range", axis=ends),
        "detail": {"field": "algorithm"},
    }
    shade = {"scheme": "viridis"}
    colour = plots.axis("mean", search.objective, scale=shade)
    tips = [{"field": name} for name in ("algorithm", "flag", "value", "mean")]
    mine = {"transform": [{"filter": {"field": "algorithm", "equal": best.name}}]}
    layers = [
        plots.layer("line", where | {"color": colour}, opacity=0.5),
        plots.layer("line", where, mine, color="#000", strokeWidth=2.5),
        plots.layer("point", where | {"color": colour, "tooltip": tips}, filled=True),
    ]
    size = {"width": max(400, 60 * len(names)), "height": 260}
    spec = plots.top("Flags of the trials", data={"values": rows}, layer=layers, **size)
    caption = (
        "Trials with a whole run, each a line through its flags, coloured by the mean "
        f"{search.objective}; the best one is black. On the scales of the ranges, the most "
        "important flag first."
    )
    return Figure(caption, "parallel", spec)


# ==============================================================================================
# The page
# ==============================================================================================
def write_page(search: Search, candidates: list[Candidate], best: Candidate) -> list[str]:
    """Write the page into report/; return the lines that sum it up."""
    found = {x.name: measured(search, x) for x in search.finalists()}
    default, tuned = found.values()
    low, high = bounds(best.values, spread(candidates))
    promised = f"{number(np.mean(best.values))} [{number(low)}, {number(high)}]"
    key, n = search.objective, len(search.fresh)
    judged = verdict(tuned, default, key)
    came = {name: with_interval([values[key]], stats.mean) for name, values in found.items()}
    theirs, ours = came.values()
    lines = [
        f"The search promised {best.name} a mean {key} of {promised}, n = {len(best.values)}. "
        f"On {n} fresh seeds it came to {ours}, the default flags to {theirs}.",
        f"A run with the tuned flags is higher than one with the default flags with "
        f"probability {chance(tuned, default, key)}: {best.name} {judged} the default flags.",
    ]
    if judged != "is better than":
        lines.append("So keep the default flags, or search on with more trials or steps.")
    states = [x.state for x in candidates if x.number is not None]
    about = (
        f"{len(states)} trials of {search.steps:,} steps: {states.count('complete')} complete, "
        f"{states.count('pruned')} pruned, {states.count('failed')} failed; seeds "
        f"{search.seeds[0]} to {search.seeds[-1]}, fresh ones {search.fresh[0]} to "
        f"{search.fresh[-1]}. A trial counts as the lower bound of its mean {key} over seeds."
    )
    share_of = importances(search)
    panels = {}
    for measure in ("area", "evaluation"):
        panels[measure] = {
            name: (float(x[measure].mean()), *stats.interval([x[measure]], stats.mean))
            for name, x in found.items()
            if len(x[measure])
        }
    panels = {measure: several for measure, several in panels.items() if several}
    style = plots.styles(found)
    sections = [
        Section(
            "Summary", [fresh_table(search, found)], notes=[*lines, search.command(best.flags)]
        ),
        Section("Flags", [flags_table(search, best)]),
        Section("The best trials", [top_table(search, candidates)]),
        Section("How they were found"),
    ]
    if panels:
        spec = plots.plot_intervals(panels, style, "On fresh seeds", "mean, 95% interval")
        sections[0].figures.append(Figure("As in the table.", "fresh", spec))
    drawn = [history_figure(search, candidates)]
    if share_of:
        drawn.append(importance_figure(share_of, states.count("complete")))
    drawn.append(parallel_figure(search, candidates, best, list(share_of)))
    sections[-1].figures += drawn
    out = search.directory / "report"
    out.mkdir(parents=True, exist_ok=True)
    for figure in (figure for section in sections for figure in section.figures):
        plots.save(figure.spec, out / figure.stem)
    title = f"Search: {search.label} on {search.env_id}"
    write_atomically(out / "report.md", markdown_page(title, [about], sections).encode())
    write_atomically(out / "index.html", html_page(title, [about], sections).encode())
    return lines
