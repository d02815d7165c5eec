"""The essay: its figures stand in benchmark/results, its losses in the notes, its mathematics
is true, and it is short."""

import csv
import itertools
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from reader.page import load, mathml

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmark" / "results"
NOTES, TEXTS = load(ROOT)
ESSAY = tomllib.loads((ROOT / "reader" / "essay.toml").read_text(encoding="utf-8"))
SECTIONS = ESSAY["section"][:-1]  # the last one is about the page
PARENTS = {script["name"]: script["parent"] for script in NOTES["script"]}
FIGURES = {"bandit", "gae", "ppo", "trpo", "squash", "groups", "dpo"}
EVERYTHING = "\n\n".join([ESSAY["lead"], *(section["text"] for section in SECTIONS)])
PARAGRAPHS = [text.strip() for text in re.split(r"\n\s*\n", EVERYTHING) if text.strip()]
DISPLAYED = [text[2:-2].strip() for text in PARAGRAPHS if text.startswith("$$")]
PROSE = " ".join(" ".join(x for x in PARAGRAPHS if not x.startswith("$$")).split())
MEAN, IQM = "evaluation, mean", "evaluation, IQM"


# ---- Its shape ----
def test_every_script_has_a_section_that_ends_at_its_pair():
    scripts = [section["script"] for section in SECTIONS if "script" in section]
    assert len(scripts) == len({*scripts} & {*TEXTS}) >= 14
    for section in SECTIONS:
        assert section["title"]
        assert set(section) <= {"script", "title", "text"}
        pairs = re.findall(r"\{pair (\w+)\.\.(\w+)\}", section["text"])
        parent = PARENTS[section["script"]] if "script" in section else None
        assert pairs == ([(parent, section["script"])] if parent else [])
        if parent:
            assert section["text"].rstrip().endswith("}")
            assert scripts.index(parent) < scripts.index(section["script"])


def test_figures_are_those_that_there_are_and_stand_once():
    found = re.findall(r"\{play (\w+)\}", EVERYTHING)
    assert sorted(found) == sorted(FIGURES)
    folder = ROOT / "reader" / "play"
    assert not folder.exists() or {path.stem for path in folder.glob("*.js")} >= FIGURES


def test_figures_and_pairs_and_equations_are_paragraphs_of_their_own():
    for text in PARAGRAPHS:
        if re.search(r"\{(play|pair) |\$\$", text):
            assert re.fullmatch(r"\{(play \w+|pair \w+\.\.\w+)\}|\$\$[^$]+\$\$", text, re.S)


def test_it_takes_twelve_to_twenty_minutes():
    assert 2800 <= len(EVERYTHING.split()) <= 4500


def test_its_mathematics_can_be_typeset():
    inline = re.findall(r"\$([^$]+)\$", PROSE)
    assert len(DISPLAYED) > 30
    assert len(inline) > 80
    for latex in DISPLAYED:
        assert mathml(latex, True).startswith("<math")
    for latex in inline:
        assert mathml(latex).startswith("<math")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["title"])
def test_flags_are_the_scripts(section):
    for text in section["text"].split("\n"):
        scripts = re.findall(r"`(\w+)\.py`", text) or [section.get("script")]
        for word in re.findall(r"`([^`]+)`", text):
            known = [TEXTS[script] for script in scripts]
            for flag in re.findall(r"--(?:no-)?([a-z-]+)", word):
                field = re.compile(rf"^    {flag.replace('-', '_')}: ", re.MULTILINE)
                assert any(map(field.search, known)), word
            if not word.startswith("--") and not word.endswith(".py"):
                assert all(re.search(rf"\b{word}\b", one) for one in known), word


def test_links_have_addresses_and_sources_links():
    links = re.findall(r"\[([^]]+)\]\(([^)]+)\)", EVERYTHING)
    assert len(links) > 12
    for words, address in links:
        assert re.match(r"https?://|#\w+\.\.\w+/\w+$", address), words
        number = re.search(r"arxiv\.org/abs/(\d{4}\.\d{5})", address)
        known = "\n".join([*TEXTS.values(), *NOTES["papers"].values()])
        assert not number or number[1] in known, address


