"""The ladder, and the learning curves and results of the scripts, as inline SVG and HTML."""

import csv
import math
from collections import defaultdict
from html import escape
from pathlib import Path

import numpy as np

from benchmark import stats

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 190, 46, 26, 8
PITCH, STEP, BOX, TALL = 204, 50, 158, 38  # of the ladder: columns, rows, a node


def number(value: float, digits: int = 1) -> str:
    if not math.isfinite(value):
        return "never" if value > 0 else "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"


def with_interval(values: np.ndarray, statistic, digits: int = 1) -> str:
    ends = stats.interval(values, statistic)
    shown = [number(x, digits) for x in ends if not np.isnan(x)]
    return number(float(statistic(values)), digits) + (
        f" [{', '.join(shown)}]" if shown else ""
    )


def read_csv(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
    shown = [["n", f"{len(rows)}" + f", {failed} failed" * bool(failed)]]
    if rows and rows[0].get("exact_success"):
        shown.append(
            ["mode's success", with_interval(values("eval_return_mean"), statistic, 3)]
        )
        shown.append(["exact success", with_interval(values("exact_success"), statistic, 3)])
        shown.append(["KL, nats", with_interval(values("kl"), statistic, 3)])
    elif rows:
        shown.append(["evaluation", with_interval(values("eval_return_mean"), statistic)])
        shown.append(
            ["last 100 episodes", with_interval(values("train_return_mean"), statistic)]
        )
    if len(steps := values("steps_to_threshold")):
        level, median = float(rows[0]["threshold"]), number(float(stats.median(steps)))
        shown.append(["steps to a return of, median", f"{level:g}: {median}"])
    return shown


def ticks(low: float, high: float) -> list[float]:
    """About four round numbers from `low` to `high`."""
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(k for k in (5, 2, 1, 0.5) if (high - low) / (k * step) > 2.99)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def chart(drawn: dict[str, np.ndarray], statistic) -> tuple[str, dict[str, str]]:
    """The frame of one environment's curves, and each script's band and line in it."""
    lines = {}
    for name, table in drawn.items():
        low, high = stats.interval(table[:, 1:], statistic)
        lines[name] = np.stack([table[:, 0], statistic(table[:, 1:]), low, high])
    every = np.concatenate([line[1:].ravel() for line in lines.values()])
    right, low, high = max(x[0, -1] for x in lines.values()), np.nanmin(every), np.nanmax(every)

    def at(x, y) -> str:
        px = LEFT + x / right * (WIDTH - LEFT - 16)
        py = HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - BOTTOM - TOP)
        return f"{px:.1f},{py:.1f}"

    def path(xs, ys) -> str:
        return " ".join(at(x, y) for x, y in zip(xs, ys, strict=True))

    frame = []
    for y in ticks(low, high):
        (x, py), end = at(0, y).split(","), at(right, y).split(",")[0]
        frame.append(f'<path class="grid" d="M{x},{py}H{end}"/>')
        label = f"{y:,.0f}" if high - low > 4 else f"{y:.1f}"
        frame.append(f'<text x="{LEFT - 5}" y="{float(py) + 4:.1f}" class="end">{label}</text>')
    for x in ticks(0, right):
        px = at(x, low).split(",")[0]
        label = f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x else "0"
        frame.append(f'<text x="{px}" y="{HEIGHT - 9}" class="mid">{label}</text>')
    shapes = {}
    for name, (xs, mid, lower, upper) in lines.items():
        band = path(xs, lower) + " " + path(xs[::-1], upper[::-1])
        band = f'<polygon points="{band}"/>' if np.isfinite(lower).all() else ""
        shapes[name] = f'{band}<polyline points="{path(xs, mid)}"/>'
    return "".join(frame), shapes


def results(root: Path, sources: list[dict], scripts: list[str]) -> dict[str, dict]:
    """Per environment: unit, frame, and per script its shape, row and folder. The first source
    that has a script's curve or row on an environment is used; missing folders are left out."""
    tables, rows, statistics = defaultdict(dict), {}, {}
    for source in sources:
        folder, statistic = root / "benchmark/results" / source["folder"], source["statistic"]
        grouped = defaultdict(list)
        for row in read_csv(folder / "results.csv"):
            grouped[row["env_id"], row["algorithm"]].append(row)
        found = curves(folder / "curves.csv", set(scripts))
        for (env, script), group in sorted(grouped.items()):
            if script in scripts and (env, script) in found and script not in tables[env]:
                statistics.setdefault(env, statistic)
                tables[env][script] = found[env, script]
                rows[env, script] = source["folder"], group
    charts = {}
    for env, drawn in tables.items():
        statistic = getattr(stats, statistics[env])
        frame, shapes = chart({s: drawn[s] for s in scripts if s in drawn}, statistic)
        task = "exact_success" in rows[env, next(iter(drawn))][1][0]
        charts[env] = {
            "frame": frame,
            "statistic": {"iqm": "IQM", "mean": "mean"}[statistics[env]],
            "unit": "completions" if task else "environment steps",
            "scripts": {
                s: {"shape": shape, "folder": rows[env, s][0],
                    "row": row_of_results(rows[env, s][1], statistic)}
                for s, shape in shapes.items()
            },
        }  # fmt: skip
    return charts


def ladder(scripts: list[dict]) -> str:
    """The family as a tree, from left to right: nodes open a script, edges open a pair."""
    by_name = {script["name"]: script for script in scripts}
    children = defaultdict(list)
    for script in scripts:
        children[script.get("parent")].append(script["name"])
    place, rows = {}, 0

    def settle(name: str, depth: int) -> None:
        nonlocal rows
        for child in children[name]:
            settle(child, depth + 1)
        ys = [place[child][1] for child in children[name]]
        place[name] = depth * PITCH + 2, ys[0] if ys else rows * STEP + 2
        rows += not ys

    for root in children[None]:
        settle(root, 0)
    width, height = max(x for x, _ in place.values()) + BOX + 2, rows * STEP - STEP + TALL + 4
    nodes, edges = [], []
    for name, (x, y) in place.items():
        script = by_name[name]
        if parent := script.get("parent"):
            px, py = place[parent][0] + BOX, place[parent][1] + TALL / 2
            end, mid = y + TALL / 2, px + 8
            edges.append(
                f'<a href="#{parent}..{name}" data-edge="{parent}..{name}" aria-label="'
                f'{parent}.py beside {name}.py"><path d="M{px},{py}H{mid}V{end}H{x}"/>'
                f'<circle cx="{x - 20}" cy="{end}" r="12"/>'
                f'<text x="{x - 20}" y="{end + 5}" class="mid">&#8644;</text></a>'
            )
        nodes.append(
            f'<a href="#{name}" data-node="{name}"><rect x="{x}" y="{y}" width="{BOX}" '
            f'height="{TALL}" rx="6"/><text x="{x + 9}" y="{y + 16}">{name}.py</text>'
            f'<text x="{x + 9}" y="{y + 30}" class="adds">{escape(script["adds"])}</text></a>'
        )
    return (
        f'<svg id="ladder" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="group" aria-label="The family of scripts">{"".join(edges + nodes)}</svg>'
    )
