"""The losses of the language models: values by loops, gradients by enumeration of all
completions, and what each estimate of the KL divergence is and pulls towards."""

import math

import numpy as np
import pytest
import torch
from lm_helpers import Table, padded

import grpo
import reinforce_lm
import rloo

LENGTHS = [3, 1, 5, 2, 4, 5, 1, 2]  # of completions, ends included


def batch(seed: int, dtype=torch.float64):
    """Log-probabilities that need a gradient, older and the reference's, the mask, advantages;
    behind the ends numbers that must not count."""
    g = torch.Generator().manual_seed(seed)
    new, old, ref = -torch.rand(3, 8, 5, generator=g, dtype=dtype) - 0.1
    advantages = torch.randn(8, generator=g, dtype=dtype)
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    return new.requires_grad_(), old, ref, mask, advantages


def grpo_loss(new, old, ref, mask, advantages, low=0.2, high=0.2, kl_coef=0.0, **flags):
    """Of a whole minibatch."""
    args = grpo.Args(clip_coef_low=low, clip_coef_high=high, kl_coef=kl_coef, **flags)
    return grpo.grpo_loss(new, old, ref, mask, advantages, args)


def grpo_by_hand(new, old, ref, advantages, low, high, kl_coef, constant):
    """Value and gradient, token by token."""
    total, gradient = 0.0, np.zeros_like(new)
    for i, length in enumerate(LENGTHS):
        share = 1 / 8 / (length if constant is None else constant)
        for t in range(length):
            ratio, a = math.exp(new[i, t] - old[i, t]), advantages[i]
            clipped = min(max(ratio, 1 - low), 1 + high)
            r = math.exp(ref[i, t] - new[i, t])
            k3 = r - 1 - math.log(r)
            total -= share * (min(ratio * a, clipped * a) - kl_coef * k3)
            surrogate = ratio * a if ratio * a <= clipped * a else 0.0
            gradient[i, t] = -share * (surrogate - kl_coef * (1 - r))
    return total, gradient


@pytest.mark.parametrize("script", [reinforce_lm, rloo])
def test_reinforce_loss_by_hand(script):
    new, _, _, mask, advantages = batch(0)
    loss = script.reinforce_loss(new, mask, advantages)
    loss.backward()
    total, gradient = 0.0, np.zeros((8, 5))
    for i, length in enumerate(LENGTHS):
        for t in range(length):
            total -= advantages[i].item() * new[i, t].item() / 8
            gradient[i, t] = -advantages[i].item() / 8
    assert loss.item() == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(new.grad, gradient, rtol=1e-12, atol=0)


@pytest.mark.parametrize("constant", [None, 5, 9])
@pytest.mark.parametrize(
    ("low", "high", "kl_coef"),
    [(0.2, 0.2, 0.0), (0.2, 0.2, 0.04), (0.1, 0.3, 0.5), (0.3, 0.1, 1.0), (1.0, 1e3, 0.7)],
)
def test_grpo_loss_by_hand(low, high, kl_coef, constant):
    """Clip-higher and clip-lower, a completion's length or a constant."""
    new, old, ref, mask, advantages = batch(1)
    flags = {"length_norm": "max", "max_completion_length": constant} if constant else {}
    loss, clip_frac = grpo_loss(new, old, ref, mask, advantages, low, high, kl_coef, **flags)
    loss.backward()
    numbers = [x.detach().numpy() for x in (new, old, ref, advantages)]
    total, gradient = grpo_by_hand(*numbers, low, high, kl_coef, constant)
    assert loss.item() == pytest.approx(total, rel=1e-10)
    np.testing.assert_allclose(new.grad, gradient, rtol=1e-9, atol=1e-15)
    ratio = np.exp(numbers[0] - numbers[1])
    clipped = ((ratio < 1 - low) | (ratio > 1 + high))[mask.numpy()]
    assert clip_frac.item() == pytest.approx(np.mean(clipped))


@pytest.mark.parametrize(
    ("ratio", "advantage", "pulls", "counts"),
    [
        (1.25, 1.0, True, False),  # higher than the usual clip, not than this one
        (1.35, 1.0, False, True),
        (1.35, -1.0, True, True),  # it must be able to come back
        (0.85, -1.0, False, True),
        (0.85, 1.0, True, True),
        (0.95, -1.0, True, False),
    ],
)
def test_clip_higher_stops_only_harmful_steps(ratio, advantage, pulls, counts):
    """Low 0.1 and high 0.3."""
    new = torch.tensor([[math.log(ratio)]], requires_grad=True)
    zero, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    loss, clip_frac = grpo_loss(new, zero, zero, mask, torch.tensor([advantage]), 0.1, 0.3)
    loss.backward()
    assert new.grad.item() == (pytest.approx(-advantage * ratio) if pulls else 0.0)
    assert clip_frac.item() == counts


