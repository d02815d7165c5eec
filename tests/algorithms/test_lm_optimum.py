"""Where training ends up, against values derived here.

RLOO maximises E[R] - beta * KL(pi || pi_ref), whose maximum over all distributions of
completions is known: pi is proportional to pi_ref * exp(R / beta). With a reward of 1 or 0 a
problem that the base model solves with probability p is then solved with probability
p e^(1/beta) / (p e^(1/beta) + 1 - p) = sigmoid(logit p + 1 / beta).

PPO with the true reward maximises the same: the log-ratios that its tokens pay for add up to
that of the completion, and discounted by 1 the sum of all rewards is R - beta * log-ratio.

DPO fits beta * log(pi / pi_ref), but for a constant of the prompt, to the log-odds of the
preferences by maximum likelihood. These are rationality * R by Bradley and Terry, and the
likelihood is greatest where the two agree: pi is proportional to pi_ref * exp(rationality * R /
beta), whatever the pairs are sampled from, and right with probability sigmoid(logit p +
rationality / beta).

GRPO maximises no such thing, but where a completion is one decision, it comes to rest where the
reward's pull and the KL term's are equal. Let the right answer have probability p, the base
model's q, and lengths L and l of the right and of the wrong answer; in the decision's logit the
gradient of log pi is 1 - p for the right and -p for the wrong.

- Reward. A group of G has k right answers, k binomial. Their advantages are (1 - k/G) / s and
  -(k/G) / s, with s = sqrt(k (G - k) / (G (G - 1))), or 1 without the std. The mean of
  A * (gradient of log pi) / length over the group is k (G - k) / (G^2 s) * w, where
  w = (1 - p) / L + p / l. Its expectation over k is called h(p) * w.
- k3. With r = pi_ref / pi its gradient is (1 - r) * (gradient of log pi). Over samples of pi:
  p (1 - q/p) (1 - p) / L - (1 - p) (1 - (1-q)/(1-p)) p / l = (p - q) * w. So w, and with it the
  lengths, cancel: h(p) = beta * (p - q).
"""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import module
from lm_helpers import (
    BANNED,
    Table,
    digits_sum,
    shorten,
    success,
    trained_policy,
)


