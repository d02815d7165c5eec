"""The addition, its careless teacher, the base model, and what no training may see."""

import itertools
import json
import sys
from collections import Counter
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import checkpoint_of, module, same
from lm_helpers import (
    Notes,
    carries,
    chosen,
    digits_sum,
    doubles,
    every,
    log_pi_of,
    real_tokens,
    shorten,
    success,
    task_of,
    train,
    trained,
    trained_policy,
    with_reward,
)

PROBLEMS = [f"{a:02}+{b:02}=" for a in range(100) for b in range(100)]
BOTH = list(itertools.product([False, True], repeat=2))


def test_every_sum():
    """Python's, written backwards."""
    for prompt in PROBLEMS:
        a, b = prompt.rstrip("=").split("+")
        assert module("grpo").add(prompt) == str(int(a) + int(b))[::-1]


def test_every_sum_with_forgotten_carries():
    """Column by column, as at school."""
    for prompt, forget in itertools.product(PROBLEMS, BOTH):
        assert module("grpo").add(prompt, forget) == digits_sum(prompt, forget)
    assert module("grpo").add("27+85=") == "211"
    assert module("grpo").add("27+85=", (True, False)) == "201"
    assert module("grpo").add("27+85=", (False, True)) == "21"
    assert module("grpo").add("27+85=", (True, True)) == "2"


def test_held_out_and_training_problems():
    """A tenth of all, drawn without regard to the digits; all to reinforce have a carry; and
    there is no problem in both."""
    task, again = task_of("grpo", eval_episodes=10_000), task_of("grpo", seed=7)
    (training,), (held_out,) = task.training, task.held_out
    assert not set(training) & set(held_out)
    demonstrated, rest = module("grpo").hold_out(PROBLEMS)
    assert set(demonstrated) | set(rest) == set(PROBLEMS)
    assert not set(demonstrated) & set(held_out)
    assert set(training) <= set(demonstrated)
    assert len(demonstrated) == len(set(demonstrated)) == 9000
    assert set(training) | set(held_out) == {p for p in PROBLEMS if carries(p)}
    assert len(held_out) == pytest.approx(0.1 * len(training + held_out), rel=0.1)
    assert {p[1] for p in held_out} == {p[4] for p in held_out} == set("0123456789")
    assert again.training == [training]
    assert again.held_out == [held_out[:500]]


@every
def test_prompts_are_grouped_by_their_tokens(script, monkeypatch):
    """Not by their characters: this policy knows words, and whoever sees only one length needs
    no padding."""
    found, prompts = module(script), ["a b c", "dd ee", "f ggg", "hhh i j", "kkkkk", "l m"] * 9
    prompts = [f"{prompt} {'x' * k}" for k, prompt in enumerate(prompts, 1)]

    class Words(torch.nn.Module):
        eos, context = torch.tensor([0]), 9

        def encode(self, text):
            return [len(word) for word in text.split()]

    made = SimpleNamespace(words=lambda: (Words(), prompts, None))
    monkeypatch.setitem(sys.modules, "words_of_mine", made)
    task = found.Task(found.Args(task="words_of_mine:words", batch_size=3))
    for groups in (task.training, task.held_out):
        assert all(len({len(text.split()) for text in group}) == 1 for group in groups)
    assert sorted(len(group[0].split()) for group in task.training) == [2, 3, 4]
    assert sorted(chain(*task.training, *task.held_out)) == sorted(prompts)
    assert len(task.training) == 3
    assert max(map(len, task.held_out)) <= 3
    torch.manual_seed(0)
    sizes = Counter(len(task.draw(2)[0].split()) for _ in range(2000))
    for group in task.training:
        share = len(group) / sum(map(len, task.training))
        assert sizes[len(group[0].split())] / 2000 == pytest.approx(share, abs=0.05)


def test_every_training_problem_is_drawn_alike():
    torch.manual_seed(0)
    task = task_of("grpo")
    counts = Counter(task.draw(50_000))
    (training,) = task.training
    assert set(counts) <= set(training)
    found = np.array([counts[p] for p in training])
    expected = 50_000 / len(training)
    statistic = ((found - expected) ** 2 / expected).sum()
    assert abs(statistic - len(found)) < 4 * np.sqrt(2 * len(found))


def test_the_base_model_never_sees_a_held_out_problem():
    """Neither encoded nor demonstrated, of all 96,000; and what it sees are all the others."""
    _, notes = trained()
    held_out = set(task_of("grpo", eval_episodes=10_000).held_out[0])
    assert not held_out & set(notes.prompts)
    assert len(notes.prompts) == len(notes.pairs) == 1500 * 64
    assert len(set(notes.prompts)) > 8990