def test_what_is_clipped_holds_no_gradient_of_the_kl_back():
    """The clip is of the surrogate alone."""
    new = torch.tensor([[math.log(1.5)]], requires_grad=True)
    zero, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    loss, _ = grpo_loss(new, zero, zero, mask, torch.ones(1), kl_coef=0.1)
    loss.backward()
    assert new.grad.item() == pytest.approx(0.1 * (1 - 1 / 1.5))


def objective(paper: str, new, old, advantages, low: float, high: float):
    """What each paper maximises, of one group, written as there: from the probabilities of the
    tokens, completion by completion and token by token."""
    total, tokens, size = torch.zeros(()), sum(LENGTHS), len(LENGTHS)
    for i, length in enumerate(LENGTHS):
        p, q, a = new[i, :length].exp(), old[i, :length].exp(), advantages[i]
        if paper == "GSPO":  # s_i to the power of 1 / |y_i|, and one term for a completion
            s = (p.prod() / q.prod()) ** (1 / length)
            total = total + torch.min(s * a, s.clamp(1 - low, 1 + high) * a) / size
            continue
        for t in range(length):
            r = p[t] / q[t]
            inside = r.clamp(1 - low, 1 + high)
            if paper == "CISPO":  # sg(r) A log pi, over all tokens
                total = total + inside.item() * a * p[t].log() / tokens
            elif paper == "DAPO":
                total = total + torch.min(r * a, inside * a) / tokens
            elif paper == "Dr. GRPO":  # no length; its constant is in the code that it names
                total = total + torch.min(r * a, inside * a) / size / 5
    return total


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.28), (1.0, 4.0), (0.05, 0.01), (3e-4, 4e-4)])
@pytest.mark.parametrize(
    ("paper", "flags"),
    [
        ("DAPO", {"length_norm": "mean"}),
        ("Dr. GRPO", {"length_norm": "max"}),
        ("GSPO", {"sequence_ratio": True}),
        ("CISPO", {"cispo": True, "length_norm": "mean"}),
    ],
)
def test_the_followers_by_hand(paper, flags, low, high):
    new, old, ref, mask, advantages = batch(2)
    loss, clip_frac = grpo_loss(new, old, ref, mask, advantages, low, high, **flags)
    expected = -objective(paper, new, old, advantages, low, high)
    found, right = (torch.autograd.grad(x, new)[0] for x in (loss, expected))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-15)
    clipped = []
    for i, length in enumerate(LENGTHS):
        ratio = (new[i, :length] - old[i, :length]).exp()
        if paper == "GSPO":
            ratio = ratio.prod() ** (1 / length) * torch.ones(length)
        clipped += ((ratio < 1 - low) | (ratio > 1 + high)).tolist()
    assert clip_frac.item() == pytest.approx(np.mean(clipped))


def test_what_the_followers_change_at_ratio_1():
    """A sequence's ratio has the gradient of the tokens' with each one's own length, and
    CISPO's is PPO's: both need a second step on a batch to differ."""
    new, _, ref, mask, advantages = batch(4)
    old, slopes = new.detach(), []
    for flags in ({}, {"sequence_ratio": True}, {"cispo": True}):
        loss, clip_frac = grpo_loss(new, old, ref, mask, advantages, 0.0, 0.0, **flags)
        assert clip_frac == 0
        slopes.append(torch.autograd.grad(loss, new)[0])
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(slopes[2], slopes[0], rtol=1e-12, atol=0)


