"""results.csv, curves.csv and logged.csv: what a report keeps of the runs, and enough to make it again without them."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .grid import BadInput
from .pool import write_atomically
from .runs import SUMMARY, Run, find_runs, mixtures, wrong_layout

NUMBERS = [name for name, kind in SUMMARY.items() if kind is not str and name != "seed"]
RECORD = ["attempts", "resumes", "seconds", "cpu", "gpu"]  # seconds: of the last invocation, all its attempts together
COLUMNS = [
    "algorithm", "env_id", "seed", "status", "reason", "script", *NUMBERS, "score_low", "score_high", "score",
    "threshold", "steps_to_threshold", "seconds_to_threshold", "curve_mean", *RECORD, "device", "script_sha256",
    "versions", "flags",
]  # fmt: skip
CURVES = ["env_id", "algorithm", "seed", "axis", "position", "return"]
LOGGED = ["env_id", "algorithm", "seed", "tag", "step", "value"]


def save(out: Path, runs: list[Run]) -> None:
    """Write results.csv (one row a run, whatever became of it; "never" where the threshold was not reached, nothing
    where that is unknown), curves.csv (every binned curve) and, if the runs have some, logged.csv (logged values)."""
    further = sorted({name for run in runs for name in run.further})
    rows, curves = [], []
    for run in runs:
        times = [x if math.isfinite(x) else "never" for x in run.reached or ()] or ["", ""]
        score = run.score(run.summary["eval_return_mean"]) if run.status == "done" else math.nan
        rows.append([
            run.algorithm, run.env_id, run.seed, run.status, run.reason, run.summary.get("script"),
            *map(run.summary.get, NUMBERS), *(run.score_range or ("", "")), "" if math.isnan(score) else score,
            run.threshold, *times, run.area, *map(run.record.get, RECORD), run.args.get("device"),
            run.args.get("script_sha256"), json.dumps(run.args.get("versions")), json.dumps(run.flags()),
            *map(run.further.get, further),
        ])  # fmt: skip
        about = [run.env_id, run.algorithm, run.seed]
        for axis, line in run.curve.items():
            curves += [
                [*about, axis, f"{x:.6g}", "" if math.isnan(y) else f"{y:.6g}"] for x, y in zip(*line, strict=True)
            ]
    logged = [
        [run.env_id, run.algorithm, run.seed, tag, f"{step:.0f}", f"{value:.6g}"]
        for tag in dict.fromkeys(tag for run in runs for tag in run.logged)
        for run in runs
        if run.status == "done" and tag in run.logged
        for step, value in run.logged[tag].T
    ]
    tables = [("results", COLUMNS + further, rows), ("curves", CURVES, curves), ("logged", LOGGED, logged)]
    for name, columns, rows in tables[: 3 if logged else 2]:
        write_csv(out / f"{name}.csv", columns, rows)


def write_csv(path: Path, columns: list[str], rows: list[list]) -> None:
    """Write a CSV file, None as nothing."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, buffer.getvalue().encode())


def load(root: Path, tags: Sequence[str] = ()) -> tuple[list[Run], list[str]]:
    """The runs under `root`, as find_runs, or where there are none those of a report that lies there, with all that it
    has of logged values."""
    if not root.is_dir():
        raise BadInput(f"there is no folder {root}; python -m benchmark run <suite> makes one")
    runs, problems = find_runs(root, tags)
    if runs or not (root / "results.csv").exists():
        return runs, problems
    runs = read_results(root / "results.csv")
    return runs, mixtures(runs)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot read {path}: {getattr(error, 'strerror', error)}") from None


def read_results(path: Path) -> list[Run]:
    """The runs of a report, with curves.csv and logged.csv beside its results.csv. Raises BadInput where it is none."""
    try:
        runs = [read_row(row, path.parent) for row in read_csv(path)]
        for name, *columns in (("curves", "axis", "position", "return"), ("logged", "tag", "step", "value")):
            if (beside := path.with_name(f"{name}.csv")).exists():
                add_series(runs, read_csv(beside), *columns)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is no results.csv of a report ({type(error).__name__}: {error})") from None
    return runs


def read_row(row: dict[str, str], directory: Path) -> Run:
    """One run from its row; older reports lack some columns."""

    def value(name: str) -> float | None:
        text = row.get(name) or ""
        return json.loads(text) if text else None

    run = Run(directory, row["algorithm"], row["env_id"], int(row["seed"]), row["status"], row["reason"])
    run.args = json.loads(row["flags"]) | {"seed": run.seed, "script": row["script"], "device": row["device"]}
    run.args |= {"script_sha256": row["script_sha256"], "versions": json.loads(row["versions"])}
    run.args = {name: x for name, x in run.args.items() if x not in ("", None) or name in json.loads(row["flags"])}
    run.record = {name: row.get(name) or None if name in ("cpu", "gpu") else value(name) for name in RECORD}
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
    """Give the runs their curves or logs, told apart by `kind`; where runs share a name and a seed, in turn."""
    series: dict[tuple, list[list[tuple[float, float]]]] = {}
    for row in rows:
        parts = series.setdefault((row["env_id"], row["algorithm"], int(row["seed"]), row[kind]), [[]])
        at = float(row[x])
        if parts[-1] and at < parts[-1][-1][0]:
            parts.append([])
        parts[-1].append((at, float(row[y] or "nan")))
    for run in runs:
        for (*about, name), parts in series.items():
            if parts and run.status == "done" and about == [run.env_id, run.algorithm, run.seed]:
                line = np.array(parts.pop(0)).T
                if kind == "axis":  # positions are rounded, and none may fall into the next bin
                    line = line[:, np.isfinite(line[1])] * [[1 - 1e-5], [1]]
                    run.points[name] = line
                else:
                    run.logged[name] = line
