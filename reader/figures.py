"""The learning curves and results of the scripts."""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmark import stats
from benchmark.files import read_csv
from benchmark.words import fine, interval, number

COLUMNS = [  # title, column of results.csv, format: of environments, and of tasks for language
    [("evaluation", "eval_return_mean", number),
     ("last 100 episodes", "train_return_mean", number)],
    [("mode's success", "eval_return_mean", fine), ("exact success", "exact_success", fine),
     ("KL, nats", "kl", fine)],
]  # fmt: skip


def curves(path: Path, wanted: set[str]) -> dict[tuple[str, str], np.ndarray]:
    """Curves by steps, (environment, algorithm) -> (bins, 1 + seeds), positions first. Where a
    seed has not begun or has ended, nothing is shown."""
    seeds = defaultdict(lambda: defaultdict(dict))
    for row in read_csv(path) if path.exists() else ():
        if row["axis"] == "steps" and row["algorithm"] in wanted:
            curve = seeds[row["env_id"], row["algorithm"]][row["seed"]]
            curve[float(row["position"])] = float(row["return"] or "nan")
    result = {}
    for key, group in seeds.items():
        columns = [[*next(iter(group.values()))], *([*x.values()] for x in group.values())]
        table = np.array(columns).T
        result[key] = table[np.isfinite(table).all(1)]
    return result


def row_of_results(rows: list[dict], statistic: Callable) -> list[list[str]]:
    """Columns (title, value) of one algorithm on one environment; failures stand beside n."""

    def values(name: str) -> np.ndarray:
        return np.array([float(r[name].replace("never", "inf")) for r in rows if r[name] != ""])

    failed = sum(row["status"] != "done" for row in rows)
    rows = [row for row in rows if row["status"] == "done"]
    task = bool(rows and rows[0].get("exact_success"))
    shown = [["n", f"{len(rows)}" + f", {failed} failed" * bool(failed)]]
    for title, name, show in COLUMNS[task] if rows else ():
        seeds = [values(name)]
        low, high = stats.interval(seeds, statistic)
        shown.append([title, interval(float(statistic(seeds)), low, high, show)])
    if len(steps := values("steps_to_threshold")):
        median, level = number(float(stats.median([steps]))), float(rows[0]["threshold"])
        what = "completions" if task else "steps"
        shown.append([f"{what} to the threshold, median", f"{median} ({level:g})"])
    return shown


def banded(table: np.ndarray, statistic: Callable) -> list[list[float]]:
    """[position in thousands, statistic, ends of its band] of each point of a curve."""
    seeds = [table[:, 1:]]
    middle, band = statistic(seeds), np.stack(stats.interval(seeds, statistic))
    band = np.where(np.isfinite(band), band, middle)  # a single seed has none
    rows = np.stack([table[:, 0] / 1000, middle, *band], 1)
    return [[float(f"{x:.5g}") for x in row] for row in rows]


def results(
    root: Path, sources: list[dict], scripts: list[str], environments: list[str] = ()
) -> dict[str, dict]:
    """Per environment, those named first: statistic, and per script its curve, row, flags and
    folder. The first source with a script's curve is used; missing folders are left out."""
    charts = {env: {"scripts": {}} for env in environments}
    for source in sources:
        folder, grouped = root / "benchmark/results" / source["folder"], defaultdict(list)
        known = curves(folder / "curves.csv", set(scripts))
        for row in read_csv(folder / "results.csv") if known else ():
            grouped[row["env_id"], row["algorithm"]].append(row)
        for (env, script), table in known.items():
            chart, rows = charts.setdefault(env, {"scripts": {}}), grouped[env, script]
            statistic = getattr(stats, chart.setdefault("statistic", source["statistic"]))
            if rows and script not in chart["scripts"]:
                chart["scripts"][script] = {
                    "folder": source["folder"],
                    "row": row_of_results(rows, statistic),
                    "curve": banded(table, statistic),
                    "flags": json.loads(rows[0].get("flags") or "{}"),
                }
    return {env: chart for env, chart in charts.items() if chart["scripts"]}