def bisect(function, low: float = 1e-6, high: float = 1 - 1e-6) -> float:
    """Where a function that falls crosses 0."""
    assert function(low) > 0 > function(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return low


def pull(p: float, size: int, norm_std: bool) -> float:
    """h(p)."""
    total = 0.0
    for k in range(1, size):
        s = math.sqrt(k * (size - k) / size / (size - 1)) if norm_std else 1.0
        chance = math.comb(size, k) * p**k * (1 - p) ** (size - k)
        total += chance * k * (size - k) / size**2 / s
    return total


def fixed_point(q: float, beta: float, size: int, norm_std=True) -> float:
    return bisect(lambda p: pull(p, size, norm_std) - beta * (p - q))


def rloo_optimum(q: float, beta: float) -> float:
    return q * math.exp(1 / beta) / (q * math.exp(1 / beta) + 1 - q)


def test_the_derivation_by_known_values():
    assert rloo_optimum(0.4, 0.5) == pytest.approx(0.8313, abs=5e-5)
    assert fixed_point(0.4, 1.0, 8) == pytest.approx(0.7531, abs=5e-5)


def converge(script: str, folder, monkeypatch, policy, task: tuple, **flags):
    """Train `policy` on all prompts of the task, (prompts, reward); give it back with its
    reference."""
    found, models = module(script), {}
    start, (prompts, reward) = found.Run.start, task

    def note(run, state, total):
        models.update(state)
        start(run, state, total)

    def rewards(texts, answers, ended):
        return list(map(reward, texts, answers))

    with monkeypatch.context() as patch:
        here = SimpleNamespace(make=lambda: (policy, (prompts, prompts), rewards))
        patch.setitem(sys.modules, "made_here", here)
        patch.setattr(found.Run, "start", note)
        patch.setattr(found.Run, "record_step", count)  # events cost more than the training
        found.train(found.Args(run_dir=folder / "run", task="made_here:make", **flags))
    return models["policy"], models["reference"]


def count(run, rewards, lengths):
    run.global_step += len(rewards)
    run.recent += rewards.tolist()


# ---- tables ----
def toy_reward(prompt: str, answer: str) -> float:
    letters = [int(word) + 1 for word in answer.split()]
    return math.sin(1 + int(prompt) + sum(3**k * x for k, x in enumerate(letters)))


TOY = list("0123"), toy_reward  # it tells apart all 15 completions of the table below
# The right answer is 0, and ends, the wrong one 1 1, and ends.
CHOICE = list("012"), lambda prompt, answer: float(answer == "0")


@pytest.mark.parametrize(("beta", "temperature"), [(0.5, 1.0), (0.3, 0.7)])
def test_rloo_finds_the_best_distribution_of_completions(
    beta, temperature, tmp_path, monkeypatch
):
    """pi_ref * exp(R / beta) but for a factor, over all 15 completions of four prompts; base
    model and policy are those of this temperature."""
    policy = Table(4, 3, 3, seed=3)
    policy, reference = converge(
        "rloo", tmp_path, monkeypatch, policy, TOY,
        total_timesteps=512 * 80, batch_size=512, num_generations=8, kl_coef=beta,
        learning_rate=0.1, temperature=temperature, max_completion_length=3,
        max_grad_norm=math.inf,
    )  # fmt: skip
    answers = policy.answers()
    for k in range(4):
        texts = [policy.decode(a) for a in answers]
        rewards = np.array([toy_reward(str(k), text) for text in texts])
        p, q = (m.probabilities(k, temperature) for m in (policy, reference))
        best = q * np.exp(rewards / beta)
        best /= best.sum()
        assert np.abs(p - best).max() < 0.03
        assert np.abs(q - best).max() > 0.1


RIGHT = Table(3, 3, 3).answers().index((0, 2))
BASE = (0.2, 0.4, 0.7)  # of the three prompts, how often the base model is right


def chooser() -> Table:
    policy = Table(3, 3, 3)
    with torch.no_grad():
        policy.logits.fill_(BANNED)
        for k, q in enumerate(BASE):
            policy.logits[policy.row(k, ()), :2] = torch.tensor([q, 1 - q]).log()
            for answer, token in (((0,), 2), ((1,), 1), ((1, 1), 2)):
                policy.logits[policy.row(k, answer), token] = 0.0
    return policy


@pytest.mark.parametrize(
    ("beta", "size", "flags"),
    [
        (1.0, 8, {}),
        (0.5, 2, {}),
        (0.3, 8, {"norm_std": False}),
        (0.5, 8, {"length_norm": "max"}),
        (0.4, 4, {"length_norm": "max", "norm_std": False}),
    ],
    ids=str,
)
def test_grpo_comes_to_rest_at_its_fixed_points(beta, size, flags, tmp_path, monkeypatch):
    """One decision: the right answer takes two tokens, the wrong one three."""
    policy = chooser()
    policy, _ = converge(
        "grpo", tmp_path, monkeypatch, policy, CHOICE,
        total_timesteps=512 * 80, batch_size=512, num_generations=size, kl_coef=beta,
        learning_rate=0.1, max_completion_length=3, max_grad_norm=math.inf, **flags,
    )  # fmt: skip
    for k, q in enumerate(BASE):
        expected = fixed_point(q, beta, size, flags.get("norm_std", True))
        p = policy.probabilities(k)[RIGHT]
        assert p == pytest.approx(expected, abs=0.015)
        assert abs(expected - q) > 0.05


def test_reinforce_finds_the_right_answer(tmp_path, monkeypatch):
    """Nothing holds it back."""
    policy = chooser()
    policy, reference = converge(
        "reinforce_lm", tmp_path, monkeypatch, policy, CHOICE, total_timesteps=256 * 60,
        batch_size=256, learning_rate=0.2, max_completion_length=3,
    )  # fmt: skip
    for k, q in enumerate(BASE):
        assert reference.probabilities(k)[RIGHT] == pytest.approx(q)
        assert policy.probabilities(k)[RIGHT] > 0.97


# ---- the GPT ----
def right(prompt: str, answer: str) -> float:
    return float(answer == digits_sum(prompt))


def test_rloo_on_a_gpt_finds_the_optimum_of_every_problem(tmp_path, monkeypatch):
    """From the trained base model, of which each problem's p is measured."""
    problems = ["27+85=", "13+49=", "66+27=", "08+94=", "51+39=", "76+76=", "40+85=", "92+11="]
    policy, reference = converge(
        "rloo", tmp_path, monkeypatch, trained_policy(), (problems, right),
        total_timesteps=40 * 256, batch_size=256, num_generations=8, kl_coef=0.5,
        max_completion_length=4, learning_rate=1e-3,
    )  # fmt: skip
    chances, best = [], []
    for problem in problems:
        best.append(rloo_optimum(success(reference, problem), 0.5))
        chances.append(success(policy, problem))
    assert np.mean(chances) == pytest.approx(np.mean(best), abs=0.015)
    assert np.abs(np.subtract(chances, best)).max() < 0.08


PROBLEMS = ["27+85=", "13+49=", "66+27=", "08+94=", "51+39=", "76+76="]


def coherent(script: str, monkeypatch):
    """A base model whose teacher forgets all carries of a problem or none, so that an answer is
    one decision, and right with probability 0.4. It has seen these few problems alone, for a
    short while."""
    found, rand = module(script), torch.rand
    with monkeypatch.context() as patch:
        shorten(found, patch, 100)
        patch.setattr(found, "hold_out", lambda prompts: (PROBLEMS, PROBLEMS))
        patch.setattr(torch, "rand", lambda rows, carries: rand(rows, 1).expand(rows, carries))
        policy, _, _ = found.addition(carelessness=0.6)
    for problem in PROBLEMS:  # all but two answers are next to impossible
        assert 0.2 < success(policy, problem) < 0.7
    return policy


def test_grpo_on_a_gpt_comes_to_rest_at_its_fixed_points(tmp_path, monkeypatch):
    policy, reference = converge(
        "grpo", tmp_path, monkeypatch, coherent("grpo", monkeypatch),
        (PROBLEMS, right), total_timesteps=56 * 256, batch_size=256,
        num_generations=8, kl_coef=1.0, max_completion_length=4, learning_rate=1e-3,
    )  # fmt: skip
    chances, rest = [], []
    for problem in PROBLEMS:
        rest.append(fixed_point(success(reference, problem), 1.0, 8))
        chances.append(success(policy, problem))
    assert np.mean(chances) == pytest.approx(np.mean(rest), abs=0.015)
    assert np.abs(np.subtract(chances, rest)).max() < 0.08


def shifted(p: float, logits: float) -> float:
    """sigmoid(logit p + logits)."""
    return 1 / (1 + (1 - p) / p * math.exp(-logits))


PPO = {"kl_coef": 0.5, "reward": "true", "total_timesteps": 10_240, "learning_rate": 1e-3}
DPO = {"kl_coef": 1.0, "rationality": 2.0, "online": True, "nll_coef": 0.0}
DPO |= {"total_timesteps": 20_480, "learning_rate": 3e-4}


@pytest.mark.parametrize(("script", "flags"), [("ppo_rlhf", PPO), ("dpo", DPO)])
def test_ppo_and_dpo_on_a_gpt_find_the_optimum(script, flags, tmp_path, monkeypatch):
    """The logit shifts by 2, which is 1 / kl_coef and rationality / kl_coef."""
    policy, reference = converge(
        script, tmp_path, monkeypatch, coherent(script, monkeypatch),
        (PROBLEMS, right), batch_size=512, max_completion_length=4, **flags,
    )  # fmt: skip
    before = [success(reference, problem) for problem in PROBLEMS]
    best = [shifted(p, 2.0) for p in before]
    chances = [success(policy, problem) for problem in PROBLEMS]
    assert np.mean(best) - np.mean(before) > 0.3
    assert np.mean(chances) == pytest.approx(np.mean(best), abs=0.02)
    assert np.abs(np.subtract(chances, best)).max() < 0.12
