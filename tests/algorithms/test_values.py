"""Critics trained to an environment whose values are known, ended by termination and by truncation."""

import gymnasium as gym
import pytest
import torch
from envs import TwoStates
from helpers import WITH_GAE, env_id, fields, module, train

GAMMA = 0.9
gym.register("TwoStatesCut-v0", TwoStates, kwargs={"ends": "truncated", "length": 3})
gym.register("TwoStatesCutBox-v0", TwoStates, kwargs={"ends": "truncated", "length": 3, "continuous": True})


def learned_values(script: str, name: str, run_dir) -> list[float]:
    """V(s0) and V(s1) after training the critic of `script` to a standstill."""
    flags = {"learning_rate": 0.01, "gamma": GAMMA, "total_timesteps": 12_000, "norm_obs": False, "norm_reward": False}
    flags |= {"num_envs": 4, "num_steps": 8, "ent_coef": 0.0, "n_critic_updates": 4}
    flags = {key: value for key, value in flags.items() if key in fields(script)}
    _, checkpoint = train(script, run_dir, env_id=env_id(script, name), **flags)
    critic = module(script).Critic(*([2] if script != "ppo_continuous" else [2, torch.nn.Identity()]))
    critic.load_state_dict(checkpoint["critic"])
    return critic(torch.eye(2)).tolist()


@pytest.mark.parametrize("script", WITH_GAE)
def test_termination_ends_all_value(script, tmp_path):
    """Two steps, rewards 1 and 0, then nothing: V(s0) = 1, V(s1) = 0."""
    assert learned_values(script, "TwoStates-v0", tmp_path / "run") == pytest.approx([1, 0], abs=0.05)


@pytest.mark.parametrize("script", WITH_GAE)
def test_truncation_does_not(script, tmp_path):
    """Cut off after three steps, in s1; rewards 1, 0, 1, 0 would go on for ever: V(s0) = 1 / (1 - gamma^2).

    Taken for a termination it would give V(s1) = gamma; bootstrapped from the next episode's first observation, s0 in
    place of s1, it would give V(s0) > 5.9.
    """
    v0 = 1 / (1 - GAMMA**2)
    values = learned_values(script, "TwoStatesCut-v0", tmp_path / "run")
    assert values == pytest.approx([v0, GAMMA * v0], abs=0.15)
