"""The learning curves and final evaluations of the scripts."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmark import stats
from benchmark.files import read_csv
from benchmark.words import fine, interval, number


def banded(curve: dict[float, list[float]], statistic) -> list[list[float]]:
    """[position in thousands, statistic, ends of its band] of each point of a curve. Where a
    seed has not begun or has ended, nothing is shown."""
    table = np.array([*curve.values()])
    whole = np.isfinite(table).all(1)
    seeds = [table[whole]]
    middle, band = statistic(seeds), np.stack(stats.interval(seeds, statistic))
    band = np.where(np.isfinite(band), band, middle)  # a single seed has none
    rows = np.stack([np.array([*curve])[whole] / 1000, middle, *band], 1)
    return [[float(f"{x:.5g}") for x in row] for row in rows]


def evaluation(rows: list[dict], statistic) -> dict[str, str]:
    """What the seeds of one algorithm ended at: n, failures beside it, and the final evaluation
    with its interval; of a language model's task the probability of success."""
    done = [row for row in rows if row["status"] == "done"]
    failed = len(rows) - len(done)
    task = bool(done[0].get("exact_success"))
    column, show = ("exact_success", fine) if task else ("eval_return_mean", number)
    seeds = [np.array([float(row[column]) for row in done])]
    ends = stats.interval(seeds, statistic)
    return {
        "n": f"{len(done)}, {failed} failed" if failed else f"{len(done)}",
        "evaluation": interval(float(statistic(seeds)), *ends, show),
        "by": "completions" if task else "steps",
    }


def results(
    root: Path, sources: list[dict], scripts: list[str], environments: list[str] = ()
) -> dict[str, dict]:
    """Per environment, those named first: statistic, and per script its curve, evaluation,
    flags and folder. The first source with a script is used; missing ones are left out."""
    charts = {env: {"scripts": {}} for env in environments}
    for source in sources:
        folder, runs = root / "benchmark/results" / source["folder"], defaultdict(list)
        curves = defaultdict(lambda: defaultdict(list))  # position -> returns of the seeds
        for row in read_csv(folder / "results.csv") if folder.exists() else ():
            runs[row["env_id"], row["algorithm"]].append(row)
        for row in read_csv(folder / "curves.csv") if folder.exists() else ():
            if row["axis"] == "steps":
                curve = curves[row["env_id"], row["algorithm"]]
                curve[float(row["position"])].append(float(row["return"] or "nan"))
        for (env, script), curve in curves.items():
            chart = charts.setdefault(env, {"scripts": {}})
            if script in scripts and script not in chart["scripts"]:
                chart["statistic"] = source["statistic"]
                statistic = getattr(stats, source["statistic"])
                chart["scripts"][script] = {
                    "folder": source["folder"],
                    "curve": banded(curve, statistic),
                    "flags": json.loads(runs[env, script][0].get("flags") or "{}"),
                    **evaluation(runs[env, script], statistic),
                }
    return {env: chart for env, chart in charts.items() if chart["scripts"]}
