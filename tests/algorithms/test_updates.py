"""One whole iteration of train() against Stable-Baselines3: the same networks, the same
segment, the same step.

Our script collects a segment and updates on it; a Stable-Baselines3 model gets the networks
from before the update and the same transitions, as an environment that noted them saw them, and
does its own advantages, losses and step. The parameters must then agree. This covers all that
happens between the mathematics and the optimiser: what is detached, what is normalised, which
flag goes where, how an end is bootstrapped.
"""

import numpy as np
import pytest
import torch
from envs import Tape
from helpers import env_id, module, networks, train, transitions
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

NUM_ENVS, NUM_STEPS, GAMMA, GAE_LAMBDA = 3, 32, 0.95, 0.9
SHARED = {
    "num_envs": NUM_ENVS,
    "num_steps": NUM_STEPS,
    "gamma": GAMMA,
    "gae_lambda": GAE_LAMBDA,
}
THEIRS = {"n_steps": NUM_STEPS, "gamma": GAMMA, "gae_lambda": GAE_LAMBDA, "device": "cpu"}


def one_iteration(script: str, run_dir, monkeypatch, **flags):
    """Run one iteration; return the networks before and after it."""
    states = []
    save = module(script).Run.save

    def save_and_keep(run, *summary):
        save(run, *summary)
        states.append(networks(run))

    monkeypatch.setattr(module(script).Run, "save", save_and_keep)
    # At its usual start the policy is all but uniform, and the entropy bonus all but flat: not
    # a start to see it from.
    mlp = module(script).mlp
    monkeypatch.setattr(module(script), "mlp", lambda n, m, out_gain: mlp(n, m, 1.0))
    Tape.episodes.clear()
    total, name = NUM_ENVS * NUM_STEPS, env_id(script, "Tape-v0")
    train(script, run_dir, env_id=name, total_timesteps=total, **SHARED | flags)
    return states[0], states[-1]


def sb3_policy_state(states: dict, continuous: bool) -> dict:
    """Our networks under the names of their MlpPolicy."""
    head = "mean" if continuous else "logits"
    state = {}
    for part in ("weight", "bias"):
        for layer in (0, 2):
            state[f"mlp_extractor.policy_net.{layer}.{part}"] = states["actor"][
                f"{head}.{layer}.{part}"
            ]
            state[f"mlp_extractor.value_net.{layer}.{part}"] = states["critic"][
                f"value.{layer}.{part}"
            ]
        state[f"action_net.{part}"] = states["actor"][f"{head}.4.{part}"]
        state[f"value_net.{part}"] = states["critic"][f"value.4.{part}"]
    if continuous:
        state["log_std"] = states["actor"]["log_std"]
    return state


def fill(model, tapes) -> None:
    """Put the transitions, one list per environment, into their rollout buffer as their
    collect_rollouts would."""
    policy, buffer = model.policy, model.rollout_buffer
    buffer.reset()
    starts = np.ones(NUM_ENVS)
    with torch.no_grad():
        for t in range(NUM_STEPS):
            obs, actions, rewards, next_obs, terminated, truncated = (
                np.array(column) for column in zip(*(tape[t] for tape in tapes), strict=True)
            )
            values, log_probs, _ = policy.evaluate_actions(
                torch.as_tensor(obs), torch.as_tensor(actions)
            )
            next_values = policy.predict_values(torch.as_tensor(next_obs)).squeeze(1).numpy()
            rewards = rewards + GAMMA * next_values * (truncated & ~terminated)
            buffer.add(
                obs,
                actions.reshape(NUM_ENVS, -1),
                rewards,
                starts,
                values.squeeze(1),
                log_probs,
            )
            starts = terminated | truncated
    buffer.compute_returns_and_advantage(torch.as_tensor(next_values), starts)


def their_update(model_class, before, tapes, continuous=False, **settings):
    """Their parameters after one train() on the tapes, starting from our networks `before`."""
    model = model_class(
        "MlpPolicy", DummyVecEnv([lambda: Tape(continuous)] * NUM_ENVS), **THEIRS | settings
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.policy.load_state_dict(sb3_policy_state(before, continuous), strict=True)
    fill(model, tapes)
    model.train()
    return model.policy.state_dict()


def assert_same_update(before, after, theirs, continuous=False, keys=None, rtol=1e-3):
    ours, start = sb3_policy_state(after, continuous), sb3_policy_state(before, continuous)
    for key in keys or ours:
        moved = (theirs[key] - start[key]).abs().max().item()
        assert moved > 1e-6, f"{key} did not move: the comparison would say nothing"
        torch.testing.assert_close(
            ours[key] - start[key], theirs[key] - start[key], rtol=rtol, atol=rtol * moved
        )


def test_there_are_ends_of_both_kinds_in_the_segment(tmp_path, monkeypatch):
    one_iteration("a2c", tmp_path / "run", monkeypatch)
    steps = [step for tape in transitions(NUM_ENVS, NUM_STEPS) for step in tape]
    assert len(steps) == NUM_ENVS * NUM_STEPS
    assert sum(step[4] for step in steps) >= 3
    assert sum(step[5] and not step[4] for step in steps) >= 3


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"norm_adv": True},
        {"reward_scale": 0.3},
        {"ent_coef": 0.05, "vf_coef": 0.3, "max_grad_norm": 0.1},
    ],
)
def test_a2c(flags, tmp_path, monkeypatch):
    rates = {"learning_rate": 7e-3}
    before, after = one_iteration(
        "a2c", tmp_path / "run", monkeypatch, anneal_lr=False, **rates | flags
    )
    settings = {
        "norm_adv": False,
        "ent_coef": 0.0,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
    } | flags
    settings["normalize_advantage"] = settings.pop("norm_adv")
    # Theirs has no such flag: their rewards are scaled beforehand.
    scale = settings.pop("reward_scale", 0.1)
    tapes = [
        [(obs, action, scale * reward, *rest) for obs, action, reward, *rest in tape]
        for tape in transitions(NUM_ENVS, NUM_STEPS)
    ]
    theirs = their_update(A2C, before, tapes, **rates | settings)
    assert_same_update(before, after, theirs)
    if settings["ent_coef"]:
        settings["ent_coef"] = 0.0
        without = their_update(A2C, before, tapes, **rates | settings)
        with pytest.raises(AssertionError, match="not close"):
            assert_same_update(before, after, without)