# ---- advantages ----
def test_the_group_of_two():
    rewards = torch.tensor([1.0, 0.0])
    torch.testing.assert_close(
        grpo.group_relative(rewards, 2, True), torch.tensor([0.5**0.5, -(0.5**0.5)])
    )
    assert grpo.group_relative(rewards, 2, False).tolist() == [0.5, -0.5]
    assert rloo.leave_one_out(rewards, 2).tolist() == [1.0, -1.0]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_advantages_of_groups_by_loops(size):
    """Groups lie side by side, and none knows of another."""
    rng = np.random.default_rng(size)
    rewards = rng.normal(rng.normal(size=(5, 1)) * 3, rng.uniform(0.1, 4, (5, 1)), (5, size))
    rewards = rewards.astype(np.float32)
    centred, scaled, others = (np.zeros_like(rewards) for _ in range(3))
    for g in range(5):
        mean = sum(rewards[g]) / size
        std = math.sqrt(sum((r - mean) ** 2 for r in rewards[g]) / (size - 1))
        for i in range(size):
            centred[g, i] = rewards[g, i] - mean
            scaled[g, i] = (rewards[g, i] - mean) / std
            rest = [rewards[g, j] for j in range(size) if j != i]
            others[g, i] = rewards[g, i] - sum(rest) / len(rest)
    flat = torch.tensor(rewards).flatten()
    for found, expected in (
        (grpo.group_relative(flat, size, False), centred),
        (grpo.group_relative(flat, size, True), scaled),
        (rloo.leave_one_out(flat, size), others),
        (rloo.leave_one_out(flat, size), size / (size - 1) * centred),
    ):
        assert found.shape == (5 * size,)
        np.testing.assert_allclose(found, expected.flatten(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -1 / 3, 1e6 + 0.1])
@pytest.mark.parametrize("size", [2, 3, 7, 8])
def test_equal_rewards_teach_nothing(reward, size):
    """Exactly 0: a rounding error would be blown up by GRPO's std, and by Adam."""
    rewards = torch.full((2 * size,), reward)
    for norm_std in (True, False):
        assert grpo.group_relative(rewards, size, norm_std).eq(0).all()
    assert rloo.leave_one_out(rewards, size).eq(0).all()
    new = torch.randn(2 * size, 4, requires_grad=True)
    mask = torch.ones(2 * size, 4, dtype=torch.bool)
    advantages = grpo.group_relative(rewards, size, True)
    same = new.detach()
    grpo_loss(new, same, same, mask, advantages)[0].backward()
    assert new.grad.eq(0).all()


@pytest.mark.parametrize("offset", [1e8, -3e12])
def test_small_differences_of_large_rewards(offset):
    """Taken in double precision, and returned in single."""
    rewards = torch.tensor([0.0, 1.0, 4.0, 1.5, 7.0, 7.5, 7.0, 7.0], dtype=torch.float64)
    for advantages in (
        lambda r: grpo.group_relative(r, 4, True),
        lambda r: grpo.group_relative(r, 4, False),
        lambda r: rloo.leave_one_out(r, 4),
    ):
        assert advantages(rewards + offset).tolist() == advantages(rewards).tolist()
        assert advantages(rewards).dtype == torch.float32


def test_advantages_do_not_change_with_the_rewards_level_and_unit():
    """By the std: a tenfold reward is the same advantage; without it ten times as much."""
    rewards = torch.tensor([0.0, 1.0, 4.0, 1.0, 7.0, 7.5, 7.0, 7.0])
    for norm_std, factor in ((True, 1.0), (False, 10.0)):
        a = grpo.group_relative(rewards, 4, norm_std)
        b = grpo.group_relative(10 * rewards + 3, 4, norm_std)
        torch.testing.assert_close(factor * a, b)


# ---- expected gradients, by enumeration ----
REWARDS = np.random.default_rng(5).normal(size=100)
TEMPERATURE = 0.7


def finite_differences(policy: Table, objective) -> np.ndarray:
    """The gradient of objective() in the policy's logits."""
    found = np.zeros(policy.logits.shape)
    with torch.no_grad():
        for place in np.ndindex(*found.shape):
            for sign in (1, -1):
                policy.logits[place] += sign * 1e-5
                found[place] += sign * objective() / 2e-5
                policy.logits[place] -= sign * 1e-5
    return found


def tables() -> tuple[Table, Table]:
    return Table(1, 3, 2, seed=1).double(), Table(1, 3, 2, seed=2).double()


def expected_gradient(policy: Table, loss, size: int) -> np.ndarray:
    """Over all groups of `size` completions: the mean of the negative gradient of
    loss(completions, their rewards)."""
    answers, p = policy.answers(), policy.probabilities(0, TEMPERATURE)
    assert p.sum() == pytest.approx(1)
    total = torch.zeros(())
    for members in np.ndindex(*[len(answers)] * size):
        rewards = torch.tensor(REWARDS[list(members)])
        weight = math.prod(p[list(members)])
        completions = padded([answers[m] for m in members], policy.end)
        total = total + weight * loss(completions, rewards)
    (gradient,) = torch.autograd.grad(-total, policy.logits)
    return gradient.numpy()