def test_plain_words():
    for word in ("nobody", "anybody", "but for ", "deserves"):
        assert word not in PROSE.lower(), word
    assert not re.search(r"[.:] Where\b", PROSE)
    for sentence in re.split(r"[.:?]\s", re.sub(r"\$[^$]*\$|\([^)]*\)", "X", PROSE)):
        assert len(sentence.split()) <= 45, sentence


# ---- A symbol means one thing ----
def test_symbols_have_one_meaning():
    formulas = " ".join([*DISPLAYED, *re.findall(r"\$([^$]+)\$", PROSE)]).replace(" ", "")
    assert not re.search(r"R_t|\\hatR|\\hatr|\\sigma\\bigl|\\sigma\(\\hat", formulas)
    assert not re.search(r"\\delta(?!_)", formulas)  # TD errors alone
    assert not re.search(r"(?<![a-zA-Z\\])G(?![_(])", formulas)  # returns alone
    for before, after in itertools.pairwise(re.split(r"\\mathrm\{sigmoid\}", formulas)):
        assert after.startswith(r"\bigl("), (before[-20:], after[:20])


def test_losses_are_those_of_the_notes():
    """Whose values the tests of formulas compare with the functions'."""

    def bare(latex: str) -> str:
        return re.sub(r"\s|\\[,;]", "", latex)

    known = {bare(x) for note in NOTES["note"] for x in note.get("equations", [])}
    losses = [re.split(r", \\qquad", x)[0] for x in DISPLAYED if x.startswith("L = ")]
    assert len(losses) == 10
    for loss in losses:
        assert bare(loss) in known, loss


# ---- Numbers ----
@cache
def cells(folder: str) -> dict[tuple[str, str, str], str]:
    """What a report says: (environment, algorithm, column) -> cell without its interval."""
    found = {}
    text = (RESULTS / folder / "report.md").read_text(encoding="utf-8")
    for caption, block in re.findall(r"^\*(.*)\*\n\n((?:^\|.*\n)+)", text, re.MULTILINE):
        rows = [[x.strip() for x in re.split(r"(?<!\\)\|", line)[1:-1]]
                for line in block.splitlines()]  # fmt: skip
        for row in rows[2:]:
            for column, cell in zip(rows[0], row, strict=True):
                key = re.split(r"[: ]", caption)[0], row[0], column.replace("\\", "")
                found.setdefault(key, cell.partition(" ")[0])
    return found


def source(env_id: str, algorithm: str) -> str:
    """The folder of which the page draws an algorithm on an environment."""
    folders = [x["folder"] for x in NOTES["results"] if (RESULTS / x["folder"]).is_dir()]
    return next(x for x in folders if (env_id, algorithm, "n") in cells(x))


