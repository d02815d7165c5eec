"""The READMEs: their figures against the files that they cite, their size, their links."""

import re
from functools import cache
from pathlib import Path
from statistics import median

import pytest
from harness import ROOT

from benchmark.files import read_csv
from benchmark.words import number, span

RESULTS = ROOT / "benchmark" / "results"
PAGES = (ROOT / "README.md", RESULTS / "README.md", ROOT / "USAGE.md")
OTHERS = (ROOT / "benchmark" / "README.md", RESULTS / "smollm2" / "README.md")
INTERVAL = r"-?[\d,.]+ (?:\[-?[\d,.]+, -?(?:[\d,.]*\d|never)\]|\(saturated\))"
MEAN, IQM, TRAINED = "evaluation, mean", "evaluation, IQM", "last 100 episodes, mean"

# The entries of the suites in the order of the rows of the tables of language models.
LANGUAGE = [
    "reinforce_lm", "reinforce_lm-no-baseline", "rloo", "rloo-kl-0", "rloo-kl-0.5", "grpo",
    "grpo-no-std", "grpo-kl-0", "grpo-kl-0.5", "dr-grpo", "ppo_rlhf-true",
    "ppo_rlhf-true-kl-0.5", "ppo_rlhf", "ppo_rlhf-kl-1", "dpo", "dpo-kl-0.1", "dpo-kl-1",
    "dpo-online",
]  # fmt: skip
FOLLOWERS = [
    "grpo", "grpo-kl-0", "dr-grpo", "dapo-one-draw", "dapo", "gspo", "gspo-clip-0.2", "cispo",
]  # fmt: skip
PREFERENCES = [
    "ppo_rlhf-rounds-8", "ppo_rlhf-rounds-1", "ppo_rlhf-rounds-8-kl-0.05",
    "ppo_rlhf-rounds-1-kl-0.05", "dpo", "dpo-no-nll", "dpo-online-no-nll",
]  # fmt: skip
PARITY = {"A2C": "a2c", "TRPO": "trpo", "PPO": "ppo", "PPO, continuous": "ppo_continuous"}
SPEED = PARITY | {"TRPO, continuous": "trpo_continuous", "SAC": "sac"}


def tables(text: str) -> list[tuple[list[str], list[list[str]]]]:
    """Every Markdown table: its columns and its rows."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        split = (re.split(r"(?<!\\)\|", line.strip()[1:-1]) for line in block.splitlines())
        lines = [[cell.strip().replace("\\|", "|") for cell in cells] for cells in split]
        found.append((lines[0], lines[2:]))
    return found


def table(path: Path, *columns: str) -> list[list[str]]:
    """The rows of the table of a page whose first columns are these."""
    first = list(columns)
    (rows,) = [r for c, r in tables(path.read_text()) if c[: len(first)] == first]
    return rows


@cache
def cells(folder: str) -> dict[tuple[str, str, str], str]:
    """What a stored report says: (environment, algorithm, column) -> cell; of pairs, (X, Y, the
    measure)."""
    found = {}
    text = (RESULTS / folder / "report.md").read_text()
    for caption, block in re.findall(r"^\*(.*)\*\n\n((?:^\|.*\n)+)", text, re.MULTILINE):
        ((columns, rows),) = tables(block)
        where = re.split(r"[: ]", caption)[0]
        for row in rows:
            for column, cell in zip(columns, row, strict=True):
                if columns[0] == "X":
                    found[
                        row[0], row[1], "area" if "under the" in caption else "evaluation"
                    ] = row[3]
                else:
                    found.setdefault((where, row[0], column), cell)
    return found


def worst(folder: str, env_id: str, algorithm: str) -> str:
    """The lowest final evaluation of a seed."""
    rows = read_csv(RESULTS / folder / "results.csv")
    mine = [r for r in rows if (r["env_id"], r["algorithm"]) == (env_id, algorithm)]
    return number(min(float(row["eval_return_mean"]) for row in mine))


def estimate(cell: str) -> str:
    """A cell without its interval."""
    return cell.partition(" ")[0]


def classic() -> list[tuple[list[str], list[str]]]:
    """README.md's table of the classic environments: rows, and what the files have for them."""
    found = []
    environments = ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")
    for row in table(PAGES[0], "script", *environments):
        name, expected = row[0].strip("`").removesuffix(".py"), []
        for env_id in environments:
            new = (env_id, name, IQM) in cells("classic-anew")
            files = cells("classic-anew" if new else "classic")
            expected.append(files[env_id, name, IQM])
        found.append((row, [row[0], *expected]))
    return found


