"""The tables of the READMEs that are made of stored files.

python -m tests.benchmark.readme_tables    # writes what the files say now into the pages
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from benchmark import stats
from benchmark.captions import with_interval
from benchmark.files import read_csv
from benchmark.words import fine, number, share

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmark" / "results"
PAGES = (ROOT / "README.md", RESULTS / "README.md", ROOT / "USAGE.md")
OTHERS = (
    ROOT / "benchmark" / "README.md",
    RESULTS / "smollm2" / "README.md",
    RESULTS / "published.md",
    RESULTS / "tuned.md",
)
MEAN, IQM = "evaluation, mean", "evaluation, IQM"
DEFAULTS = [  # scripts without flags: folder, environment, names
    ("defaults", "CartPole-v1", "reinforce reinforce_baseline a2c a3c trpo ppo"),
    ("defaults", "Pendulum-v1", "ppo_continuous trpo_continuous sac"),
    ("minatar", "MinAtar/Breakout-v1", "ppo_images"),
    ("language", "addition", "reinforce_lm rloo grpo ppo_rlhf dpo"),
]
BESIDE = [  # with the flags of a suite, beside what others have published
    ("classic", env_id, name)
    for env_id in ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")
    for name in ("a2c", "trpo", "ppo")
]
BESIDE += [
    ("continuous", env_id, name)
    for env_id in ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Pendulum-v1")
    for name in ("ppo_continuous", "trpo_continuous")
]
BESIDE += [("sac", "HalfCheetah-v5", "sac"), ("sac", "Pendulum-v1", "sac")]
BESIDE += [
    ("minatar", f"MinAtar/{game}-v1", "ppo_images")
    for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
]
SEARCHES = RESULTS / "tuned" / "searches.csv"
Rows = list[list[str]]


# ==============================================================================================
# What a page and a report say
# ==============================================================================================
def tables(text: str) -> list[tuple[list[str], Rows]]:
    """Every Markdown table: its columns and its rows."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        split = (re.split(r"(?<!\\)\|", line.strip()[1:-1]) for line in block.splitlines())
        lines = [[cell.strip().replace("\\|", "|") for cell in cells] for cells in split]
        found.append((lines[0], lines[2:]))
    return found


def table(path: Path, *columns: str) -> Rows:
    """The rows of the table of a page whose first columns are these."""
    first = list(columns)
    (rows,) = [r for c, r in tables(path.read_text()) if c[: len(first)] == first]
    return rows


@cache
def cells(folder: str) -> dict[tuple[str, str, str], str]:
    """What a stored report says: (environment, algorithm, column) -> cell."""
    found = {}
    text = (RESULTS / folder / "report.md").read_text()
    for caption, block in re.findall(r"^\*(.*)\*\n\n((?:^\|.*\n)+)", text, re.MULTILINE):
        ((columns, rows),) = tables(block)
        where = re.split(r"[: ]", caption)[0]
        for row in rows:
            for column, cell in zip(columns, row, strict=True):
                found.setdefault((where, row[0], column), cell)
    return found


def runs(folder: str, env_id: str, algorithm: str) -> list[dict[str, str]]:
    """The stored rows of an algorithm on an environment, by seed."""
    rows = read_csv(RESULTS / folder / "results.csv")
    mine = [r for r in rows if (r["env_id"], r["algorithm"]) == (env_id, algorithm)]
    return sorted(mine, key=lambda row: int(row["seed"]))


def worst(folder: str, env_id: str, algorithm: str, key: str = "eval_return_mean") -> str:
    """The lowest of the runs, by the final evaluation or another number."""
    show = number if key == "eval_return_mean" else fine
    return show(min(float(row[key]) for row in runs(folder, env_id, algorithm)))


def estimate(cell: str) -> str:
    """A cell without its interval."""
    return cell.partition(" ")[0]


# ==============================================================================================
# Tables: the page, the first columns, and the rows
# ==============================================================================================
def classic() -> tuple[Path, list[str], Rows]:
    """The classic environments."""
    environments, rows = ["CartPole-v1", "Acrobot-v1", "LunarLander-v3"], []
    for name in ("reinforce", "reinforce_baseline", "a2c", "trpo", "ppo"):
        found = [cells("classic")[env_id, name, IQM] for env_id in environments]
        rows.append([f"`{name}.py`", *found])
    return PAGES[0], ["script", *environments], rows


def continuous() -> tuple[Path, list[str], Rows]:
    """The continuous environments: a script's seeds are those of the column n, or named."""
    names, rows = ("ppo_continuous", "trpo_continuous", "sac"), []
    for env_id in ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Pendulum-v1"):
        rows.append([env_id, cells("continuous")[env_id, names[0], "n"]])
        for name in names:
            files = cells("sac" if name == "sac" else "continuous")
            cell, n = (files.get((env_id, name, key)) for key in (MEAN, "n"))
            other = f" (n = {n})" if n not in (None, rows[-1][1]) else ""
            rows[-1].append((cell or "-") + other)
    return PAGES[0], ["environment", "n", *(f"`{name}.py`" for name in names)], rows


