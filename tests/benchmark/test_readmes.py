"""The READMEs: their figures against the files that they cite, their size, their links."""

import json
import re
from math import ceil, exp, floor, log
from pathlib import Path
from statistics import mean, median

import pytest
from readme_tables import (
    OTHERS,
    PAGES,
    RESULTS,
    ROOT,
    SEARCHES,
    TABLES,
    cells,
    estimate,
    runs,
    searched_and_own,
    table,
)  # fmt: skip
from scipy.stats import trim_mean, ttest_ind

from benchmark import stats
from benchmark.files import read_csv
from benchmark.machine import runs_same_code
from benchmark.variants import script_defaults
from benchmark.words import number, span

INTERVAL = r"-?[\d,.]+ (?:\[-?[\d,.]+, -?(?:[\d,.]*\d|never)\]|\(saturated\))"
OLDER = "made with earlier versions of the scripts"  # what a page says of rows that are
NEEDS_HISTORY = pytest.mark.skipif(
    not (ROOT / ".git").exists() or (ROOT / ".git" / "shallow").exists(),
    reason="only the history tells whether a script's code is what ran",
)
SPEED = ("a2c", "trpo", "ppo", "ppo_continuous", "trpo_continuous", "sac")


@pytest.mark.parametrize("made", TABLES, ids=lambda made: made.__name__)
def test_tables_hold_what_the_reports_say(made):
    """After new results: python -m tests.benchmark.readme_tables."""
    path, columns, rows = made()
    assert len(rows) >= 2
    assert table(path, *columns) == rows


def test_the_table_of_all_scripts_has_all():
    rows = table(PAGES[1], "script", "environment", "steps")
    names = {f"`{path.name}`" for path in ROOT.glob("*.py")}
    assert {row[0] for row in rows} == names


def of_other_scripts() -> dict[str, set[str]]:
    """The scripts of each folder whose code is other now than that of its rows."""
    here = {path.name: path for path in ROOT.glob("*.py")}
    here |= {path.name: path for path in (ROOT / "benchmark" / "peers").glob("*.py")}
    return {
        path.parent.name: {
            row["script"]
            for row in read_csv(path)
            if not runs_same_code(here[row["script"]], row["script_sha256"], row["commit"])
        }
        for path in RESULTS.glob("*/results.csv")
    }


@NEEDS_HISTORY
def test_the_table_of_folders_says_whose_scripts_ran():
    stale, named = of_other_scripts(), {}
    for folder, _, scripts in table(PAGES[1], "folder", "made by `python -m benchmark`"):
        named |= dict.fromkeys(re.findall(r"\[([\w-]+)\]", folder), scripts)
    assert set(stale) <= set(named)
    for folder, others in stale.items():
        assert named[folder] == ("earlier" if others else "as they are"), folder


@NEEDS_HISTORY
def test_a_page_that_quotes_rows_of_other_scripts_says_so():
    """As soon as all rows are of the scripts as they are, no page need say anything."""
    stale = of_other_scripts()
    for page in (*PAGES[:2], *OTHERS[2:]):
        text = " ".join(page.read_text().split())
        quoted = {name for name, scripts in stale.items() if scripts and f"{name}/" in text}
        assert not quoted or OLDER in text.lower(), (page, quoted)


def lost(folder: str, algorithm: str) -> tuple[str, str]:
    """On CartPole-v1, the seeds whose final evaluation is below 450, and these evaluations."""
    mine = [(row["seed"], float(row["eval_return_mean"])) for row in runs(
        folder, "CartPole-v1", algorithm
    )]  # fmt: skip
    found = [(seed, number(value)) for seed, value in mine if value < 450]
    seeds, values = zip(*found, strict=True)
    return f"{', '.join(seeds[:-1])} and {seeds[-1]}" if seeds[1:] else seeds[0], ", ".join(
        values
    )


def exact(folder: str, algorithm: str, key: str = "exact_success") -> float:
    """The mean of a number of the summaries over the seeds."""
    rows = runs(folder, "addition", algorithm)
    return sum(float(row[key]) for row in rows) / len(rows)