def scored(script, policy, completions):
    prompts = torch.zeros(len(completions), 1, dtype=torch.long)
    log_probs, _ = script.log_policy(policy, prompts, completions, TEMPERATURE)
    return log_probs, script.completion_mask(completions, policy.eos), prompts


@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_reinforce_expects_the_gradient_of_the_expected_reward(baseline):
    """Whatever the baseline, so long as it depends on no completion."""
    policy, _ = tables()

    def loss(completions, rewards):
        log_probs, mask, _ = scored(reinforce_lm, policy, completions)
        return reinforce_lm.reinforce_loss(log_probs, mask, rewards - baseline)

    def objective():
        p = policy.probabilities(0, TEMPERATURE)
        return p @ REWARDS[: len(p)]

    expected = finite_differences(policy, objective)
    assert abs(expected).max() > 0.05
    np.testing.assert_allclose(expected_gradient(policy, loss, 1), expected, atol=1e-7)


@pytest.mark.parametrize(("size", "kl_coef"), [(2, 0.0), (2, 0.5), (3, 0.5)])
def test_rloo_expects_the_gradient_of_the_reward_minus_the_kl(size, kl_coef):
    """Leave-one-out is unbiased, k1 in the reward has the gradient of KL(pi || pi_ref), and the
    KL divergence is that of whole completions."""
    policy, reference = tables()

    def loss(completions, rewards):
        log_probs, mask, prompts = scored(rloo, policy, completions)
        with torch.no_grad():
            texts = prompts, completions, TEMPERATURE
            (now, _), (ref, _) = (rloo.log_policy(x, *texts) for x in (policy, reference))
            penalised = rewards - kl_coef * ((now - ref) * mask).sum(1)
        return rloo.reinforce_loss(log_probs, mask, rloo.leave_one_out(penalised, size))

    def objective():
        p, q = (model.probabilities(0, TEMPERATURE) for model in (policy, reference))
        return p @ (REWARDS[: len(p)] - kl_coef * np.log(p / q))

    expected = finite_differences(policy, objective)
    np.testing.assert_allclose(expected_gradient(policy, loss, size), expected, atol=1e-7)


@pytest.mark.parametrize("size", [2, 3])
def test_dr_grpo_expects_the_gradient_of_the_expected_reward_but_for_a_constant(size):
    """No std, a constant in place of the length, no KL: (G - 1) / G / max_length times it, and
    so a step of RLOO's direction. With 1 / length it is another direction."""
    policy, _ = tables()

    def loss(completions, rewards, length_norm="max"):
        log_probs, mask, _ = scored(grpo, policy, completions)
        old, advantages = log_probs.detach(), grpo.group_relative(rewards, size, False)
        flags = {"length_norm": length_norm, "max_completion_length": 4}
        return grpo_loss(log_probs, old, old - 7, mask, advantages, **flags)[0]

    def objective():
        p = policy.probabilities(0, TEMPERATURE)
        return p @ REWARDS[: len(p)]

    expected = finite_differences(policy, objective) * (size - 1) / size / 4
    np.testing.assert_allclose(expected_gradient(policy, loss, size), expected, atol=1e-8)
    other = expected_gradient(policy, lambda *x: loss(*x, length_norm="own"), size)
    cosine = (other * expected).sum() / np.linalg.norm(other) / np.linalg.norm(expected)
    assert cosine < 0.99


# ---- estimates of the KL divergence ----
def kl_setting():
    """Logits of one token out of five, and the reference's log-probabilities."""
    logits = torch.tensor([0.3, -1.2, 0.8, 0.0, 1.5], dtype=torch.float64, requires_grad=True)
    log_ref = torch.tensor([1.0, 0.2, -0.7, 0.4, -0.1], dtype=torch.float64).log_softmax(0)
    p, q = logits.detach().softmax(0).numpy(), log_ref.exp().numpy()
    return logits, log_ref, p, q


def kl_terms(logits, log_ref):
    """grpo_loss of nothing but the KL term for each of the five tokens, drawn in turn."""
    log_probs = logits.log_softmax(0)
    mask, zero = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1)
    return torch.stack([
        grpo_loss(
            log_probs[k].view(1, 1), log_probs[k].detach().view(1, 1), log_ref[k].view(1, 1),
            mask, zero, kl_coef=1.0,
        )[0]
        for k in range(5)
    ])  # fmt: skip