ppo_flags = pytest.mark.parametrize(
    "flags",
    [
        {},
        {"norm_adv": False, "clip_coef": 0.05, "ent_coef": 0.05, "vf_coef": 0.3,
         "max_grad_norm": 0.1},
    ],
)  # fmt: skip
ONE_MINIBATCH = {
    "num_minibatches": 1, "update_epochs": 8, "learning_rate": 3e-3, "anneal_lr": False,
    "clip_coef": 0.2
}  # fmt: skip


def their_ppo(before, tapes, continuous=False, **flags):
    """Their parameters after eight epochs of one minibatch, with our flags."""
    settings = {"norm_adv": True, "clip_coef": 0.2, "ent_coef": 0.0, "vf_coef": 0.5}
    settings |= {"max_grad_norm": 0.5} | flags
    names = {"norm_adv": "normalize_advantage", "clip_coef": "clip_range"}
    settings = {names.get(name, name): value for name, value in settings.items()}
    usual = {"n_epochs": 8, "batch_size": 96, "learning_rate": 3e-3}
    return their_update(PPO, before, tapes, continuous, **usual | settings)


@ppo_flags
def test_ppo(flags, tmp_path, monkeypatch):
    """Eight epochs of one minibatch: their shuffle and ours give the same sums, and the ratio
    leaves the clip."""
    ours = ONE_MINIBATCH | flags
    before, after = one_iteration("ppo", tmp_path / "run", monkeypatch, **ours)
    theirs = their_ppo(before, transitions(NUM_ENVS, NUM_STEPS), **flags)
    assert_same_update(before, after, theirs)


@ppo_flags
def test_ppo_continuous(flags, tmp_path, monkeypatch):
    """Without our normalisation, which they leave to a wrapper. Actions beyond the bounds are
    learned from as drawn."""
    drawn = []
    sample = module("ppo_continuous").Actor.sample
    monkeypatch.setattr(
        module("ppo_continuous").Actor,
        "sample",
        lambda *a: (drawn.append(sample(*a)), drawn[-1])[1],
    )
    ours = ONE_MINIBATCH | {"norm_obs": False, "norm_reward": False} | flags
    before, after = one_iteration("ppo_continuous", tmp_path / "run", monkeypatch, **ours)
    actions = torch.stack(drawn[:NUM_STEPS]).numpy()
    tapes = transitions(NUM_ENVS, NUM_STEPS)
    seen = np.array([[step[1] for step in tape] for tape in tapes]).transpose(1, 0, 2)
    np.testing.assert_array_equal(seen, (0.5 * actions).clip(-0.5, 0.5))
    assert (np.abs(actions) > 1).mean() > 0.2
    theirs = their_ppo(before, transitions(NUM_ENVS, NUM_STEPS, actions), True, **flags)
    assert_same_update(before, after, theirs, continuous=True)


@pytest.mark.parametrize("norm_adv", [True, False])
@pytest.mark.parametrize("script", ["trpo", "trpo_continuous"])
def test_trpo(script, norm_adv, tmp_path, monkeypatch):
    """The policy's step; the critic's minibatches are shuffled, so it only has to come out near
    theirs. Gaussian actions beyond the bounds are learned from as drawn.

    Their KL divergence of Gaussians is a mean over the two actions, where the divergence is the
    sum: half of ours. So half the damping and half the bound make theirs our step.
    """
    continuous, drawn = script == "trpo_continuous", []
    sample = module(script).Actor.sample
    note = lambda *a: (drawn.append(sample(*a)), drawn[-1])[1]  # noqa: E731
    monkeypatch.setattr(module(script).Actor, "sample", note)
    off = {"norm_obs": False, "norm_reward": False} if continuous else {}
    flags = {"num_minibatches": 1, "norm_adv": norm_adv} | off
    before, after = one_iteration(script, tmp_path / "run", monkeypatch, **flags)
    actions = torch.stack(drawn[:NUM_STEPS]).numpy()
    assert not continuous or (np.abs(actions) > 1).mean() > 0.2
    tapes = transitions(NUM_ENVS, NUM_STEPS, actions if continuous else None)
    share = 2 if continuous else 1
    theirs = their_update(
        TRPO, before, tapes, continuous, batch_size=96, learning_rate=1e-3,
        normalize_advantage=norm_adv, target_kl=0.01 / share, cg_damping=0.1 / share,
    )  # fmt: skip
    actor = [key for key in theirs if "policy_net" in key or "action_net" in key]
    actor += ["log_std"] if continuous else []
    critic = [key for key in theirs if "value_net" in key]
    assert_same_update(before, after, theirs, continuous, keys=actor, rtol=2e-2)
    assert_same_update(before, after, theirs, continuous, keys=critic)
