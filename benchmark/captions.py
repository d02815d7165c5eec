"""Words that tables and figures share: how many runs stand behind a number, how sure it is."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from . import stats, words
from .prepared import Prepared
from .runs import Run, grouped

LACK = {"curve": "no curve", "train_return_mean": "without an episode"}

Groups = dict[str, list[Prepared]]  # the runs of one environment by algorithm


def with_interval(groups: list[np.ndarray], statistic, show: Callable = words.number) -> str:
    """A statistic of groups of seeds with its 95% interval; '-' where a group is empty."""
    if not groups or not all(map(len, groups)):
        return "-"
    estimate, ends = float(statistic(groups)), stats.interval(groups, statistic)
    return words.interval(estimate, *ends, show)


def has(run: Run, needs: str) -> bool:
    """Whether a run that is done has what is needed: its curve, what it logged under a tag, a
    number of its summary."""
    if needs == "curve":
        return run.has_curve
    return not needs or needs in run.logged or run.summary.get(needs) is not None


def count_words(runs: list[Run], needs: str = "") -> str:
    """'n = 5, 1 failed, 1 unfinished': what the runs of one algorithm came to; n counts those
    that are used. With `needs`, those that are done but lack it are no part of n."""
    lack = LACK.get(needs, "without this log")
    lacking = [run.status == "done" and not has(run, needs) for run in runs]
    ends = (lack if lacks else x.status for x, lacks in zip(runs, lacking, strict=True))
    counts = Counter(ends)
    names = [name for name in ("unfinished", "missing", "pruned", lack) if counts[name]]
    others = [f"{counts[name]} {name}" for name in names]
    return ", ".join([f"n = {counts['done']}", f"{counts['failed']} failed", *others])


def caption_counts(groups: Groups, needs: str = "") -> str:
    """The counts of each algorithm for a caption, said once where they are all the same."""
    counts = {name: count_words(runs, needs) for name, runs in groups.items()}
    if len(set(counts.values())) == 1:
        return f"Each algorithm: {next(iter(counts.values()))}"
    return "; ".join(f"{name}: {text}" for name, text in counts.items())


def cell_counts(runs: list[Run], needs: str = "") -> str:
    """The counts of each algorithm on each environment, said once where they are all the
    same."""
    places: dict[str, list[str]] = {}
    for env_id, groups in grouped(runs, "env_id", "algorithm").items():
        places.setdefault(caption_counts(groups, needs), []).append(env_id)
    if len(places) > 1:
        parts = [(", ".join(names), text) for text, names in places.items()]
        return ". ".join(f"{names}: {text.replace('Each', 'each')}" for names, text in parts)
    ((text, environments),) = places.items()
    if len(environments) == 1:
        return text
    return text.replace("Each algorithm", "Each algorithm on each environment")


def file_stem(*parts: str) -> str:
    """The name of a figure's files."""
    return "-".join(parts).replace("/", "_").replace(":", "_")


def steps_label(runs: list[Run]) -> str:
    """What a step of these runs is."""
    return "completions" if any(run.is_task for run in runs) else "environment steps"


def shown(groups: Groups) -> Callable:
    """How returns of one environment's runs are shown."""
    tasks = any(run.is_task for run in all_runs(groups))
    return words.fine if tasks else words.number


def all_runs(groups: Groups) -> list[Prepared]:
    """The runs of all algorithms."""
    return [run for runs in groups.values() for run in runs]


def threshold(runs: list[Run]) -> float | None:
    """The return at which the environment of these runs counts as solved, if any of them knows
    it."""
    return next((run.threshold for run in runs if run.threshold is not None), None)


def replicated(runs: list[Run]) -> str:
    """What the intervals are over: base models where each run of an algorithm has its own."""
    cells = grouped([run for run in runs if run.is_task], "cell").values()
    bases = [(len({run.base for run in cell}), len(cell)) for cell in cells]
    own = bases and all(count == n > 1 for count, n in bases)
    return "base models, of which each seed has its own" if own else "seeds"