def gained_on_each_base(folder: str, algorithm: str, other: str, than: str) -> list[float]:
    """How much higher the exact success of one is than that of another on each base model."""
    sides = [
        {json.loads(row["flags"])["task_kwargs"]: float(row["exact_success"]) for row in found}
        for found in (runs(folder, "addition", algorithm), runs(other, "addition", than))
    ]
    assert sides[0].keys() == sides[1].keys()
    return [sides[0][base] - sides[1][base] for base in sides[0]]


def logged(folder: str, algorithm: str, tag: str) -> tuple[float, float]:
    """What the runs logged under a tag first and last, in the mean over seeds."""
    ends = {}
    for row in read_csv(RESULTS / folder / "logged.csv"):
        if (row["algorithm"], row["tag"]) == (algorithm, tag):
            ends.setdefault(row["seed"], []).append((int(row["step"]), float(row["value"])))
    return tuple(sum(f(x)[1] for x in ends.values()) / len(ends) for f in (min, max))


def speed_sentences() -> list[tuple[int, str]]:
    """Of the pairs on two machines, of many environments, and of TRL."""
    ratios = {name: [] for name in SPEED}
    for folder in ("speed-pairs", "speed-pairs-xeon"):
        report = table(RESULTS / folder / "report.md", "environment", "script", "", "n")
        for row in report:
            ratios[row[1]].append(float(estimate(row[-1])))
            assert row[3] == "3"  # as the text says
    slow = ratios.pop("sac")
    low, high = (f(x for pair in ratios.values() for x in pair) for f in (min, max))
    assert f"{min(slow):.1f}" == f"{max(slow):.1f}"
    images = {
        row[0]: row[-1].replace(" [", " times, ").replace("-", " to ").rstrip("]")
        for row in table(
            RESULTS / "speed-images" / "report.md", "environment", "script", "", "n"
        )
        if row[3] == "5"
    }
    networks = {
        env_id: [
            1 - float(row["environment"])
            for row in read_csv(RESULTS / "speed-images" / "parts.csv")
            if env_id in row["env_id"]
        ]
        for env_id in ("MinAtar", "Pong")
    }
    most, pong = min(networks["MinAtar"]), sorted(networks["Pong"])
    many = {row[0]: row for row in table(RESULTS / "speed" / "report.md", "num_envs", "n")}
    sides = [
        [float(row["curve_mean"]) for row in found]
        for found in (
            runs("peers", "Pendulum-v1", "trpo_continuous"),
            read_csv(RESULTS / "peers" / "scaled.csv"),
        )
    ]
    assert {*map(len, sides)} == {20}
    gap = mean(sides[0]) - mean(sides[1])
    ends = ttest_ind(*sides, equal_var=False).confidence_interval(0.9)
    trl = read_csv(RESULTS / "speed-trl" / "speed.csv")
    ours, theirs = (
        median(
            float(row["tokens_per_second"]) for row in trl
            if (row["contestant"], row["quantity"]) == (name, "all")
        )
        for name in ("grpo.py", "TRL")
    )  # fmt: skip
    return [
        (0, f"make {low:.1f} to {high:.1f} times as many steps per second, SAC {slow[0]:.1f}"),
        (1, f"make {low:.1f} to {high:.1f} times the steps per second of Stable-Baselines3"),
        (1, f"and SAC {slow[0]:.1f} times"),
        (1, f"to {estimate(many['256'][-2])} at 256 for PPO"),
        (1, f"on MinAtar ({images['MinAtar/Breakout-v1']})"),
        (1, f"faster on Pong ({images['ale_py:ALE/Pong-v5']}; n = 5 each"),
        (1, f"On MinAtar {most:.0%} of the time or more goes into networks"),
        (1, f"on Pong {pong[0]:.0%} to {pong[-1]:.0%}"),
        (1, f"only by {gap:.1f} ({ends.low:.1f} to {ends.high:.1f}) once the peer's actions"),
        (1, f"made {ours / theirs:.2f} times the tokens per second of TRL"),
    ]