def scripts() -> tuple[Path, list[str], Rows]:
    """All scripts, without flags."""
    rows = []
    for folder, env_id, names in DEFAULTS:
        for name in names.split():
            files = {
                key[2]: cell for key, cell in cells(folder).items() if key[:2] == (env_id, name)
            }
            what = "exact_success" if folder == "language" else "eval_return_mean"
            rows.append([
                f"`{name}.py`", env_id, files["steps"], files["n"],
                files["exact success" if folder == "language" else MEAN],
                worst(folder, env_id, name, what), f"[{folder}]({folder}/report.md)",
            ])  # fmt: skip
    columns = ["script", "environment", "steps", "n", "evaluation", "worst run", "report"]
    return PAGES[1], columns, rows


def published() -> tuple[Path, list[str], Rows]:
    """Ours beside what others have published, of any version of the environment."""
    others: dict[tuple[str, str], list[tuple[str, dict]]] = {}
    for row in read_csv(RESULTS / "published.csv"):
        source = re.split(r",| \w+\.\w+| ppo2| \(", row["source"])[0]
        beside = "ppo" if row["algorithm"] == "ac" else row["algorithm"]
        value = float(row["return"])  # a whole number was published without decimals
        cell = f"{source} {number(value) if '.' in row['return'] else f'{value:,.0f}'}"
        others.setdefault((beside, row["env_id"].partition("-")[0]), []).append((cell, row))
    rows = []
    for folder, env_id, name in BESIDE:
        n, mean, steps = (cells(folder)[env_id, name, key] for key in ("n", MEAN, "steps"))
        theirs, mine = [], float(steps.replace(",", ""))
        for cell, row in others[name.partition("_")[0], env_id.partition("-")[0]]:
            notes = [f"n = {row['runs']}"] if row["runs"] else []
            if row["steps"] and abs(float(row["steps"]) / mine - 1) > 0.02:
                notes.append(f"{int(row['steps']):,} steps")
            theirs.append(f"{cell} ({', '.join(notes)})".removesuffix(" ()"))
        lowest = worst(folder, env_id, name)
        rows.append([env_id, f"`{name}.py`", steps, n, mean, lowest, "; ".join(theirs)])
    columns = ["environment", "script", "steps", "n", "ours", "worst run", "published"]
    return OTHERS[2], columns, rows


def tuned() -> tuple[Path, list[str], Rows]:
    """Every script with its own flags, those of a suite, and those that a search found."""
    rows, kinds = [], {"own": "", "suite": "-suite", "searched": "-tuned"}
    searched = {(row["env_id"], row["script"]) for row in read_csv(SEARCHES)}
    for env_id, script in sorted(searched):
        rows.append([env_id, f"`{script}`"])
        files = cells(f"tuned-{env_id}")
        for measure in ("area, mean", MEAN):
            for kind in kinds.values():
                name = f"{script.removesuffix('.py')}{kind}"
                rows[-1].append(files.get((env_id, name, measure), "-"))
        areas = searched_and_own(env_id, script)
        rows[-1].insert(5, with_interval(areas, stats.improvement, share))
    heads = [f"{measure}: {kind}" for measure in ("area", "evaluation") for kind in kinds]
    heads.insert(3, "P(searched > own)")
    return OTHERS[3], ["environment", "script", *heads], rows


def searched_and_own(env_id: str, script: str) -> list[np.ndarray]:
    """The areas of the runs with searched flags, and of those with the script's own."""
    own = script.removesuffix(".py")
    several = (runs(f"tuned-{env_id}", env_id, name) for name in (f"{own}-tuned", own))
    return [np.array([float(row["curve_mean"]) for row in found]) for found in several]


def cards() -> tuple[Path, list[str], Rows]:
    """Ratios of a card to the CPU: in the order of the settings, or from the lowest of the
    scripts to the highest."""
    rows, files, columns = [], {}, ["script", "setting", "times the CPU"]
    report = table(RESULTS / "gpu" / "report.md", "script", "setting", "device")
    for script, setting, device, *_, ratio in report:
        if device == "cuda":
            files.setdefault(setting.split(", ")[-1], {})[script] = ratio
    for title, size, _ in table(OTHERS[0], *columns):
        name = title.split("`")[1].removesuffix(".py") if "`" in title else ""
        if "environments" in size:
            counts = re.findall(r"\d+", size)
            ratio = ", ".join(files[f"{count} environments"][name] for count in counts)
        elif name == "smoke":
            ratio = files["64 runs"]["smoke"]
        else:
            ratios = files[size if "25 million" in title else "default model"]
            ends = (f(ratios.values(), key=float) for f in (min, max))
            ratio = ratios[name] if name else " to ".join(ends)
        rows.append([title, size, ratio])
    return OTHERS[0], columns, rows


TABLES: list[Callable[[], tuple[Path, list[str], Rows]]] = [
    classic, continuous, scripts, published, tuned, cards,
]  # fmt: skip


def write() -> None:
    """Put the rows into the pages, in place of those that stand there."""
    for made in TABLES:
        path, columns, rows = made()
        head = f"| {' | '.join(columns)} |\n"
        before, _, after = path.read_text().partition(head)
        rule, *rest = re.match(r"(\|.*\n)(?:\|.*\n)*", after)[0].splitlines(keepends=True)
        lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
        after = after[len(rule) + sum(map(len, rest)) :]
        path.write_text(before + head + rule + lines + after)


if __name__ == "__main__":
    write()
