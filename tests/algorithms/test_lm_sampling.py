"""The GPT, what is sampled from it, and the probabilities that are given to the samples."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import module
from lm_helpers import (
    EOS,
    Table,
    chosen,
    digits_sum,
    doubles,
    every,
    gpt_logits,
    log_pi_of,
    padded,
    real_tokens,
    some,
    task_of,
)


def gpt(sharpness: float = 3.0, **size):
    """Random weights, the same in every test; logits that differ."""
    torch.manual_seed(5)
    policy = module("grpo").GPT(**size)
    policy.head.weight.data.mul_(sharpness)
    return policy


def tokens_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 13, shape, generator=torch.Generator().manual_seed(seed))


# ---- the network ----
def test_the_gpt_by_the_textbook():
    """Logits of whole texts, in double precision, one head and one text after another."""
    policy, tokens = gpt(), tokens_of(0, 4, 11)
    logits = policy(tokens)
    weights = doubles(policy.state_dict())
    for row, text in zip(logits, tokens.tolist(), strict=True):
        expected = gpt_logits(weights, text).detach().float()
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in policy.parameters()) == pytest.approx(102_000, rel=0.05)


def test_a_cache_changes_no_logits():
    """The prompt at first, then one token after another."""
    policy, tokens = gpt(), tokens_of(1, 5, 12)
    cache, parts = policy.new_cache(), [tokens[:, :6], *tokens[:, 6:].split(1, 1)]
    logits = torch.cat([policy(part, cache) for part in parts], 1)
    torch.testing.assert_close(logits, policy(tokens), rtol=1e-4, atol=1e-5)


def test_no_token_looks_ahead():
    policy, tokens = gpt(), tokens_of(2, 3, 10)
    other = tokens.clone()
    other[:, 6] = (other[:, 6] + 1) % 13
    before, after = policy(tokens), policy(other)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().amin((0, 1)).max() > 1e-3


# ---- masks and log-probabilities ----
@every
def test_the_mask_by_a_plain_loop(script):
    """Texts of all lengths, with several ends and with none."""
    rows = list(itertools.product([0, 3, EOS], repeat=5))
    mask = module(script).completion_mask(torch.tensor(rows), EOS)
    assert mask.dtype == torch.bool
    for row, found in zip(rows, mask.tolist(), strict=True):
        expected, ended = [], False
        for token in row:
            expected.append(not ended)
            ended = ended or token == EOS
        assert found == expected


@some
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.9])
def test_log_probabilities_of_completions(script, temperature):
    """At every real token, those of the unpadded text by itself."""
    found, policy = module(script), gpt()
    weights = doubles(policy.state_dict())
    prompts = tokens_of(3, 5, 6)
    completions = padded([(1, 2, EOS), (EOS,), (3, 4, 5, 6), (7, EOS), (8, 8, 8, EOS)])
    log_probs, log_pi = found.log_policy(policy, prompts, completions, temperature)
    assert log_pi.shape == (5, 4, 13)
    mask = found.completion_mask(completions, policy.eos)
    for i, row in enumerate(completions.tolist()):
        row = real_tokens(row)
        expected = log_pi_of(weights, prompts[i].tolist(), row, temperature).detach()
        assert mask[i].sum() == len(row)
        torch.testing.assert_close(
            log_pi[i, : len(row)].double(), expected, rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            log_probs[i, : len(row)].double(), chosen(expected, row), rtol=1e-4, atol=1e-4
        )


@every
def test_no_token_behind_the_end_changes_anything_before_it(script):
    """Neither in the values nor in the gradient of the real tokens' log-probability."""
    found, policy, prompts = module(script), gpt(), tokens_of(4, 2, 6)
    results = []
    for rest in ([EOS, EOS], [EOS, 0], [3, 9]):
        completions = torch.tensor([[1, 2, EOS, *rest], [4, EOS, rest[0], *rest]])
        log_probs, _ = found.log_policy(policy, prompts, completions, 0.7)
        mask = found.completion_mask(completions, policy.eos)
        assert mask.tolist() == [[True] * 3 + [False] * 2, [True] * 2 + [False] * 3]
        policy.zero_grad()
        (log_probs * mask).sum().backward()
        results.append((log_probs[mask].detach(), policy.blocks[0].qkv.weight.grad.clone()))
    for values, gradient in results[1:]:
        torch.testing.assert_close(values, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])


# ---- samples ----
def surprise(counts: np.ndarray, p: np.ndarray) -> float:
    """Pearson's statistic, rare outcomes put together, in standard deviations of chi-square."""
    n, rare = counts.sum(), p * counts.sum() < 8
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(p[~rare], p[rare].sum()) * n
    degrees = len(expected) - 1
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-12)).sum()
    return (statistic - degrees) / math.sqrt(2 * degrees)


def counted(completions: torch.Tensor, answers: list[tuple[int, ...]], end: int) -> np.ndarray:
    place = {answer: i for i, answer in enumerate(answers)}
    counts = np.zeros(len(answers))
    for row in completions.tolist():
        answer = real_tokens(row, end)
        assert row == answer + [end] * (len(row) - len(answer))
        counts[place[tuple(answer)]] += 1
    return counts