def language_sentences() -> list[tuple[int, str]]:
    after, before = exact("language", "grpo"), exact("language", "grpo", "base_exact_success")
    modes = [float(row["base_return_mean"]) for row in runs("language", "addition", "grpo")]
    gained = sorted(
        float(row[2].replace(" to ", ", ").split(", ")[i])
        for row in table(OTHERS[0], "script", "setting", "times the CPU")
        if "language" in row[0] or "grpo" in row[0]
        for i in (0, -1)
    )
    (seconds,) = re.findall(r"took (\d+) seconds on one core", OTHERS[1].read_text())
    fallen = [
        logged("preferences", name, "losses/log_prob_chosen") for name in ("dpo-no-nll", "dpo")
    ]
    clipped = logged("grpo", "gspo", "losses/clip_frac")[0]
    others = [exact("grpo", name) for name in {
        row["algorithm"] for row in read_csv(RESULTS / "grpo" / "results.csv")
    } - {"grpo"}]  # fmt: skip
    bases = {name: [float(row["exact_success"]) for row in runs("grpo", "addition", name)]
             for name in ("dapo", "dapo-one-draw", "gspo", "grpo-kl-0")}  # fmt: skip
    lower = [x - y for x, y in zip(bases["dapo"], bases["dapo-one-draw"], strict=True)]
    assert max(lower) < 0
    assert all(x < y for x, y in zip(bases["gspo"], bases["grpo-kl-0"], strict=True))
    rewarded = [
        float(row["eval_return_mean"])
        for row in read_csv(RESULTS / "language" / "results.csv")
        if row["algorithm"].split("-kl")[0] not in ("dpo", "dpo-online", "ppo_rlhf")
    ]
    wrong = ("none", "one", "two", "three", "four")[round(500 * (1 - min(rewarded)))]
    quarter = [
        row for row in read_csv(RESULTS / "language" / "noise.csv")
        if (row["baseline_decay"], row["completions"]) == ("0.9", "8192")
    ]  # fmt: skip
    noise = [
        sum(float(row[side]) / float(row["mean"]) for row in quarter) / 10
        for side in ("std_with", "std_without")
    ]
    assert len(quarter) == 10
    success = {
        row["seed"]: row["exact_success"]
        for row in runs("language", "addition", "reinforce_lm")
    }
    assert {row["seed"]: row["exact_success"] for row in quarter} == success  # the same runs
    scripts = {row["script_sha256"] for row in runs("language", "addition", "reinforce_lm")}
    assert {row["script_sha256"] for row in quarter} == scripts
    ahead = [("language", "reinforce_lm-no-baseline", "language", "reinforce_lm"),
             ("language", "ppo_rlhf-true", "language", "reinforce_lm-no-baseline"),
             ("language", "reinforce_lm", "language", "rloo"),
             ("language", "rloo", "language", "grpo"),
             ("language", "grpo", "language", "grpo-no-std"),
             ("grpo", "grpo", "language", "grpo"),
             ("grpo", "grpo-kl-0", "language", "grpo-kl-0")]  # fmt: skip
    gains = [gained_on_each_base(*pair) for pair in ahead]
    assert min(map(min, gains)) > 0
    no_std, eight, eight_free = [sum(found) / len(found) for found in gains[4:]]
    even = gained_on_each_base("language", "dr-grpo", "language", "grpo-kl-0")
    assert abs(sum(even)) / 10 < 0.001
    easy = 4 * exact("language", "grpo", "base_exact_success") - 1  # the task: 1/2, or 1/4
    right = {0.5: exp(2) / (exp(2) + 1), 0.25: exp(2) / (exp(2) + 3)}  # times exp(R / 0.5)
    divergence = {p: 2 * q - log(p * exp(2) + 1 - p) for p, q in right.items()}
    tilted = [easy * x[0.5] + (1 - easy) * x[0.25] for x in (right, divergence)]
    half = [exact("language", "rloo-kl-0.5", key) for key in ("exact_success", "kl")]
    return [
        (0, f"right in {before:.0%} of cases before and {after:.0%} after"),
        (0, f"success falls to {exact('preferences', 'ppo_rlhf-rounds-1-kl-0.05'):.2f}"),
        (0, f"success ends at {exact('preferences', 'dpo-no-nll'):.2f}"),
        (2, f"they were {gained[0]:.0f} to {gained[-1]:.0f} times as fast"),
        (2, f"took {float(seconds) / 60:.0f} minutes on one core"),
        (1, f"right on {min(modes):.0%} to {max(modes):.0%} of the held-out problems"),
        (1, f"at worst on all but {wrong} of 500, in every run"),
        (
            1,
            f"where theory says: at {half[0]:.3f} and {half[1]:.3f} nats, in theory "
            f"{tilted[0]:.3f} and {tilted[1]:.3f}",
        ),
        (1, f"PPO with the task's reward is first ({exact('language', 'ppo_rlhf-true'):.3f})"),
        (
            1,
            f"REINFORCE ends at {exact('language', 'reinforce_lm'):.3f}, without its moving "
            f"average at {exact('language', 'reinforce_lm-no-baseline'):.3f}, and on all ten",
        ),
        (
            1,
            f"is {noise[0]:.1f} times its mean with the baseline, and {noise[1]:.1f} times "
            "without",
        ),
        (1, f"GRPO loses another {no_std:.3f}"),
        (
            1,
            f"ahead of its defaults by {eight:.3f}, on all ten, and by {eight_free:.3f} where "
            "neither has a KL term",
        ),
        (1, f"end within {max(others) - min(others):.3f} of each other"),
        (1, f"{clipped:.0%} of the tokens of the first batch"),
        (1, f"success is lower with it, by {-sum(lower) / len(lower):.3f} in the mean"),
        (1, f"falls from {fallen[0][0]:.2f} to {fallen[0][1]:.2f} without the likelihood term"),
        (1, f"With it they fall to {fallen[1][1]:.2f}"),
    ]