def continuous() -> list[tuple[list[str], list[str]]]:
    """README.md's table of the continuous environments: each script's seeds are those of the
    column n, or named."""
    found, names = [], ("ppo_continuous", "trpo_continuous", "sac")
    for row in table(PAGES[0], "environment", "n", *(f"`{name}.py`" for name in names)):
        expected = row[:2]
        for name in names:
            files = cells("sac" if name == "sac" else "continuous")
            cell, n = (files.get((row[0], name, key)) for key in (MEAN, "n"))
            expected.append((cell or "-") + (f" (n = {n})" if n not in (None, row[1]) else ""))
        found.append((row, expected))
    return found


def published() -> list[tuple[list[str], list[str]]]:
    """Our results beside what others have published, of any version of the environment."""
    found, files, others = [], cells("continuous"), {}
    for row in read_csv(RESULTS / "published.csv"):
        key = row["algorithm"], row["env_id"].partition("-")[0]
        spread = f" ± {number(float(row['spread']))}" if row["spread"] else ""
        cell = f"{number(float(row['return']))}{spread} (n = {row['runs']})"
        others.setdefault(key, []).append((row["source"], cell))
    for name in ("ppo_continuous", "trpo_continuous"):
        mean = f"mean of `{name}.py`"
        ((columns, rows),) = [t for t in tables(PAGES[1].read_text()) if mean in t[0]]
        for row in rows:
            ours = [files[row[0], name, "n"], files[row[0], name, MEAN]]
            expected = [row[0], *ours, worst("continuous", row[0], name)]
            for peer, cell in zip(columns[4:], row[4:], strict=True):
                cited = others[name.partition("_")[0], row[0].partition("-")[0]]
                known = [theirs for source, theirs in cited if source.startswith(peer)] or ["-"]
                expected.append(cell if cell in known else known)
            found.append((row, expected))
    return found


def reinforce() -> list[tuple[list[str], list[str]]]:
    """REINFORCE before and after it stepped running episodes only."""
    found, name = [], ""
    for row in table(PAGES[1], "script", "", "CartPole-v1, steps to 475"):
        name = row[0].strip("`").removesuffix(".py") or name
        files = cells("classic" if row[1] == "before" else "classic-anew")
        steps = estimate(files["CartPole-v1", name, "to threshold, steps"])
        reached = files["CartPole-v1", name, "reached"].replace("/", " of ")
        both = [files["LunarLander-v3", name, key] for key in (MEAN, TRAINED)]
        found.append((row, [row[0], row[1], f"{steps} ({reached})", *both]))
    return found


def language() -> list[tuple[list[str], list[str]]]:
    """The table of variants of the scripts for language models."""
    return variants("language", LANGUAGE, "variant")


def followers() -> list[tuple[list[str], list[str]]]:
    """The table of GRPO's followers."""
    return variants("grpo", FOLLOWERS, "follower")


def variants(folder: str, names: list[str], what: str) -> list[tuple[list[str], list[str]]]:
    found, rows = [], table(PAGES[1], what, "exact success")
    for row, name in zip(rows, names, strict=True):
        files = {key[2]: cell for key, cell in cells(folder).items() if key[1] == name}
        count, steps = (
            files["reached"].split("/")[0],
            estimate(files["to threshold, completions"]),
        )
        if steps == "never" and count != "0":
            steps = f"never ({count} of 10 {'does' if count == '1' else 'do'})"
        found.append((row, [row[0], files["exact success"], files["KL"], steps]))
    return found