def rows_of(folder: str, algorithm: str) -> list[dict]:
    with (RESULTS / folder / "results.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["algorithm"] == algorithm]


def tell(folder: str, env_id: str, column: str, *algorithms: str) -> tuple[str, ...]:
    """The cells of these algorithms, then n, which is the same for all, failures counted."""
    files, what = cells(folder), f"{folder}, {env_id}, {', '.join(algorithms)}"
    counts = {files[env_id, name, "n"] for name in algorithms}
    failed = {files.get((env_id, name, "failed"), "0") for name in algorithms}
    assert failed == {"0"}, f"{what}: some runs failed, and the essay must say so"
    assert len(counts) == 1, f"{what}: n is {counts}, and the essay says 'n = ... each'"
    return *(files[env_id, name, column] for name in algorithms), *counts


LANDER = source("LunarLander-v3", "a2c")
COUNTS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def count(n: int) -> str:
    return COUNTS[n] if n < len(COUNTS) else "twenty" if n == 20 else str(n)


def claims() -> list[str]:
    """Sentences with the figures of the files."""
    cart, steps, rate = "CartPole-v1", "to threshold, steps", "steps per second"
    *_, n0 = tell(source(cart, "a2c"), cart, "n", "reinforce", "a2c", "trpo")
    pole = {x: cells(source(cart, x))[cart, x, steps] for x in ("reinforce", "a2c", "trpo")}
    bare, critic, n1 = tell("ablations", cart, "area, mean", "reinforce", "reinforce_baseline")
    report = (RESULTS / "ablations/report.md").read_text(encoding="utf-8")
    length = re.search(r"the learning curve over the first ([\d,]+) steps", report)[1]
    lander = tell(LANDER, "LunarLander-v3", IQM, "a2c", "reinforce_baseline")
    a3c, one, two = (cells("a3c")[cart, x, rate] for x in ("a3c", "a2c-one", "a2c"))
    n3 = tell("a3c", cart, MEAN, "a3c", "a2c-one", "a2c")[-1]
    cheetah = tell("continuous", "HalfCheetah-v5", MEAN, "trpo_continuous", "ppo_continuous")
    free, clip, n6 = tell("ablations", cart, MEAN, "ppo-no-clip", "ppo")
    lost = sum(float(x["eval_return_mean"]) < 450 for x in rows_of("ablations", "ppo-no-clip"))
    breakout, n10 = tell("minatar", "MinAtar/Breakout-v1", MEAN, "ppo_images")
    pendulum, n7 = tell("continuous", "Pendulum-v1", MEAN, "ppo_continuous")
    sac, ppo, n8 = tell("sac", "HalfCheetah-v5", MEAN, "sac", "ppo_continuous-long")
    pace = [cells("sac")["HalfCheetah-v5", x, rate] for x in ("sac", "ppo_continuous-long")]
    exact = {x: tell("language", "addition", "exact success", x)
             for x in ("reinforce_lm", "reinforce_lm-no-baseline", "rloo", "grpo",
                       "grpo-no-std")}  # fmt: skip
    with (RESULTS / "language" / "noise.csv").open(encoding="utf-8") as file:
        when = ("0.9", "8192")
        quarter = [row for row in csv.DictReader(file)
                   if (row["baseline_decay"], row["completions"]) == when]  # fmt: skip
    noise = [sum(float(row[side]) / float(row["mean"]) for row in quarter) / len(quarter)
             for side in ("std_with", "std_without")]  # fmt: skip
    base = [float(x["base_exact_success"]) for x in rows_of("language", "reinforce_lm")]
    kl = tell("language", "addition", "KL", "rloo-kl-0.5", "rloo-kl-0")
    names = ("ppo_rlhf-rounds-1-kl-0.05", "ppo_rlhf-rounds-1", "dpo", "dpo-no-nll")
    pairs = {x: tell("preferences", "addition", "exact success", x)[0] for x in names}
    n9 = tell("preferences", "addition", "exact success", *names)[-1]
    key = "Acrobot-v1", "reinforce_baseline"
    reached = cells(source(*key))[(*key, "reached")]
    got, of = map(int, reached.split("/"))
    return [
        f"averages 475 of 500 points after {pole['reinforce']} steps (median, n = {n0})",
        f"the first {length} steps of {cart} rises from {bare} to {critic} (n = {n1} each)",
        f"{count(of - got)} of {count(of)} seeds do not get to -100 with it (n = {of})",
        f"A2C ends at {lander[0]}, REINFORCE with a baseline at {lander[1]} (means "
        f"of the middle half of the seeds, n = {lander[2]} each)",
        f"make {a3c} steps a second, A2C with one environment on one core {one} (n = {n3} "
        "each)",
        f"eight environments makes {two} on one core",
        f"TRPO averages 475 after {pole['trpo']} steps, A2C after {pole['a2c']} (medians, "
        f"n = {n0} each)",
        f"TRPO ends at {cheetah[0]}, PPO at {cheetah[1]} (n = {cheetah[2]} each)",
        f"end at {free} instead of {clip}, and {count(lost)} of {count(int(n6))} end below "
        f"450 (n = {n6} each)",
        f"{breakout} points in a game of MinAtar's Breakout (n = {n10})",
        f"{pendulum} on Pendulum-v1 after 200,000 steps with tuned flags (n = {n7})",
        f"SAC ends at {sac} after 300,000 steps, PPO at {ppo} after 1,000,000 (n = {n8} each)",
        f"It makes {float(pace[0]):.0f} steps a second where PPO makes {pace[1]}",
        f"{sum(base) / len(base):.0%} of its samples are right",
        f"{float(exact['reinforce_lm'][0]):.0%} are right in the end "
        f"({exact['reinforce_lm'][0]}, n = {exact['reinforce_lm'][1]})",
        f"Without $b$ it is {exact['reinforce_lm-no-baseline'][0]}, from the same base models "
        f"(n = {exact['reinforce_lm-no-baseline'][1]})",
        f"gradient is {noise[0]:.1f} times its mean with $b$, {noise[1]:.1f} times without",
        f"{exact['rloo'][0]} against {exact['reinforce_lm'][0]} before (n = {exact['rloo'][1]} "
        "each)",
        f"`--kl-coef 0.5` the divergence ends at {kl[0]} nats, without at {kl[1]} "
        f"(n = {kl[2]} each)",
        f"{exact['grpo'][0]} are right, and {exact['grpo-no-std'][0]} without the division by "
        f"the std (n = {exact['grpo'][1]} each)",
        f"only {pairs[names[0]]} of the answers are right in the end, though the score has "
        f"climbed; at 0.5, still with one round, it is {pairs[names[1]]} (n = {n9} each)",
        f"{pairs['dpo']} are right with the second term, and {pairs['dpo-no-nll']} without it "
        f"(n = {n9} each)",
    ]


FIGURE = rf"(?:-?\d(?:[\d,.]*\d)?%?|\b(?:{'|'.join(COUNTS[1:])}|twenty)\b|never|-)"


def edits(found: list[str]) -> list[str]:
    """What to write instead of what, of each claim that the essay does not make so."""
    wrong = []
    for words in found:
        if words not in PROSE:
            same = FIGURE.join(map(re.escape, re.split(FIGURE, words)))
            old = re.search(same, PROSE)
            said = f'"{old[0]}"' if old else "nothing like it"
            wrong.append(
                f'\n  reader/essay.toml says {said}\n  but should say        "{words}"'
            )
    return wrong


def test_figures_are_those_of_the_files():
    """Made anew, results change: the failure names each edit that the essay needs."""
    found = claims()
    wrong = edits(found)
    assert not wrong, "".join(wrong)
    known = " ".join(found)
    for said in re.findall(r"[^.:;]*\(?n = \d+", PROSE):
        assert said[-30:].split("(")[-1] in known, f"no file stands behind: {said}"
    assert len(re.findall(r"n = \d", PROSE)) == len(re.findall(r"n = \d", known))


def test_what_the_essay_makes_of_its_figures_is_true():
    """Judgements beside numbers: if one fails, the sentence must be thought over."""
    language = {x: np.array([float(row["exact_success"]) for row in rows_of("language", x)])
                for x in ("reinforce_lm", "reinforce_lm-no-baseline", "rloo", "grpo",
                          "grpo-no-std", "dr-grpo", "grpo-kl-0")}  # fmt: skip
    with_b, without = language["reinforce_lm"], language["reinforce_lm-no-baseline"]
    undivided = abs(language["dr-grpo"] - language["grpo-kl-0"])
    bases = [[row["flags"].split("task_kwargs")[1] for row in rows_of("language", x)]
             for x in language]  # fmt: skip
    assert all(x == bases[0] for x in bases)
    widths = [float(x["eval_return_mean"]) for x in rows_of("continuous", "ppo_continuous")
              if x["env_id"] == "HalfCheetah-v5"]  # fmt: skip
    cells_of = cells(source("CartPole-v1", "ppo")), "CartPole-v1", "to threshold, steps"
    steps = {x: float(cells_of[0][cells_of[1], x, cells_of[2]].replace(",", ""))
             for x in ("a2c", "trpo")}  # fmt: skip
    area = tell("ablations", "CartPole-v1", "area, mean", "reinforce", "reinforce_baseline")
    judged = {
        "Without $b$ it is": (without > with_b).all(),
        "What it bought: nothing": (language["rloo"] < with_b).all(),
        "without the division": (language["grpo"] > language["grpo-no-std"]).all(),
        "Dr. GRPO loses nothing": undivided.mean() < 0.002,
        "their 95% intervals are thousands wide": max(widths) - min(widths) > 2000,
        "TRPO averages 475": steps["trpo"] < steps["a2c"],
        "rises from": float(area[1]) > float(area[0]),
    }
    for words, holds in judged.items():
        assert words in PROSE, words
        assert holds, f'reader/essay.toml says "{words}", which the results no longer bear out'


def test_a_stale_figure_names_the_edit(tmp_path, monkeypatch):
    """With results that are made up."""
    names = ("report.md", "results.csv", "noise.csv")
    for path in [path for name in names for path in RESULTS.glob(f"*/{name}")]:
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    old = tell(LANDER, "LunarLander-v3", IQM, "a2c")[0]
    before = edits(claims())
    report = tmp_path / LANDER / "report.md"
    report.write_text(report.read_text(encoding="utf-8").replace(f"| {old} ", "| 199.5 "))
    base = tell("sac", "HalfCheetah-v5", MEAN, "sac")[0]
    report = tmp_path / "sac/report.md"
    report.write_text(report.read_text(encoding="utf-8").replace(f"| {base} ", "| 7,000 "))
    monkeypatch.setattr("test_essay.RESULTS", tmp_path)
    cells.cache_clear()
    try:
        assert len([edit for edit in edits(claims()) if edit not in before]) == 2
        with pytest.raises(AssertionError) as failure:
            test_figures_are_those_of_the_files()
    finally:
        cells.cache_clear()
    message = str(failure.value)
    assert f'says "A2C ends at {old}, REINFORCE with a baseline' in message
    assert 'should say        "A2C ends at 199.5, REINFORCE with a baseline' in message
    assert 'should say        "SAC ends at 7,000 after 300,000 steps, PPO at' in message


def test_defaults_are_the_scripts():
    def default(script: str, name: str) -> float:
        return float(re.search(rf"^    {name}: .*? = (\S+)", TEXTS[script], re.MULTILINE)[1])

    steps = default("ppo", "update_epochs") * default("ppo", "num_minibatches")
    assert (steps, "forty on each batch here, by default" in PROSE) == (40, True)
    segment = "a segment of five steps is enough" in PROSE
    assert (default("a2c", "num_steps"), segment) == (5, True)
    assert default("grpo", "update_epochs") * default("grpo", "num_minibatches") == 1
    assert default("ppo_rlhf", "kl_coef") == 0.5
    assert default("ppo_continuous", "total_timesteps") == 200_000


def test_every_script_but_the_first_says_what_it_bought():
    for section in SECTIONS:
        if section.get("script"):
            assert re.search(r"n = \d", section["text"]), section["title"]


# ---- Mathematics that no function of a script computes ----
def gradients(logits: torch.Tensor) -> torch.Tensor:
    """grad log pi(a) of a softmax, a row for each action, by finite differences."""
    size, rows = 1e-6, []
    for i in range(len(logits)):
        change = torch.zeros_like(logits)
        change[i] = size
        up, down = (logits + change).log_softmax(0), (logits - change).log_softmax(0)
        rows.append((up - down) / (2 * size))
    return torch.stack(rows, 1)


@pytest.fixture
def bandit():
    torch.manual_seed(1)
    logits = torch.randn(3, dtype=torch.float64)
    return logits.softmax(0), gradients(logits), torch.tensor([1.0, 4.0, 2.0]).double()


def test_the_line_with_the_zero(bandit):
    pi, scores, _ = bandit
    torch.testing.assert_close(pi @ scores, torch.zeros(3).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_leaving_one_out_is_exact_and_the_mean_of_the_group_shrinks(bandit, size):
    """All groups of so many completions, by their probability."""
    pi, scores, rewards = bandit
    wanted = (pi * rewards) @ scores
    alone, whole = torch.zeros(3).double(), torch.zeros(3).double()
    for group in itertools.product(range(3), repeat=size):
        earned = rewards[list(group)]
        weight = pi[list(group)].prod()
        alone += weight * (earned[0] - earned[1:].mean()) * scores[group[0]]
        whole += weight * (earned[0] - earned.mean()) * scores[group[0]]
    torch.testing.assert_close(alone, wanted)
    torch.testing.assert_close(whole, (size - 1) / size * wanted)


def test_the_gain_of_a_policy_is_the_sum_of_old_advantages_that_it_meets():
    """Three states, two actions, by solving for values; the third state ends the episode."""
    torch.manual_seed(2)
    gamma, world = 0.9, torch.rand(2, 2, 3).double()  # state, action, next state
    world /= world.sum(-1, keepdim=True)
    rewards = torch.randn(2, 2).double()
    old, new = torch.rand(2, 2, 2).double()
    old, new = old / old.sum(-1, keepdim=True), new / new.sum(-1, keepdim=True)

    def worth(policy, earned):
        flow = (policy.unsqueeze(-1) * world).sum(1)[:, :2]
        return torch.linalg.solve(torch.eye(2) - gamma * flow, (policy * earned).sum(1))

    value = torch.cat([worth(old, rewards), torch.zeros(1)])
    advantages = rewards + gamma * world @ value - value[:2, None]
    gained = worth(new, advantages)
    torch.testing.assert_close(gained, worth(new, rewards) - value[:2])


def test_differences_telescope_and_lambda_averages_them():
    torch.manual_seed(3)
    gamma, lam, n = 0.9, 0.7, 400  # so long that what is behind counts for nothing
    rewards, values = torch.randn(n).double(), torch.randn(n + 1).double()
    deltas = rewards + gamma * values[1:] - values[:-1]
    powers = gamma ** torch.arange(n)

    def ahead(k):
        return (powers[:k] * rewards[:k]).sum() + gamma**k * values[k] - values[0]

    for k in (1, 2, 7):
        torch.testing.assert_close((powers[:k] * deltas[:k]).sum(), ahead(k))
    averaged = sum((1 - lam) * lam ** (k - 1) * ahead(k) for k in range(1, n))
    torch.testing.assert_close(averaged, ((gamma * lam) ** torch.arange(n) * deltas).sum())


def test_the_step_of_the_trust_region_is_the_best_within_the_bound():
    torch.manual_seed(4)
    root, g = torch.randn(4, 4).double(), torch.randn(4).double()
    fisher, bound = root @ root.T + torch.eye(4), 0.01
    direction = torch.linalg.solve(fisher, g)
    step = (2 * bound / (g @ direction)).sqrt() * direction
    torch.testing.assert_close(step @ fisher @ step / 2, torch.tensor(bound).double())
    others = torch.randn(2000, 4).double()
    others *= (2 * bound / ((others @ fisher) * others).sum(1)).sqrt()[:, None]
    assert (others @ g).max() <= step @ g


def test_the_best_policy_for_worth_and_distance_and_the_gradient_of_dpo():
    torch.manual_seed(5)
    u, beta = torch.randn(5).double(), 0.7
    logits = torch.randn(5).double().requires_grad_()
    pi, reference = logits.softmax(0), torch.randn(5).double().softmax(0)
    normaliser = (reference * (u / beta).exp()).sum()
    best = reference * (u / beta).exp() / normaliser

    def divergence(p, q):
        return (p * (p / q).log()).sum()

    goal = (pi * u).sum() - beta * divergence(pi, reference)
    torch.testing.assert_close(goal, -beta * divergence(pi, best) + beta * normaliser.log())
    worth = beta * (pi / reference).log()
    loss = -(worth[1] - worth[3]).sigmoid().log()
    (found,) = torch.autograd.grad(loss, logits)
    scores = gradients(logits.detach())
    weight = beta * (worth[3] - worth[1]).sigmoid().detach()
    torch.testing.assert_close(found, -weight * (scores[1] - scores[3]), atol=1e-8, rtol=0)


def test_the_estimate_of_the_divergence_has_its_mean_and_no_negative_value():
    torch.manual_seed(6)
    pi, reference = torch.randn(2, 6).double().softmax(1)
    k3 = reference / pi - 1 - (reference / pi).log()
    assert (k3 > 0).all()
    torch.testing.assert_close((pi * k3).sum(), (pi * (pi / reference).log()).sum())


def test_ppos_gradient_is_zero_in_two_cases_only():
    from ppo import ppo_loss

    for advantage, ratio in itertools.product((1.0, -1.0), (0.5, 1.0, 1.5)):
        logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        dist, zero = torch.distributions.Categorical(logits=logits), torch.zeros(1)
        old = dist.log_prob(zero).detach() - torch.tensor([ratio]).log()
        given = zero, zero, old, torch.tensor([advantage]), zero, 0.2, 0.0, 0.0
        ppo_loss(dist, *given)[0].backward()
        flat = (advantage, ratio) in ((1.0, 1.5), (-1.0, 0.5))
        assert logits.grad.eq(0).all() == flat