def areas() -> dict[str, float]:
    """The IQM of the areas of each variant of the sensitivity."""
    found = {}
    for row in read_csv(RESULTS / "sensitivity" / "results.csv"):
        found.setdefault(row["algorithm"], []).append(float(row["curve_mean"]))
    assert {*map(len, found.values())} == {5}
    return {name: trim_mean(several, 0.25) for name, several in found.items()}


def moved(script: str, *flags: str) -> tuple[int, int]:
    """Whole numbers that no area of the variants of these flags lies outside."""
    found = [x for name, x in areas().items() if name.split("=")[0].split(" ")[0] == script
             and name.split("=")[0].split(" ")[-1] in flags]  # fmt: skip
    return floor(min(found)), ceil(max(found))


def control_sentences() -> list[tuple[int, str]]:
    sac, a3c, rate = cells("sac"), cells("a3c"), "steps per second"
    pace = [
        estimate(sac["HalfCheetah-v5", name, rate]) for name in ("ppo_continuous-long", "sac")
    ]
    two, one, a2c = (
        estimate(a3c["CartPole-v1", name, rate]) for name in ("a3c", "a2c-one", "a2c")
    )
    ablations = [estimate(cells("ablations")["CartPole-v1", x, rate]) for x in ("ppo", "trpo")]
    trials = [row for row in read_csv(RESULTS / "tuning.csv") if row["script"] == "a2c.py"]
    scaled = {
        (row["env_id"], row["flags"].removeprefix("--reward-scale ")): row
        for row in trials if row["changed_in_a_copy"] == "" and int(row["n"]) >= 6
    }  # fmt: skip
    unscaled = scaled["CartPole-v1", "1"]["eval_by_seed"].split()
    lake = [float(scaled["FrozenLake-v1", scale]["train_mean"]) for scale in ("0.1", "1")]
    worse = runs("classic", "Acrobot-v1", "a2c")[9]
    worse = [float(worse[f"{what}_return_mean"]) for what in ("eval", "train")]
    losing = [lost("defaults", "reinforce")]
    fallen = sorted(float(x["eval_return_mean"]) for x in runs(
        "classic", "LunarLander-v3", "trpo"
    ))  # fmt: skip
    others, _ = (sorted(map(int, row["eval_by_seed"].split())) for row in read_csv(
        RESULTS / "tuning.csv"
    ) if (row["script"], row["total_timesteps"]) == ("trpo.py", "1000000"))  # fmt: skip
    assert fallen[4] > 200
    assert len(others) == 6
    sea = [float(x["eval_return_mean"]) for x in runs(
        "minatar", "MinAtar/Seaquest-v1", "ppo_images"
    )]  # fmt: skip
    (game,) = runs("atari", "ale_py:ALE/Pong-v5", "ppo_images")
    pong = float(game["eval_return_mean"])
    for row in read_csv(RESULTS / "published.csv"):
        if row["algorithm"] == "ac":  # ours are above, after as many frames or fewer
            mine = runs("minatar", f"{row['env_id']}-v1", "ppo_images")
            recent = [float(x["train_return_mean"]) for x in mine]
            assert sum(recent) / len(recent) > float(row["return"]), row["env_id"]
            if "Seaquest" in row["env_id"]:
                assert sum(x > float(row["return"]) for x in recent) == 2
            assert all(int(x["global_step"]) <= int(row["steps"]) for x in mine)
    learned = cells("classic")["Acrobot-v1", "reinforce_baseline", "reached"]
    assert learned == "8/10"
    last = sorted(
        float(x["eval_return_mean"])
        for x in runs("classic", "Acrobot-v1", "reinforce_baseline")
    )
    calm = moved("ppo", "clip_coef", "gae_lambda", "gamma", "vf_coef", "max_grad_norm")
    lively = moved(
        "ppo", "learning_rate", "update_epochs", "num_minibatches", "num_envs", "num_steps"
    )
    bound = moved(
        "trpo", "target_kl", "cg_max_steps", "cg_damping", "line_search_max_iter",
        "line_search_shrinking_factor",
    )  # fmt: skip
    critic = moved("trpo", "learning_rate", "n_critic_updates", "num_minibatches")
    batch = moved("trpo", "num_envs", "num_steps")
    assert all(x[1] - x[0] > 60 for x in (critic, batch))
    assert bound[1] - bound[0] < 30
    area = areas()  # larger steps, more of them, and smaller batches learn faster
    for flag, fewer, more in (
        ("learning_rate", 0.000333, 0.003), ("num_minibatches", 1, 16),
        ("update_epochs", 3, 30), ("num_envs", 24, 3), ("num_steps", 384, 43),
    ):  # fmt: skip
        assert area[f"ppo {flag}={fewer}"] < area["ppo"] < area[f"ppo {flag}={more}"]
    return [
        (1, f"area stays between {calm[0]} and {calm[1]} for clipping"),
        (1, f"minibatches and batch move it from {lively[0]} to {lively[1]}"),
        (1, f"TRPO's stays between {bound[0]} and {bound[1]} for its KL bound"),
        (1, f"at the same pace ({ablations[1]} and {ablations[0]} steps a second)"),
        (1, f"PPO makes {pace[0]} steps in a second and SAC {pace[1]}"),
        *((1, f"({seeds}: {values})") for seeds, values in losing),
        (1, f"A3C makes {two} steps a second to {one}"),
        (1, f"its eight environments makes {a2c} on one core"),
        (1, "with the mean, and eight with the critic"),
        (1, f"which leaves two at {last[0]:.0f} and {last[1]:.1f}"),
        (1, f"four of ten seeds of LunarLander-v3 at {ceil(fallen[3])} or less"),
        (1, f"one of six others at {others[0]}"),
        (1, f"one run of 4,000,000 steps ends at {pong:.1f} ([atari]"),
        (1, f"its three seeds end at {sea[0]:.1f}, {sea[1]:.1f} and {sea[2]:.1f}"),
        (1, f"three of twenty seeds ({', '.join(x for x in unscaled if int(x) < 450)})"),
        (1, f"is {lake[0]:.2f}, with rewards as they are {lake[1]:.2f} (six seeds"),
        (1, f"at {worse[0]:.0f}, though its last training episodes average {worse[1]:.0f}"),
    ]


