"""GAE against its definition as a double sum, against closed forms, and against
Stable-Baselines3's buffer."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import WITH_GAE, gae_by_definition, module
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer


@pytest.fixture(params=WITH_GAE)
def gae(request):
    return module(request.param).gae


def segment(
    seed: int,
    num_steps: int,
    num_envs: int,
    p_terminated: float = 0.2,
    p_truncated: float = 0.2,
):
    """Random rewards, values, next_values, terminated, truncated, (num_steps, num_envs) each,
    in double precision.

    Within an episode next_values[t] is values[t + 1], as it is in a real segment; at an end it
    is anything.
    """
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, num_steps, num_envs))
    terminated = rng.random((num_steps, num_envs)) < p_terminated
    truncated = rng.random((num_steps, num_envs)) < p_truncated
    going_on = ~(terminated | truncated)[:-1]
    next_values[:-1][going_on] = values[1:][going_on]
    return rewards, values, next_values, terminated, truncated


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_steps=st.integers(1, 12),
    num_envs=st.integers(1, 3),
    p_terminated=st.sampled_from([0.0, 0.2, 1.0]),
    p_truncated=st.sampled_from([0.0, 0.2, 1.0]),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
)
@pytest.mark.parametrize("name", WITH_GAE)
def test_equals_the_double_sum(
    name, seed, num_steps, num_envs, p_terminated, p_truncated, gamma, gae_lambda
):
    arrays = segment(seed, num_steps, num_envs, p_terminated, p_truncated)
    advantages = module(name).gae(*map(torch.as_tensor, arrays), gamma, gae_lambda)
    assert advantages.shape == (num_steps, num_envs)
    np.testing.assert_allclose(
        advantages, gae_by_definition(*arrays, gamma, gae_lambda), rtol=1e-9, atol=1e-9
    )


def test_lambda_0_is_the_td_error(gae):
    rewards, values, next_values, terminated, truncated = segment(0, 30, 4)
    advantages = gae(
        *map(torch.as_tensor, (rewards, values, next_values, terminated, truncated)), 0.9, 0.0
    )
    np.testing.assert_allclose(
        advantages, rewards + 0.9 * np.where(terminated, 0, next_values) - values, atol=1e-12
    )


def test_lambda_1_is_the_return_less_the_value(gae):
    """With lambda 1 the values between telescope away: discounted rewards, plus the bootstrap
    at the end, less V."""
    rewards, values, next_values, terminated, truncated = segment(1, 30, 4)
    advantages = gae(
        *map(torch.as_tensor, (rewards, values, next_values, terminated, truncated)), 0.9, 1.0
    )
    for env in range(4):
        for t in range(30):
            end = next((k for k in range(t, 30) if terminated[k, env] or truncated[k, env]), 29)
            expected = (
                sum(0.9 ** (k - t) * rewards[k, env] for k in range(t, end + 1))
                - values[t, env]
            )
            if not terminated[end, env]:
                expected += 0.9 ** (end + 1 - t) * next_values[end, env]
            assert advantages[t, env].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        (False, False, 1 + 0.5 * 8 - 2),  # bootstrapped
        (True, False, 1 - 2),  # nothing follows
        (False, True, 1 + 0.5 * 8 - 2),  # goes on in principle
        (True, True, 1 - 2),  # termination wins
    ],
)
def test_every_kind_of_end(gae, terminated, truncated, expected):
    """The first of two steps; where it ends an episode, nothing comes back from the second,
    which has advantage 96."""
    column = lambda *x: torch.tensor(x, dtype=torch.float64)[:, None]  # noqa: E731
    flags = torch.tensor([[terminated], [False]]), torch.tensor([[truncated], [False]])
    advantages = gae(column(1, 100), column(2, 8), column(8, 8), *flags, 0.5, 0.5)
    if not (terminated or truncated):
        expected += 0.25 * 96
    assert advantages[1, 0].item() == pytest.approx(96)
    assert advantages[0, 0].item() == pytest.approx(expected)


def test_equals_stable_baselines3(gae):
    """Their buffer knows no truncation: they add gamma * V(final_obs) to its reward, and so do
    we for them."""
    gamma, gae_lambda, num_steps, num_envs = 0.97, 0.9, 64, 3
    arrays = [
        x.astype(np.float32) if x.dtype == float else x for x in segment(2, num_steps, num_envs)
    ]
    rewards, values, next_values, terminated, truncated = arrays
    space = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(
        num_steps, space, spaces.Discrete(2), "cpu", gae_lambda, gamma, num_envs
    )
    starts = np.ones(num_envs)
    nothing = np.zeros((num_envs, 1))
    for t in range(num_steps):
        their_rewards = rewards[t] + gamma * next_values[t] * (truncated[t] & ~terminated[t])
        buffer.add(
            nothing,
            nothing,
            their_rewards,
            starts,
            torch.as_tensor(values[t]),
            torch.zeros(num_envs),
        )
        starts = terminated[t] | truncated[t]
    buffer.compute_returns_and_advantage(torch.as_tensor(next_values[-1]), starts)
    advantages = gae(*map(torch.as_tensor, arrays), gamma, gae_lambda)
    np.testing.assert_allclose(advantages, buffer.advantages, rtol=1e-4, atol=1e-5)
