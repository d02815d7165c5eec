"""The losses of A2C and PPO on given tensors: gradients by theory, values by
Stable-Baselines3."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, Normal

import a2c
import ppo
import ppo_continuous

PPO = [ppo, ppo_continuous]


def batch(seed: int, size: int = 64):
    """Logits that need a gradient, values, actions, old log-probs, advantages and returns."""
    g = torch.Generator().manual_seed(seed)
    logits, old_logits = torch.randn(2, size, 3, generator=g)
    actions = torch.randint(0, 3, (size,), generator=g)
    old_log_probs = Categorical(logits=old_logits).log_prob(actions)
    values, advantages, returns = torch.randn(3, size, generator=g)
    return logits.requires_grad_(), values, actions, old_log_probs, advantages, returns


@pytest.mark.parametrize("script", PPO)
def test_ppo_gradient_at_ratio_1_is_that_of_a2c(script):
    logits, values, actions, _, advantages, returns = batch(0)
    dist = Categorical(logits=logits)
    old_log_probs = dist.log_prob(actions).detach()
    loss, parts = script.ppo_loss(
        dist, values, actions, old_log_probs, advantages, returns, 0.2, 0.5, 0.01
    )
    (theirs,) = torch.autograd.grad(loss, logits)
    loss, _ = a2c.a2c_loss(
        Categorical(logits=logits), values, actions, advantages, returns, 0.5, 0.01
    )
    (ours,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(theirs, ours)
    assert ours.abs().max() > 1e-3
    assert parts["approx_kl"] == 0
    assert parts["clip_frac"] == 0


@pytest.mark.parametrize("script", PPO)
@pytest.mark.parametrize(
    ("ratio", "advantage", "pulls"),
    [
        (
            1.3,
            1.0,
            False,
        ),  # already more probable than the clip allows, and asked to become more so
        (1.3, -1.0, True),  # moved the wrong way: must be able to come back
        (0.7, -1.0, False),
        (0.7, 1.0, True),
        (1.1, 1.0, True),
        (0.9, -1.0, True),
    ],
)
def test_gradient_is_exactly_zero_only_where_clipped_in_the_harmful_direction(
    script, ratio, advantage, pulls
):
    """d loss / d log-prob is -A * ratio, or 0."""
    log_prob = torch.tensor([np.log(0.5 * ratio)], requires_grad=True)

    class Fixed:
        log_prob = staticmethod(lambda _: log_prob)
        entropy = staticmethod(lambda: torch.zeros(1))

    old, zero = torch.tensor([np.log(0.5)]), torch.zeros(1)
    loss, parts = script.ppo_loss(
        Fixed(), zero, zero, old, torch.tensor([advantage]), zero, 0.2, 0.5, 0.0
    )
    loss.backward()
    assert log_prob.grad.item() == (pytest.approx(-advantage * ratio) if pulls else 0.0)
    assert parts["clip_frac"] == float(abs(ratio - 1) > 0.2)


@pytest.mark.parametrize("script", PPO)
def test_approx_kl_estimates_the_kl_and_is_never_negative(script):
    """Actions drawn from the old policy; the mean of the estimate is KL(old || new), not KL(new
    || old)."""
    torch.manual_seed(0)
    old, new = (
        Categorical(logits=torch.tensor([0.0, 1.0, -2.5])),
        Categorical(logits=torch.tensor([1.0, 0.0, 1.0])),
    )
    exact = torch.distributions.kl_divergence(old, new).item()
    wrong = torch.distributions.kl_divergence(new, old).item()
    actions = old.sample((200_000,))
    zero = torch.zeros(len(actions))
    _, parts = script.ppo_loss(
        new, zero, actions, old.log_prob(actions), zero, zero, 0.2, 0.5, 0.0
    )
    assert parts["approx_kl"].item() == pytest.approx(exact, rel=0.02)
    assert abs(exact - wrong) > 0.1
    for action in range(3):
        one = torch.tensor([action])
        _, parts = script.ppo_loss(
            new, zero[:1], one, old.log_prob(one), zero[:1], zero[:1], 0.2, 0.5, 0.0
        )
        assert parts["approx_kl"] >= 0


@pytest.mark.parametrize("script", PPO)
def test_gaussian_log_prob_and_entropy(script):
    """ppo_loss takes any distribution: here it must reproduce the closed forms of a diagonal
    Gaussian."""
    g = torch.Generator().manual_seed(1)
    mean, actions, advantages = (
        torch.randn(16, 2, generator=g),
        torch.randn(16, 2, generator=g),
        torch.randn(16, generator=g),
    )
    std = torch.tensor([0.5, 2.0])
    dist = Independent(Normal(mean, std), 1)
    log_probs = (
        -0.5 * ((actions - mean) / std) ** 2 - std.log() - 0.5 * np.log(2 * np.pi)
    ).sum(-1)
    zero = torch.zeros(16)
    loss, parts = script.ppo_loss(
        dist, zero, actions, log_probs - 0.05, advantages, zero, 0.2, 0.5, 0.1
    )
    entropy = (0.5 * np.log(2 * np.pi * np.e) + std.log()).sum()
    assert parts["entropy"].item() == pytest.approx(entropy.item())
    assert loss.item() == pytest.approx(
        (-np.exp(0.05) * advantages.mean() - 0.1 * entropy).item(), rel=1e-4
    )
