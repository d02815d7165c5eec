"""results.csv, curves.csv and logged.csv: what a report keeps of the runs, and enough to make
it again without them."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .files import read_csv, write_csv
from .prepared import Prepared
from .runs import SUMMARY, Run, find_runs, mixtures, wrong_layout
from .words import BadInput

NUMBERS = [name for name, kind in SUMMARY.items() if kind is not str and name != "seed"]
# Its seconds are of the last invocation, all its attempts together.
RECORD = ["attempts", "resumes", "seconds", "cpu", "gpu", "commit"]
WORDS = RECORD[3:]
COLUMNS = [
    "algorithm", "env_id", "seed", "status", "reason", "script", *NUMBERS, "score_low",
    "score_high", "score", "threshold", "steps_to_threshold", "seconds_to_threshold",
    "curve_mean", *RECORD, "device", "script_sha256", "versions", "flags",
]  # fmt: skip
CURVES = ["env_id", "algorithm", "seed", "axis", "position", "return"]
LOGGED = ["env_id", "algorithm", "seed", "tag", "step", "value"]


def save(out: Path, runs: list[Prepared]) -> None:
    """Write results.csv (one row a run, whatever became of it), curves.csv (every binned curve)
    and, if the runs have some, logged.csv (logged values)."""
    further = sorted({name for run in runs for name in run.further})
    rows = [[*result_row(run), *map(run.further.get, further)] for run in runs]
    write_csv(out / "results.csv", COLUMNS + further, rows)
    write_csv(out / "curves.csv", CURVES, [row for run in runs for row in curve_rows(run)])
    tags = dict.fromkeys(tag for run in runs for tag in run.logged)
    if logged := [row for tag in tags for run in runs for row in logged_rows(run, tag)]:
        write_csv(out / "logged.csv", LOGGED, logged)


def result_row(run: Prepared) -> list:
    """A run by COLUMNS: "never" where the threshold was not reached, nothing where that is
    unknown."""
    times = [x if math.isfinite(x) else "never" for x in run.reached or ()] or ["", ""]
    score = run.score(run.summary["eval_return_mean"]) if run.status == "done" else math.nan
    return [
        run.algorithm, run.env_id, run.seed, run.status, run.reason, run.summary.get("script"),
        *map(run.summary.get, NUMBERS), *(run.score_range or ("", "")),
        "" if math.isnan(score) else score, run.threshold, *times, run.area,
        *map(run.record.get, RECORD), run.args.get("device"), run.args.get("script_sha256"),
        json.dumps(run.args.get("versions")), json.dumps(run.flags()),
    ]  # fmt: skip


def curve_rows(run: Prepared) -> Iterator[list]:
    """The run's curves by CURVES, nothing in a bin before its first episode."""
    for axis, line in run.curve.items():
        for x, y in zip(*line, strict=True):
            shown = "" if math.isnan(y) else f"{y:.6g}"
            yield [run.env_id, run.algorithm, run.seed, axis, f"{x:.6g}", shown]


def logged_rows(run: Run, tag: str) -> Iterator[list]:
    """What a run that is done logged under a tag, by LOGGED."""
    if run.status == "done" and tag in run.logged:
        for step, value in run.logged[tag].T:
            yield [run.env_id, run.algorithm, run.seed, tag, f"{step:.0f}", f"{value:.6g}"]


def load(root: Path, tags: Sequence[str] = ()) -> tuple[list[Run], list[str]]:
    """The runs under `root`, as find_runs, or where there are none those of a report that lies
    there, with all that it has of logged values."""
    if not root.is_dir():
        what = f"there is no folder {root}; python -m benchmark run <suite> makes one"
        raise BadInput(what)
    runs, problems = find_runs(root, tags)
    if runs or not (root / "results.csv").exists():
        return runs, problems
    runs = read_results(root / "results.csv")
    return runs, mixtures(runs)


def read_results(path: Path) -> list[Run]:
    """The runs of a report, with curves.csv and logged.csv beside its results.csv. Raises
    BadInput where it is none."""
    series = {"curves": ("axis", "position", "return"), "logged": ("tag", "step", "value")}
    try:
        runs = [read_row(row, path.parent) for row in read_csv(path)]
        for name, columns in series.items():
            if (beside := path.with_name(f"{name}.csv")).exists():
                add_series(runs, read_csv(beside), *columns)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise BadInput(f"{path} is no results.csv of a report ({what})") from None
    return runs


def read_row(row: dict[str, str], directory: Path) -> Run:
    """One run from its row; older reports lack some columns."""

    def value(name: str) -> float | None:
        text = row.get(name) or ""
        return json.loads(text) if text else None

    about = (row[name] for name in ("algorithm", "env_id", "seed", "status", "reason"))
    run = Run(directory, *about)
    run.seed, flags = int(run.seed), json.loads(row["flags"])
    args = flags | {"seed": run.seed, "versions": json.loads(row["versions"])}
    args |= {name: row[name] for name in ("script", "device", "script_sha256")}
    run.args = {name: x for name, x in args.items() if x not in ("", None) or name in flags}
    run.record = {name: value(name) for name in RECORD if name not in WORDS}
    run.record |= {name: row.get(name) or None for name in WORDS}
    run.record["curve_mean"] = value("curve_mean")  # for reports that keep no curves
    run.threshold = value("threshold")
    if value("score_low") is not None:
        run.score_range = value("score_low"), value("score_high")
    if run.status == "done":
        run.summary = {"env_id": run.env_id, "script": row["script"], "seed": run.seed}
        run.summary |= {name: value(name) for name in NUMBERS}
        if wrong := wrong_layout(run.summary, SUMMARY):
            raise ValueError(f"a row {wrong}")
        run.summary |= {name: value(name) for name in row.keys() - {*COLUMNS} if row[name]}
    if row["steps_to_threshold"]:
        times = (row["steps_to_threshold"], row["seconds_to_threshold"])
        run.reached = tuple(math.inf if text == "never" else float(text) for text in times)
    return run


def add_series(runs: list[Run], rows: list[dict], kind: str, x: str, y: str) -> None:
    """Give the runs their curves or logs, told apart by `kind`; where runs share a name and a
    seed, in turn."""
    series: dict[tuple, list[list[tuple[float, float]]]] = {}
    for row in rows:
        about = row["env_id"], row["algorithm"], int(row["seed"])
        parts = series.setdefault((*about, row[kind]), [[]])
        at = float(row[x])
        if parts[-1] and at < parts[-1][-1][0]:
            parts.append([])
        parts[-1].append((at, float(row[y] or "nan")))
    for run in runs:
        for (*about, name), parts in series.items():
            mine = about == [run.env_id, run.algorithm, run.seed]
            if parts and run.status == "done" and mine:
                line = np.array(parts.pop(0)).T
                if kind == "axis":  # positions are rounded, and none may fall into the next bin
                    line = line[:, np.isfinite(line[1])] * [[1 - 1e-5], [1]]
                    run.points[name] = line
                else:
                    run.logged[name] = line
