"""From the rows of speed.csv to report.md and its figure."""

import math
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np

from . import plots
from .page import markdown_sections
from .pool import write_atomically
from .report import Figure, Section, Table, number, threshold

PEER, BEST, SHARE, BARE = "sb3-", "-best", "-share", "environment"  # what contestants' names begin, end with, or are
CONTESTANTS = ("ppo", PEER + "ppo", BARE)  # over --num-envs
SHARES = ("environment", "policy", "update", "logging", "rest")


def to_number(text: str) -> float:
    """A cell of the column `value`."""
    return math.inf if text == "never" else float(text)


def collect(rows: list[dict[str, str]], part: str, quantity: str) -> dict[tuple[str, str, int], dict[int, float]]:
    """(env_id, contestant, num_envs) -> repeat -> the value; num_envs is 0 in the parts that do not vary it."""
    found: dict[tuple[str, str, int], dict[int, float]] = {}
    for row in rows:
        if (row["part"], row["quantity"]) == (part, quantity):
            num_envs = int(row["num_envs"]) if part in ("environments", "num_envs") else 0
            found.setdefault((row["env_id"], row["contestant"], num_envs), {})[int(row["repeat"])] = to_number(
                row["value"]
            )
    return found


def median(values: Iterable[float]) -> float:
    """The median; of an even number with `never` among them the lower middle one, so that it is one of the values."""
    ordered = sorted(values)
    return float(np.median(ordered)) if math.isfinite(ordered[-1]) else ordered[(len(ordered) - 1) // 2]


def spread(values: Iterable[float], show: Callable[[float], str] = number) -> str:
    """'median [lowest-highest]', or the only value."""
    values = list(values)
    low, middle, high = (show(x) if math.isfinite(x) else "never" for x in (min(values), median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} [{low}-{high}]"


def ratio(value: float) -> str:
    return f"{value:.2f}"


def percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def paired(ours: dict[int, float], peers: dict[int, float]) -> tuple[list[float], list[float], list[float]]:
    """Both sides' values at the repeats that both have, and ours over the peer's."""
    both = sorted(ours.keys() & peers.keys())
    return [ours[i] for i in both], [peers[i] for i in both], [ours[i] / peers[i] for i in both]


def flag(rows: list[dict[str, str]], contestant: str, name: str) -> str:
    """'num_steps (128)' as the rows of the contestant have it; the name alone where it is the script's default."""
    for row in rows:
        words = row["flags"].split() if row["contestant"] == contestant else []
        option = f"--{name.replace('_', '-')}"
        if option in words:
            return f"{name} ({words[words.index(option) + 1]})"
    return name


def repeats(cells: list[Collection[float]]) -> str:
    """How many repeats the cells of a line have: one number, or one for each cell where they differ."""
    counts = {len(cell) for cell in cells if cell}
    return str(max(counts, default=0)) if len(counts) < 2 else " / ".join(str(len(cell)) for cell in cells)


def pairs_table(rows: list[dict[str, str]]) -> Table:
    """Ours beside the peer."""
    speeds, lines = collect(rows, "pairs", "steps_per_second"), []
    for (env_id, name, _), ours in speeds.items():
        mine, theirs, ratios = paired(ours, speeds.get((env_id, PEER + name, 0), {}))
        if ratios:
            lines.append([env_id, name, str(len(ratios)), spread(mine), spread(theirs), spread(ratios, ratio)])
    caption = (
        "Training steps per second (steps of all environments together, over the seconds of training: no imports, no "
        "evaluation) of our script and of the same algorithm in Stable-Baselines3 (A2C, PPO) or SB3-contrib (TRPO), at "
        "equal hyperparameters. n repeats, each with one seed for both sides, which run one after the other and take "
        "turns to be first; median [lowest-highest]. The ratio is taken within each repeat: above 1, ours is faster."
    )
    return Table(caption, ["environment", "script", "n", "ours, steps/s", "peer, steps/s", "ours / peer"], lines)


def threshold_table(rows: list[dict[str, str]]) -> Table:
    """Seconds and steps until the environment counts as solved."""
    seconds, steps = (collect(rows, "threshold", f"{what}_to_threshold") for what in ("seconds", "steps"))
    lines = []
    for key, times in seconds.items():
        env_id, name, _ = key
        peer, cells = (env_id, PEER + name, 0), ["", ""]
        for i, values in enumerate((seconds, steps) if peer in seconds else ()):
            mine, theirs = median(values[key].values()), median(values[peer].values())
            cells[i] = ratio(mine / theirs) if math.isfinite(mine) and math.isfinite(theirs) else "-"
        count = sum(map(math.isfinite, times.values()))
        lines.append([
            f"{env_id} ({threshold(env_id):g})", name, f"{count} of {len(times)}", spread(times.values()),
            spread(steps[key].values()), *cells,
        ])  # fmt: skip
    caption = (
        "Seconds and environment steps until the last 100 training episodes averaged the environment's threshold (in "
        "brackets), each side with flags of its own that suit it. In the suite `speed`, ours were chosen on other "
        "seeds of this environment, and the peer's are rl-baselines3-zoo's, tuned on it too. The seconds count from "
        "the start of the run's event file: no imports, no evaluation. Median [lowest-highest] over all n runs, one a "
        "seed; 'never': not within the run. The ratios are of the medians, ours / peer: below 1, ours is faster."
    )
    columns = ["environment (threshold)", "contestant", "reached", "seconds", "steps", "ratio of seconds",
               "ratio of steps"]  # fmt: skip
    return Table(caption, columns, lines)


def shares_table(rows: list[dict[str, str]]) -> Table:
    """Where the time of a run goes."""
    speeds, parts = collect(rows, "shares", "steps_per_second"), [collect(rows, "shares", name) for name in SHARES]
    lines = [
        [key[0], key[1].removesuffix(SHARE), str(len(values)),
         *(spread(part[key].values(), percent) for part in parts), spread(values.values())]
        for key, values in speeds.items()
    ]  # fmt: skip
    caption = (
        "Where the seconds of training go: to stepping and resetting the environments; to drawing actions from the "
        "policy; to the update, advantages included; to logging, which is counting steps, event files and checkpoints; "
        "the rest: copying between them, and all else. Median [lowest-highest] over n runs, one a seed, so a line need "
        "not add up to 100%. The clocks around the script's functions cost a little, and the steps per second are with "
        "them. Flags are the scripts' defaults, but for the length of the run and what the suite sets on MuJoCo."
    )
    return Table(caption, ["trained on", "script", "n", *SHARES, "steps/s"], lines)


def environments_table(rows: list[dict[str, str]], absent: set[str]) -> Table:
    """Steps per second of the environments alone."""
    speeds, lines = collect(rows, "environments", "steps_per_second"), []
    sizes = sorted({n for *_, n in speeds})
    for env_id in dict.fromkeys([*(env_id for env_id, *_ in speeds), *sorted(absent)]):
        cells = [speeds.get((env_id, BARE, n), {}).values() for n in sizes]
        missing = "could not be made" if env_id in absent else "-"
        lines.append([env_id, repeats(cells), *(spread(cell) if cell else missing for cell in cells)])
    caption = (
        "Steps per second of the environments alone, as the scripts make them, with random actions "
        "drawn beforehand; no policy, no learning. That is roughly the ceiling of a training run, not a bound: random "
        "actions end episodes early, and resets cost time. Steps of all environments together; median "
        "[lowest-highest] over n repeats, of each column where they differ."
    )
    return Table(caption, ["environment", "n", *(f"num_envs {n}, steps/s" for n in sizes)], lines)


def num_envs_section(rows: list[dict[str, str]], out: Path) -> Section:
    """Steps per second by the number of environments, as a table and a figure."""
    speeds = collect(rows, "num_envs", "steps_per_second")
    env_id, sizes = next(iter(speeds))[0], sorted({n for *_, n in speeds})
    names = [name for name in CONTESTANTS if any(name == other for _, other, _ in speeds)]
    lines = {}
    for name in names:
        known = [(n, list(speeds[env_id, name, n].values())) for n in sizes if (env_id, name, n) in speeds]
        lines[name] = tuple(np.array([(n, median(x), min(x), max(x)) for n, x in known]).T)
    table = []
    for n in sizes:
        cells = [speeds.get((env_id, name, n), {}) for name in CONTESTANTS]
        ratios = [paired(cells[0], other)[2] for other in cells[1:]]
        shown = [spread(cell.values()) if cell else "-" for cell in cells]
        table.append([str(n), repeats(cells), *shown, *(spread(x, ratio) if x else "-" for x in ratios)])
    fixed = " and ".join(flag(rows, "ppo", name) for name in ("num_steps", "num_minibatches"))
    counts = {len(values) for values in speeds.values()}
    n_words = f"n = {min(counts)}" if len(counts) == 1 else f"n = {min(counts)} to {max(counts)}"
    caption = (
        f"{env_id}: steps per second by the number of environments stepped side by side, for PPO (ours and "
        "Stable-Baselines3's, at equal hyperparameters, those of `ppo` in the suite) and for the environments alone, "
        "with random actions: roughly the ceiling, as random actions end episodes early, and resets cost time. "
        f"{fixed} stay fixed, so batch and minibatch grow with num_envs. Median [lowest-highest], ratios within each "
        f"repeat; {n_words} repeats, of each column of steps/s where they differ."
    )
    labels = {name: {"ppo": "ppo.py", BARE: "bare environment"}.get(name, name) for name in names}
    plots.plot_scaling(out / "num_envs", lines, labels, plots.styles(names), f"{env_id} ({n_words})",
                       "environments (--num-envs)", "steps per second")  # fmt: skip
    columns = ["num_envs", "n", "ppo, steps/s", "sb3-ppo, steps/s", "bare, steps/s", "ppo / sb3-ppo", "ppo / bare"]
    figure = Figure(f"The table below; bands from the lowest to the highest. {n_words} repeats.", "num_envs")
    return Section("Over the number of environments", [figure], [Table(caption, columns, table)])


def write_report(out: Path, rows: list[dict[str, str]], absent: set[str]) -> None:
    """Write report.md and the figure; `absent` are environments that could not be made just now."""
    have = {row["part"] for row in rows}
    tables = {
        "pairs": ("Equal hyperparameters, side by side", pairs_table),
        "threshold": ("Seconds until it is solved", threshold_table),
        "shares": ("Where the time goes", shares_table),
        "environments": ("Environments without a script", lambda rows: environments_table(rows, absent)),
    }
    made = [
        Section(title, tables=[table(rows)])
        for part, (title, table) in tables.items()
        if part in have or (part == "environments" and absent)
    ]
    sections = [section for section in made if section.tables[0].rows]  # a pair may lack its second half yet
    if "num_envs" in have:
        sections.append(num_envs_section(rows, out))
    loads = [float(row["load"]) for row in rows]
    head = [
        "# Speed",
        "Made by `python -m benchmark speed`. One process ran at a time, on the CPU, with one torch thread; every "
        "measurement, with its flags and the sha256 of what was run, is in `speed.csv`.",
        f"Machine and versions: {'; '.join(sorted({row['system'] for row in rows}))}.",
        f"Load (runnable processes over the minute before each measurement): median {median(loads):.1f}, highest "
        f"{max(loads):.1f}. About 1 is this command alone; more means that the machine was shared, and that the "
        "absolute numbers are too low.",
    ]
    text = "\n\n".join([*head, "\n".join(markdown_sections(sections))])
    write_atomically(out / "report.md", text.encode())
