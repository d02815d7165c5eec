"""The ladder, and the learning curves and results of the scripts, as inline SVG and HTML."""

import csv
import json
import math
from collections import defaultdict
from html import escape
from pathlib import Path

import numpy as np

from benchmark import stats

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 190, 46, 26, 8
PITCH, STEP, BOX, TALL = 204, 50, 158, 38  # of the ladder: columns, rows, a node
COLUMNS = [  # title, column of results.csv, digits: of environments, and of tasks for language
    [("evaluation", "eval_return_mean", 1), ("last 100 episodes", "train_return_mean", 1)],
    [("mode's success", "eval_return_mean", 3), ("exact success", "exact_success", 3),
     ("KL, nats", "kl", 3)],
]  # fmt: skip


def number(value: float, digits: int = 1) -> str:
    if not math.isfinite(value):
        return "never" if value > 0 else "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"


def with_interval(values: np.ndarray, statistic, digits: int = 1) -> str:
    """As the reports have it: a statistic of the seeds and its 95% interval."""
    low, high = stats.interval([values], statistic)
    shown = number(float(statistic([values])), digits)
    if high - low <= 1e-9 * max(1, abs(high)):
        return f"{shown} (saturated)"
    return (
        shown if np.isnan(low) else f"{shown} [{number(low, digits)}, {number(high, digits)}]"
    )


def read_csv(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return list(csv.DictReader(text.splitlines(keepends=True)))


def curves(path: Path, wanted: set[str]) -> dict[tuple[str, str], np.ndarray]:
    """Curves by steps, (environment, algorithm) -> (bins, 1 + seeds), positions first. Where a
    seed has not begun or has ended, nothing is shown."""
    seeds = defaultdict(lambda: defaultdict(dict))
    for row in read_csv(path):
        if row["axis"] == "steps" and row["algorithm"] in wanted:
            curve = seeds[row["env_id"], row["algorithm"]][row["seed"]]
            curve[float(row["position"])] = float(row["return"] or "nan")
    result = {}
    for key, group in seeds.items():
        columns = [[*next(iter(group.values()))], *([*x.values()] for x in group.values())]
        table = np.array(columns).T
        result[key] = table[np.isfinite(table).all(1)]
    return result


def row_of_results(rows: list[dict], statistic) -> list[list[str]]:
    """Columns (title, value) of one algorithm on one environment; failures stand beside n."""

    def values(name: str) -> np.ndarray:
        return np.array([float(r[name].replace("never", "inf")) for r in rows if r[name] != ""])

    failed = sum(row["status"] != "done" for row in rows)
    rows = [row for row in rows if row["status"] == "done"]
    task = bool(rows and rows[0].get("exact_success"))
    shown = [["n", f"{len(rows)}" + f", {failed} failed" * bool(failed)]]
    for title, name, digits in COLUMNS[task] if rows else ():
        shown.append([title, with_interval(values(name), statistic, digits)])
    if len(steps := values("steps_to_threshold")):
        median, level = number(float(stats.median([steps]))), float(rows[0]["threshold"])
        what = "completions" if task else "steps"
        shown.append([f"{what} to the threshold, median", f"{median} ({level:g})"])
    return shown


def ticks(low: float, high: float) -> list[float]:
    """About four round numbers from `low` to `high`."""
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(k for k in (5, 2, 1, 0.5) if (high - low) / (k * step) > 2.99)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def draw(drawn: dict[str, np.ndarray], statistic) -> tuple[str, dict[str, str]]:
    """The frame of one environment's curves, and each script's band and line in it."""
    lines = {}
    for name, table in drawn.items():
        seeds = [table[:, 1:]]
        band = stats.interval(seeds, statistic)
        lines[name] = np.stack([table[:, 0], statistic(seeds), *band])
    every = np.concatenate([line[1:].ravel() for line in lines.values()])
    right, low, high = max(x[0, -1] for x in lines.values()), np.nanmin(every), np.nanmax(every)

    def path(xs, ys) -> str:
        px = LEFT + np.asarray(xs) / right * (WIDTH - LEFT - 16)
        py = HEIGHT - BOTTOM - (np.asarray(ys) - low) / (high - low) * (HEIGHT - BOTTOM - TOP)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(px, py, strict=True))

    frame = []
    for y in ticks(low, high):
        (_, py), label = path([0], [y]).split(","), f"{y:,.{0 if high - low > 4 else 1}f}"
        frame.append(f'<path class="grid" d="M{LEFT},{py}H{WIDTH - 16}"/>')
        frame.append(f'<text x="{LEFT - 5}" y="{float(py) + 4:.1f}" class="end">{label}</text>')
    for x in ticks(0, right):
        label = f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x else "0"
        px = path([x], [low]).split(",")[0]
        frame.append(f'<text x="{px}" y="{HEIGHT - 9}" class="mid">{label}</text>')
    shapes = {}
    for name, (xs, mid, lower, upper) in lines.items():
        band = path(xs, lower) + " " + path(xs[::-1], upper[::-1])
        band = f'<polygon points="{band}"/>' if np.isfinite(lower).all() else ""
        shapes[name] = f'{band}<polyline points="{path(xs, mid)}"/>'
    return "".join(frame), shapes