def test_the_teacher_forgets_each_carry_by_itself():
    """Every answer is one that forgotten carries explain, each of the four patterns as often as
    the others; the right answer of a problem with two carries a quarter of the time."""
    _, notes = trained()
    patterns, right, number = Counter(), Counter(), Counter()
    for prompt, answer in notes.pairs:
        answers = [digits_sum(prompt, forget) for forget in BOTH]
        assert answer in answers
        if len(set(answers)) == 4:
            patterns[answers.index(answer)] += 1
        number[carries(prompt)] += 1
        right[carries(prompt)] += answer == digits_sum(prompt)
    total = sum(patterns.values())
    for pattern in range(4):
        assert patterns[pattern] / total == pytest.approx(0.25, abs=0.02)
    for k, expected in enumerate((1.0, 0.5, 0.25)):
        assert right[k] / number[k] == pytest.approx(expected, abs=0.01)
    assert right[0] == number[0] > 10_000


def test_the_share_of_forgotten_carries(monkeypatch):
    """Of a carelessness of 0.2, each by itself."""
    found = module("rloo")
    shorten(found, monkeypatch, 60)
    monkeypatch.setattr(found, "GPT", lambda *x, **y: module("grpo").GPT(*x, **y, width=8))
    notes = Notes(found, carelessness=0.2)
    answers = Counter()
    for prompt, answer in notes.pairs:
        if digits_sum(prompt, (True, False)) != digits_sum(prompt):
            explained = tuple(f for f in BOTH if digits_sum(prompt, f) == answer)
            if carries(prompt) == 2 and len({digits_sum(prompt, f) for f in BOTH}) == 4:
                answers[explained[0]] += 1
    total = sum(answers.values())
    assert total > 500
    assert answers[False, False] / total == pytest.approx(0.64, abs=0.06)
    assert answers[True, True] / total == pytest.approx(0.04, abs=0.06)


def test_the_step_size_of_the_base_model():
    """Fifty steps of warm-up, and down to 0."""
    _, notes = trained()
    assert len(notes.rates) == 1500
    assert notes.rates[:3] == pytest.approx([6e-5, 12e-5, 18e-5])
    assert max(notes.rates) == pytest.approx(3e-3, rel=0.04)
    assert notes.rates[750] == pytest.approx(1.5e-3)
    assert notes.rates[-1] == pytest.approx(2e-6)


def test_a_step_of_imitation_by_hand(monkeypatch):
    """One step of plain gradient descent on the mean cross-entropy of the answers' tokens, ends
    included, with neither prompts nor what is behind an end."""
    found, sgd, states = module("grpo"), torch.optim.SGD, []
    shorten(found, monkeypatch, 1)

    def descent(parameters, lr, betas, fused):
        parameters = list(parameters)
        states.append([p.detach().clone() for p in parameters])
        return sgd(parameters, lr)

    monkeypatch.setattr(torch.optim, "AdamW", descent)
    encode, seen = found.encode, []
    monkeypatch.setattr(
        found, "encode", lambda policy, texts: seen.append(texts) or encode(policy, texts)
    )
    policy, _, _ = found.addition()
    names = [name for name, _ in policy.named_parameters()]
    weights = doubles(dict(zip(names, states[0], strict=True)))
    symbols, total, number = "0123456789+=.", 0.0, 0
    assert len(seen) == 2
    assert len(seen[0]) == 64
    for texts in zip(*seen, strict=True):
        prompt, row = ([symbols.index(c) for c in s] for s in texts[::-1])
        row = real_tokens(row)
        log_probs = chosen(log_pi_of(weights, prompt, row, 1.0), row)
        total, number = total - log_probs.sum(), number + len(row)
    gradients = torch.autograd.grad(total / number, [weights[name] for name in names])
    for name, gradient in zip(names, gradients, strict=True):
        step = policy.get_parameter(name).detach() - weights[name].detach().float()
        expected = -3e-3 / 50 * gradient.float()
        close = 1e-3 * expected.abs().max().item() + 2e-7
        torch.testing.assert_close(step, expected, rtol=1e-2, atol=close)


def test_the_base_model_is_as_careless_as_its_teacher():
    """On held-out problems it is right with probability 0.5 ** carries, and without a carry
    always: known beforehand."""
    policy, (held_out,) = trained_policy(), task_of("grpo", eval_episodes=10_000).held_out
    rng = np.random.default_rng(1)
    by_carries = {k: [p for p in held_out if carries(p) == k] for k in (1, 2)}
    by_carries[0] = [p for p in PROBLEMS if carries(p) == 0]
    for k, problems in by_carries.items():
        chance = [success(policy, p) for p in rng.permutation(problems)[:75]]
        assert np.mean(chance) == pytest.approx(0.5**k, abs=0.04)
        assert np.std(chance) < 0.12