def test_sentences_hold_what_the_reports_say():
    pages = [" ".join(page.read_text().split()) for page in PAGES]
    for page, words in speed_sentences() + language_sentences() + control_sentences():
        assert words in pages[page], words


def test_the_page_on_searches_holds_what_they_found():
    """REINFORCE and PPO alike, no gain where the page says so, equal budgets, and others."""
    areas = {(x, y): searched_and_own(x, y) for x, y in {
        (row["env_id"], row["script"]) for row in read_csv(SEARCHES)
    }}  # fmt: skip
    gained = {key: stats.interval(areas[key], stats.improvement)[0] > 0.5 for key in areas}
    for key in (
        ("Pendulum-v1", "ppo_continuous.py"), ("Pendulum-v1", "trpo_continuous.py"),
        ("CartPole-v1", "trpo.py"),
    ):  # fmt: skip
        assert not gained[key], key
    assert gained["CartPole-v1", "reinforce.py"]
    for other in ("ppo.py", "trpo.py"):
        sides = areas["CartPole-v1", "reinforce.py"][0], areas["CartPole-v1", other][0]
        assert ttest_ind(*sides, equal_var=False).pvalue > 0.05
    for row in runs("tuned-CartPole-v1", "CartPole-v1", "reinforce-tuned"):
        flags = json.loads(row["flags"])
        assert flags["norm_returns"] is True
        assert round(flags["learning_rate"] / script_defaults(ROOT / "reinforce.py")[
            "learning_rate"
        ]) == 5  # fmt: skip
    trials, drawn = {}, {}
    for row in read_csv(SEARCHES):
        assert row["seed"] in ("1000", "1001")
        if row["trial"] != "default":
            trials.setdefault((row["env_id"], row["script"]), set()).add(row["trial"])
            rate = json.loads(row["flags"])["learning_rate"]
            drawn.setdefault((row["script"], row["trial"]), set()).add(rate)
    assert {*map(len, trials.values())} == {16}
    text = " ".join(OTHERS[3].read_text().split())
    random = [found for (_, trial), found in drawn.items() if int(trial[-3:]) < 10]
    assert {*map(len, random)} == {1}  # alike on every environment
    lander = [
        [float(row["eval_return_mean"]) for row in runs(
            "tuned-LunarLander-v3", "LunarLander-v3", f"a2c-{kind}"
        )] for kind in ("suite", "tuned")
    ]  # fmt: skip
    assert ttest_ind(*lander, equal_var=False, alternative="greater").pvalue < 0.05
    wide = [
        row for row in read_csv(RESULTS / "tuning.csv")
        if (row["script"], row["env_id"]) == ("a2c.py", "LunarLander-v3")
    ]  # fmt: skip
    count = sum(int(row["n"]) for row in wide)
    assert f"A2C on LunarLander-v3 {len(wide)} settings and {count} runs" in text
    assert "on LunarLander-v3 that of A2C is higher with the suite's flags" in text
    text = " ".join(PAGES[1].read_text().split())
    assert "five times the step size and returns less their mean at each step: level" in text
    what = "For Box actions, and for TRPO on CartPole-v1, no search beat the scripts' own flags"
    assert what in text


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


def test_the_results_are_short():
    words = [word for word in PAGES[1].read_text().split() if re.search(r"\w", word)]
    assert len(words) <= 2000


def test_stored_reports_are_small():
    for path in RESULTS.glob("*/report.md"):
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        assert size < 2_000_000, path


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