def results(
    root: Path, sources: list[dict], scripts: list[str], environments: list[str] = ()
) -> dict[str, dict]:
    """Per environment, those named first: statistic, frame, and per script its shape, row and
    folder. The first source with a script's curve is used; missing folders are left out."""
    charts = {}
    for source in sources:
        folder, grouped = root / "benchmark/results" / source["folder"], defaultdict(list)
        for row in read_csv(folder / "results.csv"):
            grouped[row["env_id"], row["algorithm"]].append(row)
        for (env, script), table in curves(folder / "curves.csv", set(scripts)).items():
            chart = charts.setdefault(env, {"statistic": source["statistic"], "scripts": {}})
            if grouped[env, script] and script not in chart["scripts"]:
                row = row_of_results(grouped[env, script], getattr(stats, chart["statistic"]))
                flags = json.loads(grouped[env, script][0].get("flags") or "{}")
                shown = {"folder": source["folder"], "row": row, "shape": table, "flags": flags}
                chart["scripts"][script] = shown
    for chart in charts.values():
        shown = {s: chart["scripts"][s] for s in scripts if s in chart["scripts"]}
        tables = {script: one["shape"] for script, one in shown.items()}
        chart["frame"], shapes = draw(tables, getattr(stats, chart["statistic"]))
        chart["scripts"] = {s: one | {"shape": shapes[s]} for s, one in shown.items()}
    return {
        env: charts[env] for env in dict.fromkeys([*environments, *charts]) if env in charts
    }


def ladder(scripts: list[dict]) -> str:
    """The family as a tree, from left to right: nodes open a script, edges open a pair."""
    by_name = {script["name"]: script for script in scripts}
    place = {}

    def settle(name: str, depth: int, row: int) -> int:
        """Give a script and those below it their places; return the next free row."""
        place[name] = depth * PITCH + 2, row * STEP + 2
        below = [script["name"] for script in scripts if script.get("parent") == name]
        for child in below:
            row = settle(child, depth + 1, row)
        return row + (not below)

    rows = settle(scripts[0]["name"], 0, 0)
    width, height = max(x for x, _ in place.values()) + BOX + 2, (rows - 1) * STEP + TALL + 4
    nodes, edges = [], []
    for name, (x, y) in place.items():
        script = by_name[name]
        if parent := script.get("parent"):
            px, py = place[parent][0] + BOX, place[parent][1] + TALL / 2
            end, mid = y + TALL / 2, px + 8
            edges.append(
                f'<a href="#{parent}..{name}" aria-label="{parent}.py beside {name}.py"><path '
                f'd="M{px},{py}H{mid}V{end}H{x}"/><circle cx="{x - 20}" cy="{end}" r="12"/>'
                f'<text x="{x - 20}" y="{end + 5}" class="mid">&#8644;</text></a>'
            )
        nodes.append(
            f'<a href="#{name}"><rect x="{x}" y="{y}" width="{BOX}" '
            f'height="{TALL}" rx="6"/><text x="{x + 9}" y="{y + 16}">{name}.py</text>'
            f'<text x="{x + 9}" y="{y + 30}" class="adds">{escape(script["adds"])}</text></a>'
        )
    return (
        f'<svg id="ladder" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="group" aria-label="The family of scripts">{"".join(edges + nodes)}</svg>'
    )