@pytest.mark.parametrize(("script", "temperature"), [("rloo", 1.0), ("grpo", 0.6)])
def test_exact_success_is_the_frequency_of_success(script, temperature):
    """Of the trained base model, sampled a thousand times on each of ten problems."""
    found, policy = module(script), trained_policy()
    torch.manual_seed(3)
    task = task_of(script, eval_episodes=10, temperature=temperature)
    texts = [text for text in task.held_out[0] for _ in range(1000)]
    samples = found.sample(policy, found.encode(policy, texts), temperature, 5)
    rate = task.rewards(texts, samples).mean().item()
    _, exact = task.success(policy)
    assert abs(rate - exact) < 4 * np.sqrt(exact * (1 - exact) / 10_000)
    chances = [success(policy, p, temperature) for p in task.held_out[0]]
    assert exact == pytest.approx(np.mean(chances), abs=1e-4)


def test_all_runs_start_from_one_base_model(tmp_path, monkeypatch):
    """Whatever their seed and whatever random numbers were drawn before; and a run is the same
    from a base model's file as from one made anew."""
    found, weights = module("grpo"), []
    shorten(found, monkeypatch, 2)
    for seed in (1, 2):
        torch.manual_seed(seed * 99)
        weights.append(found.Task(found.Args(seed=seed)).policy)
    for a, b in zip(*(w.parameters() for w in weights), strict=True):
        assert torch.equal(a, b)
    with_reward(found, monkeypatch, lambda prompt, answer: float(len(answer)))
    file = str(tmp_path / "made" / "checkpoint.pt")
    summaries = [
        train("grpo", tmp_path, base_model=path, run_dir=tmp_path / name, learning_rate=0.01)
        for name, path in (("made", None), ("read", file), ("again", file))
    ]
    state = torch.load(file, weights_only=True)["reference"]
    for key, value in state.items():
        assert torch.equal(value, weights[0].state_dict()[key])
    assert len({(s["kl"], s["exact_success"]) for s in summaries}) == 1
    assert summaries[0]["kl"] > 1e-3


@every
def test_the_seed_of_the_base_model(script, monkeypatch):
    """It makes another base model, of the same split into prompts; 0 is the default, and the
    run's own seed is another."""
    found = module(script)
    shorten(found, monkeypatch, 2)

    def task(**flags):
        return found.Task(found.Args(**flags))

    default, zero = task(seed=1), task(seed=2, task_kwargs='{"base_seed": 0}')
    three, again = (task(seed=s, task_kwargs='{"base_seed": 3}') for s in (1, 2))
    weights = [made.policy.state_dict() for made in (default, zero, three, again)]
    assert same(weights[0], weights[1])
    assert same(weights[2], weights[3])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])
    assert three.training == default.training
    assert three.held_out == default.held_out


def test_a_run_says_of_which_base_model_it_is(tmp_path, monkeypatch):
    """And goes on with it: neither the flag nor the model can change on the way."""
    found, run_dir, kwargs = module("rloo"), tmp_path / "run", '{"base_seed": 3}'
    shorten(found, monkeypatch, 2)
    train("rloo", tmp_path, task_kwargs=kwargs)
    assert json.loads((run_dir / "args.json").read_text())["task_kwargs"] == kwargs
    before = checkpoint_of(run_dir)["reference"]
    with pytest.raises(found.BadInput, match="task_kwargs must stay"):
        found.train(found.Args(resume=run_dir, task_kwargs='{"base_seed": 4}'))
    found.train(found.Args(resume=run_dir, total_timesteps=96))
    assert same(checkpoint_of(run_dir)["reference"], before)


@every
def test_reinforcement_never_sees_a_held_out_problem(script, tmp_path, monkeypatch):
    """Nothing but training problems is drawn, encoded or rewarded until the evaluation, but for
    the exact success; not for preferences either."""
    found, seen = module(script), []
    encode, exact, evaluate = found.encode, found.Task.success, found.evaluate
    quiet = []

    def note(policy, texts):
        if not quiet:
            seen.extend(texts)
        return encode(policy, texts)

    def aside(function):
        def call(*args):
            quiet.append(1)
            found = function(*args)
            quiet.pop()
            return found

        return call

    monkeypatch.setattr(found, "encode", note)
    monkeypatch.setattr(found.Task, "success", aside(exact))
    monkeypatch.setattr(found, "evaluate", aside(evaluate))
    train(script, tmp_path, total_timesteps=160)
    (held_out,) = task_of(script, eval_episodes=10_000).held_out
    assert len(seen) == 160 + (2 * 16 if script == "ppo_rlhf" else 0)
    assert not set(seen) & set(held_out)
    assert all(carries(p) for p in seen)