def test_k1_and_k3_have_the_mean_of_the_kl_divergence():
    logits, log_ref, p, q = kl_setting()
    kl = sum(p * np.log(p / q))
    k1 = (logits.log_softmax(0) - log_ref).detach().numpy()
    k3 = kl_terms(logits, log_ref).detach().numpy()
    assert p @ k1 == pytest.approx(kl)
    assert p @ k3 == pytest.approx(kl)
    assert (k3 >= 0).all()
    assert k1.min() < 0
    assert abs(kl - sum(q * np.log(q / p))) > 0.01


def test_what_the_gradient_of_k3_in_the_loss_pulls_towards():
    """In the logits, KL(pi_ref || pi) has the gradient pi - pi_ref, and KL(pi || pi_ref) the
    gradient pi * (log(pi / pi_ref) - KL): k3 has the former's."""
    logits, log_ref, p, q = kl_setting()
    terms = kl_terms(logits, log_ref)
    (gradient,) = torch.autograd.grad(terms @ torch.tensor(p), logits)
    forward, reverse = p - q, p * (np.log(p / q) - sum(p * np.log(p / q)))
    np.testing.assert_allclose(gradient, forward, rtol=1e-9)
    assert abs(forward - reverse).max() > 0.05


def test_what_k1_in_the_reward_pulls_towards():
    """RLOO's: the gradient of KL(pi || pi_ref)."""
    logits, log_ref, p, q = kl_setting()
    log_probs = logits.log_softmax(0)
    k1 = (log_probs - log_ref).detach()
    mask = torch.ones(1, 1, dtype=torch.bool)
    losses = [
        rloo.reinforce_loss(log_probs[k].view(1, 1), mask, -k1[k : k + 1]) for k in range(5)
    ]
    (gradient,) = torch.autograd.grad(torch.stack(losses) @ torch.tensor(p), logits)
    reverse = p * (np.log(p / q) - sum(p * np.log(p / q)))
    np.testing.assert_allclose(gradient, reverse, rtol=1e-9)


# ---- padding and the end ----
FOLLOWERS = [
    {}, {"length_norm": "mean"}, {"length_norm": "max"}, {"sequence_ratio": True},
    {"cispo": True},
]  # fmt: skip


@pytest.mark.parametrize("flags", FOLLOWERS, ids=str)
def test_padding_changes_no_loss_and_no_gradient(flags):
    """Two more columns behind the ends, whatever stands in them."""
    results = []
    for extra in (0, 2):
        new, old, ref, mask, advantages = batch(3)
        rubbish = torch.full((8, extra), -50.0, dtype=torch.float64)
        wide = [torch.cat([x, rubbish * (k + 1)], 1) for k, x in enumerate((new, old, ref))]
        mask = torch.cat([mask, torch.zeros(8, extra, dtype=torch.bool)], 1)
        loss, _ = grpo_loss(*wide, mask, advantages, kl_coef=0.1, **flags)
        loss = loss + rloo.reinforce_loss(wide[0], mask, advantages)
        (gradient,) = torch.autograd.grad(loss, new)
        results.append((loss.item(), gradient.numpy()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("script", [reinforce_lm, rloo, grpo])
def test_the_end_learns_and_nothing_behind_it_does(script):
    """A table shows which texts get a gradient: those before each token of the completion, its
    end included."""
    policy = Table(1, 3, 4)
    completions = torch.tensor([[0, 2, 2, 2], [1, 1, 0, 1]])  # an end, and a cut
    log_probs, mask, _ = scored(script, policy, completions)
    if script is grpo:
        same = log_probs.detach()
        advantages = torch.tensor([1.0, -1.0])
        loss, _ = grpo_loss(log_probs, same, same, mask, advantages)
    else:
        loss = script.reinforce_loss(log_probs, mask, torch.tensor([1.0, -1.0]))
    loss.backward()
    touched = {i for i, row in enumerate(policy.logits.grad) if row.abs().max() > 0}
    before = [(), (0,), (1,), (1, 1), (1, 1, 0)]
    assert touched == {policy.row(0, answer) for answer in before}
    gradient = policy.logits.grad[policy.row(0, (0,))]
    assert gradient[2] < 0  # the end becomes more probable
    assert gradient[:2].min() > 0