def preferences() -> list[tuple[list[str], list[str]]]:
    """The table of ways to learn from preferences."""
    found, rows = [], table(PAGES[1], "variant", "mode")
    for row, name in zip(rows, PREFERENCES, strict=True):
        files = {key[2]: cell for key, cell in cells("preferences").items() if key[1] == name}
        found.append((row, [row[0], files["mode"], files["exact success"], files["KL"]]))
    return found


def mirrored(cell: str) -> str:
    """The probability that Y beats X, where the report has that of X beating Y."""
    if cell.endswith("(saturated)"):
        return f"{1 - float(estimate(cell)):.2f} (saturated)"
    middle, low, high = (1 - float(x) for x in re.findall(r"[\d.]+", cell))
    return f"{middle:.2f} [{high:.2f}, {low:.2f}]"


def parity() -> list[tuple[list[str], list[str]]]:
    """Ours beside Stable-Baselines3's at equal hyperparameters."""
    found, name, files = [], "", cells("peers")
    for row in table(PAGES[1], "algorithm", "n", "", "final evaluation, mean"):
        name = PARITY.get(row[0], name)
        key = name if row[2] == "ours" else f"sb3-{name}"
        env_id = "Pendulum-v1" if name == "ppo_continuous" else "CartPole-v1"
        expected = [row[0], files[env_id, key, "n"] if row[0] else "", row[2]]
        expected += [files[env_id, key, column] for column in (MEAN, "area, mean")]
        pairs = [
            files[name, f"sb3-{name}", measure]
            if (name, f"sb3-{name}", measure) in files
            else mirrored(files[f"sb3-{name}", name, measure])
            for measure in ("evaluation", "area")
        ]
        found.append((row, [*expected, *(pairs if row[0] else ["", ""])]))
    return found


def speed() -> list[tuple[list[str], list[str]]]:
    """Steps per second beside the peers, medians, and the ratio within each repeat, on two
    machines."""
    found = [(row, row[:1]) for row in table(PAGES[1], "algorithm", "setting", "EPYC: ours")]
    for folder in ("speed-pairs", "speed-pairs-xeon"):
        report = table(RESULTS / folder / "report.md", "environment", "script", "", "n")
        files = {row[1]: row for row in report}
        for row, expected in found:
            env_id, _, _, n, ours, peer, ratio = files[SPEED[row[0]]]
            if len(expected) == 1:
                expected.append(env_id + row[1][len(env_id) :])
            assert n == "3"  # as the text says
            expected += [estimate(ours), estimate(peer), ratio]
        assert len(found) == len(files)
    return found


def trl() -> list[tuple[list[str], list[str]]]:
    """grpo.py beside TRL: medians of the repeats."""
    found, rows = [], read_csv(RESULTS / "speed-trl" / "speed.csv")
    names = ("grpo.py", "TRL", "grpo.py --model")
    for row, name in zip(table(PAGES[1], "", "sampling"), names, strict=True):
        mine = [r for r in rows if r["contestant"] == name]
        expected = [
            median(float(r["tokens_per_second"]) for r in mine if r["quantity"] == quantity)
            for quantity in ("sampling", "update", "all")
        ]
        found.append((row, [row[0], *(f"{x:,.0f}" for x in expected)]))
    return found


def cards() -> list[tuple[list[str], list[str]]]:
    """benchmark/README.md's ratios of a card to the CPU: in the order of the settings, or from
    the lowest of the scripts to the highest."""
    found, files = [], {}
    report = table(RESULTS / "gpu" / "report.md", "script", "setting", "device")
    for script, setting, device, *_, ratio in report:
        if device == "cuda":
            files.setdefault(setting.split(", ")[-1], {})[script] = ratio
    for row in table(ROOT / "benchmark" / "README.md", "script", "setting", "times the CPU"):
        name, size = row[0].split("`")[1].removesuffix(".py") if "`" in row[0] else "", row[1]
        if "environments" in size:
            counts = re.findall(r"\d+", size)
            expected = ", ".join(files[f"{count} environments"][name] for count in counts)
        elif name == "smoke":
            expected = files["64 runs"]["smoke"]
        else:
            ratios = files[size if "25 million" in row[0] else "default model"]
            ends = (f(ratios.values(), key=float) for f in (min, max))
            expected = ratios[name] if name else " to ".join(ends)
        found.append((row, [row[0], row[1], expected]))
    return found


