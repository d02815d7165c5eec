"""Critics trained to an environment whose values are known, ended by termination and by
truncation, and with observations that are written in place."""

import pytest
import torch
from gymnasium.spaces import Box
from helpers import GAUSSIAN, PIXELS, WITH_GAE, env_id, fields, module, own_names, train

GAMMA, WITH_CRITIC = 0.9, [*WITH_GAE, "sac"]


def learned_values(script: str, name: str, run_dir) -> list[float]:
    """V(s0) and V(s1), or Q of any action, after training the critic of `script` to a
    standstill."""
    flags = {"learning_rate": 0.01, "gamma": GAMMA, "total_timesteps": 8_000}
    flags |= {"norm_obs": False, "norm_reward": False, "eval_episodes": 1}
    flags |= {"num_envs": 4, "num_steps": 8, "ent_coef": 0.0, "n_critic_updates": 4}
    flags |= {"num_minibatches": 4, "update_epochs": 4, "reward_scale": 1.0}
    if script == "sac":
        flags |= {"alpha": 1e-9, "learning_rate": 1e-3, "tau": 0.05, "batch_size": 32}
        flags["total_timesteps"] = 4_000
    flags = own_names(script, flags)
    flags = {key: value for key, value in flags.items() if key in fields(script)}
    _, checkpoint = train(script, run_dir, env_id=env_id(script, name), **flags)
    if script == "sac":
        critic = module(script).Critic(2, 1)
        critic.load_state_dict(checkpoint["critic"])
        return critic(torch.eye(2), torch.tensor([[0.3], [-0.4]])).mean(0).tolist()
    norm = [torch.nn.Identity()] if script in GAUSSIAN else []
    if script in PIXELS:
        trunk, critic = module(script).Trunk(Box(0, 1, (3, 3, 2))), module(script).Critic(128)
        trunk.load_state_dict(checkpoint["trunk"])
        critic.load_state_dict(checkpoint["critic"])
        return critic(trunk(torch.eye(2)[:, None, None].expand(2, 3, 3, 2))).tolist()
    critic = module(script).Critic(2, *norm)
    critic.load_state_dict(checkpoint["critic"])
    return critic(torch.eye(2)).tolist()


@pytest.mark.parametrize("script", WITH_CRITIC)
def test_termination_ends_all_value(script, tmp_path):
    """Two steps, rewards 1 and 0, then nothing: V(s0) = 1, V(s1) = 0."""
    values = learned_values(script, "TwoStates-v0", tmp_path / "run")
    assert values == pytest.approx([1, 0], abs=0.05)


@pytest.mark.parametrize(
    ("script", "name"),
    [("a2c", "TwoStatesCut-v0"), *((script, "TwoStatesInPlace-v0") for script in WITH_CRITIC)],
)
def test_truncation_does_not(script, name, tmp_path):
    """Cut off after three steps, in s1; rewards 1, 0, 1, 0 would go on for ever, so V(s0) is
    1 / (1 - gamma^2).

    Taken for a termination it would give V(s1) = gamma. Bootstrapped from the next episode's
    first observation, s0 instead of s1, it would give V(s0) > 5.9: so it would where the
    environment has one buffer for all observations and the last one is not copied in time.
    """
    v0 = 1 / (1 - GAMMA**2)
    values = learned_values(script, name, tmp_path / "run")
    assert values == pytest.approx([v0, GAMMA * v0], abs=0.15)