@some
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_samples_have_the_enumerated_probabilities(script, temperature):
    """All 40 completions of at most three tokens of a vocabulary of four: chi-square accepts
    their probabilities at this temperature, and rejects those at another."""
    found, policy = module(script), gpt(symbols="012.", width=16)
    weights, prompt = doubles(policy.state_dict()), [2, 0, 1]
    answers = Table(1, 4, 3).answers()
    assert len(answers) == 40

    def probabilities(t: float) -> np.ndarray:
        with torch.no_grad():
            rows = [(log_pi_of(weights, prompt, list(a), t, 3), list(a)) for a in answers]
            return np.exp([chosen(log_pi, row, 3).sum() for log_pi, row in rows])

    torch.manual_seed(1)
    prompts = torch.tensor([prompt]).expand(6_000, -1)
    completions = found.sample(policy, prompts, temperature, 3)
    counts, p = counted(completions, answers, 3), probabilities(temperature)
    assert p.sum() == pytest.approx(1)
    assert abs(surprise(counts, p)) < 4
    assert surprise(counts, probabilities(1.7 - temperature)) > 20


@some
def test_each_row_is_sampled_from_its_own_prompt(script):
    """A table with other probabilities for each of three prompts."""
    policy = Table(3, 3, 3, seed=4)
    torch.manual_seed(2)
    prompts = torch.arange(3).repeat(3_000)[:, None]
    completions = module(script).sample(policy, prompts, 1.0, 3)
    for k in range(3):
        counts = counted(completions[prompts[:, 0] == k], policy.answers(), policy.end)
        assert abs(surprise(counts, policy.probabilities(k))) < 4
        assert surprise(counts, policy.probabilities((k + 1) % 3)) > 20


@some
def test_the_mode_is_the_most_probable_token_each_time(script):
    policy, prompts = gpt(), tokens_of(7, 40, 6)
    state = torch.get_rng_state()
    completions = module(script).sample(policy, prompts, 0.0, 5).tolist()
    assert torch.equal(state, torch.get_rng_state()), "the mode takes no random numbers"
    weights, lengths = doubles(policy.state_dict()), set()
    for prompt, row in zip(prompts.tolist(), completions, strict=True):
        expected = []
        while len(expected) < 5 and EOS not in expected:
            expected.append(gpt_logits(weights, prompt + expected)[-1].argmax().item())
        lengths.add(len(expected))
        assert row == expected + [EOS] * (len(row) - len(expected))
    assert len(lengths) > 1


@every
def test_sampling_stops_when_all_have_ended(script):
    """Not earlier and not later; and at the length in any case."""
    policy, calls = Table(2, 3, 4), []
    with torch.no_grad():
        policy.logits.zero_()
        policy.logits[policy.row(0, ()), 2] = 50.0  # prompt 0 ends at once
        policy.logits[policy.row(1, ()), 0] = 50.0  # prompt 1 after one token
        policy.logits[policy.row(1, (0,)), 2] = 50.0
    forward = policy.forward
    policy.forward = lambda *args, **keep: calls.append(1) or forward(*args, **keep)
    found, prompts = module(script), torch.tensor([[0], [1]])
    assert found.sample(policy, prompts, 1.0, 4).tolist() == [[2, 2], [0, 2]]
    assert len(calls) == 2
    assert found.sample(policy, prompts, 1.0, 1).tolist() == [[2], [0]]


@every
def test_decoding_shows_no_end(script):
    found = module(script)
    task = task_of(script)
    policy = task.policy
    texts = ["12+34=", "99+01="]
    prompts = found.encode(policy, texts)
    assert prompts.shape == (2, 6)
    assert list(map(policy.decode, prompts.tolist())) == texts
    answers = found.encode(policy, ["64..", "001."])
    assert answers.tolist() == [[6, 4, EOS, EOS], [0, 0, 1, EOS]]
    assert list(map(policy.decode, answers.tolist())) == ["64", "001"]
    assert task.rewards(texts, answers).tolist() == [1.0, 1.0]
    assert task.rewards(texts[::-1], answers).tolist() == [0.0, 0.0]
    cut = torch.tensor([[6, 4, 0, 0], [0, 0, 1, EOS]])
    assert task.rewards(texts, cut).tolist() == [0.0, 1.0]
    for text, digits in zip(texts, ([6, 4], [0, 0, 1]), strict=True):  # right, but without end
        assert task.rewards([text], torch.tensor([digits])).tolist() == [0.0]
        assert task.rewards([text], torch.tensor([[*digits, EOS]])).tolist() == [1.0]


# ---- the exact success ----
@some
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_exact_success_is_the_probability_of_the_right_answers(script, temperature):
    """By the double-precision GPT, over all held-out problems of an evaluation."""
    task = task_of(script, eval_episodes=12, temperature=temperature)
    policy = task.policy
    weights, total = doubles(policy.state_dict()), 0.0
    (held_out,) = task.held_out
    symbols = "0123456789+=."
    for text in held_out:
        prompt, row = ([symbols.index(c) for c in s] for s in (text, digits_sum(text) + "."))
        total += chosen(log_pi_of(weights, prompt, row, temperature), row).sum().exp().item()
    assert len(held_out) == 12
    assert task.success(policy) == ("exact_success", pytest.approx(total / 12, rel=1e-3))