TABLES = [
    classic, continuous, published, reinforce, language, followers, preferences, parity, speed,
    trl, cards,
]  # fmt: skip


@pytest.mark.parametrize("made", TABLES, ids=lambda made: made.__name__)
def test_tables_hold_what_the_reports_say(made):
    found = made()
    assert len(found) >= 2
    for row, expected in found:
        assert row == expected


def lost(folder: str, algorithm: str, below: float) -> list[str]:
    """On CartPole-v1, the final evaluations below this one, in the order of the seeds."""
    rows = read_csv(RESULTS / folder / "results.csv")
    mine = [r for r in rows if (r["env_id"], r["algorithm"]) == ("CartPole-v1", algorithm)]
    mine.sort(key=lambda row: int(row["seed"]))
    return [number(x) for row in mine if (x := float(row["eval_return_mean"])) < below]


def exact(folder: str, algorithm: str, key: str = "exact_success") -> float:
    """The mean of a number of the summaries over the seeds."""
    rows = [
        r for r in read_csv(RESULTS / folder / "results.csv") if r["algorithm"] == algorithm
    ]
    return sum(float(row[key]) for row in rows) / len(rows)


def sentences() -> list[tuple[int, str]]:
    """Of README.md (0), benchmark/results/README.md (1) and USAGE.md (2), with the figures of
    the files."""
    sac, a3c, rate = cells("sac"), cells("a3c"), "steps per second"
    pace = {
        name: estimate(sac["HalfCheetah-v5", name, rate])
        for name in ("ppo_continuous-long", "sac")
    }
    ratios = {name: [] for name in SPEED.values()}
    for folder in ("speed-pairs", "speed-pairs-xeon"):
        report = table(RESULTS / folder / "report.md", "environment", "script", "", "n")
        for row in report:
            ratios[row[1]].append(float(estimate(row[-1])))
    slow = ratios.pop("sac")
    low, high = (f(x for pair in ratios.values() for x in pair) for f in (min, max))
    assert f"{min(slow):.1f}" == f"{max(slow):.1f}"
    two, one, a2c = (
        estimate(a3c["CartPole-v1", name, rate]) for name in ("a3c", "a2c-one", "a2c")
    )
    success, before = exact("language", "grpo"), exact("language", "grpo", "base_exact_success")
    (seconds,) = re.findall(r"took (\d+) seconds on one core", OTHERS[1].read_text())
    lost_score = exact("preferences", "ppo_rlhf-rounds-1-kl-0.05")
    gained = sorted(
        float(row[2].replace(" to ", ", ").split(", ")[i])
        for row in table(OTHERS[0], "script", "setting", "times the CPU")
        if "language" in row[0] or "grpo" in row[0]
        for i in (0, -1)
    )
    first = {"algorithm": "gspo", "tag": "losses/clip_frac", "step": "512"}
    logged = read_csv(RESULTS / "grpo" / "logged.csv")
    clips = [float(row["value"]) for row in logged if first.items() <= row.items()]
    assert len(clips) == 10
    return [
        (
            0,
            f"make {low:.1f} to {high:.1f} times as many steps per second, "
            f"SAC {slow[0]:.1f} times",
        ),
        (0, f"right in {before:.0%} of cases before and {success:.0%} after"),
        (0, f"success falls to {lost_score:.2f}"),
        (0, f"success ends at {exact('preferences', 'dpo-no-nll'):.2f}"),
        (2, f"they were {gained[0]:.0f} to {gained[-1]:.0f} times as fast"),
        (2, f"took {float(seconds) / 60:.0f} minutes on one core"),
        (1, f"worst seed {worst('sac', 'Pendulum-v1', 'sac')}. PPO is at"),
        (1, f"worst seed {worst('sac', 'HalfCheetah-v5', 'sac')}. PPO reaches"),
        (1, f"one seed of ten at {worst('defaults', 'Pendulum-v1', 'sac')}, though"),
        (1, f"lose one, seed 5 ({', '.join(lost('defaults', 'a3c', 450))})"),
        (1, f"PPO makes {pace['ppo_continuous-long']} steps in a second and SAC {pace['sac']}"),
        (1, f"(4, 5 and 9: {', '.join(lost('a3c', 'a3c', 450))})"),
        (1, f"A3C makes {two} steps a second to {one}"),
        (1, f"its eight environments makes {a2c} on one core"),
        (1, f"{sum(clips) / 10:.0%} of the tokens of the first batch"),
    ]


def test_sentences_hold_what_the_reports_say():
    pages = [" ".join(page.read_text().split()) for page in PAGES]
    for page, words in sentences():
        assert words in pages[page], words


def test_every_interval_of_the_text_stands_in_a_report():
    known = "\n".join(path.read_text() for path in RESULTS.glob("*/report.md"))
    text = "\n".join(line for line in PAGES[1].read_text().splitlines() if line[:1] != "|")
    found = re.findall(INTERVAL, text)
    assert len(found) > 8
    assert [text for text in found if text not in known] == []


def test_areas_are_those_of_the_curves():
    """The mean over the bins that all runs of the environment have, from curves.csv alone."""
    rows = read_csv(RESULTS / "ablations" / "curves.csv")
    files = read_csv(RESULTS / "ablations" / "results.csv")
    shortest = min(float(row["global_step"]) for row in files)
    lines = {}
    for row in rows:
        if row["axis"] == "steps" and float(row["position"]) <= shortest:
            lines.setdefault((row["algorithm"], row["seed"]), []).append(row["return"])
    low = min(float(x) for line in lines.values() for x in line if x)
    for row in files:
        line = [float(x) if x else low for x in lines[row["algorithm"], row["seed"]]]
        assert float(row["curve_mean"]) == pytest.approx(sum(line) / len(line), rel=1e-9)
    assert span([shortest]) == "99,328"


def without_tables(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("|")]


def test_the_readme_is_short():
    text = PAGES[0].read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1300


@pytest.mark.parametrize("page", [PAGES[0], PAGES[2]], ids=lambda page: page.name)
def test_a_line_or_a_sentence_holds_at_most_three_numbers(page):
    """Outside tables. The digits of a name or a link, as in CartPole-v1, are no number."""
    lines = without_tables(page)
    prose = re.sub(r"^```\w+\n.*?^```", "", "\n".join(lines), flags=re.MULTILINE | re.DOTALL)
    paragraphs = re.split(r"\n\n|\n- ", prose)
    sentences = [s for text in paragraphs for s in re.split(r"[.:]\s", text)]
    for text in (*lines, *sentences):
        bare = re.sub(r"\]\([^)]*\)", "]", text)
        assert len(re.findall(r"(?<![\w.,/=-])-?\d[\d,._]*", bare)) <= 3, text


def anchors(path: Path) -> set[str]:
    """Those that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert links
    for link in links:
        if not link.startswith(("http", "../../deployments/")):  # or GitHub's page of a site
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_ladder_builds_on_what_the_scripts_compare_themselves_with():
    rows = table(PAGES[0], "file", "builds on")
    names = {row[0].strip("`") for row in rows}
    assert names == {p.name for p in ROOT.glob("*.py")}
    for name, parent, *_ in rows:
        compared = re.findall(
            r"^Compared with (.*):$", (ROOT / name.strip("`")).read_text(), re.M
        )
        assert [parent.strip("`")] == (compared or ["-"])
