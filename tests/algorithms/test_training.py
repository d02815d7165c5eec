"""What train() does around one update: annealing, epochs and minibatches, running statistics, evaluation."""

import numpy as np
import pytest
import torch
from envs import Tape
from helpers import env_id, module, train, transitions
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ppo_continuous


@pytest.mark.parametrize("script", ["a2c", "ppo", "ppo_continuous"])
@pytest.mark.parametrize("anneal_lr", [True, False])
def test_the_step_size_falls_linearly_to_0(script, anneal_lr, tmp_path):
    """Ten iterations: 1.0, 0.9, ..., 0.1 times the rate; or the same rate throughout."""
    flags = {"total_timesteps": 320, "learning_rate": 0.01, "anneal_lr": anneal_lr, "log_interval": 1}
    train(script, tmp_path / "run", env_id=env_id(script, "Tape-v0"), **flags)
    events = EventAccumulator(str(tmp_path / "run")).Reload().Scalars("losses/learning_rate")
    expected = 0.01 * (1 - np.arange(10) / 10) if anneal_lr else [0.01] * 10
    assert [event.value for event in events] == pytest.approx(expected)


def minibatches(script, monkeypatch, tmp_path, **flags):
    """The old log-probs of every minibatch that one iteration of 32 steps handed to ppo_loss."""
    seen = []
    loss = module(script).ppo_loss
    monkeypatch.setattr(module(script), "ppo_loss", lambda *a: (seen.append(a[3].clone()), loss(*a))[1])
    train(script, tmp_path / "run", env_id=env_id(script, "Tape-v0"), total_timesteps=32, **flags)
    return seen


@pytest.mark.parametrize("script", ["ppo", "ppo_continuous"])
def test_every_epoch_sees_every_step_once_in_a_new_order(script, monkeypatch, tmp_path):
    seen = minibatches(script, monkeypatch, tmp_path, num_minibatches=4, update_epochs=3)
    assert [len(minibatch) for minibatch in seen] == [8] * 12
    epochs = [torch.cat(seen[k : k + 4]) for k in (0, 4, 8)]
    for epoch in epochs[1:]:
        assert torch.equal(epoch.sort().values, epochs[0].sort().values)
        assert not torch.equal(epoch, epochs[0])


@pytest.mark.parametrize("script", ["ppo", "ppo_continuous"])
@pytest.mark.parametrize(("target_kl", "epochs"), [(1e-12, 1), (1e9, 5), (None, 5)])
def test_target_kl_ends_the_update(script, target_kl, epochs, monkeypatch, tmp_path):
    flags = {"num_minibatches": 2, "update_epochs": 5, "target_kl": target_kl}
    assert len(minibatches(script, monkeypatch, tmp_path, **flags)) == 2 * epochs


def test_running_statistics_are_those_of_all_training_steps(monkeypatch, tmp_path):
    """Three iterations; observations before each step, and discounted sums of rewards that start anew after an end."""
    num_envs, num_steps, iterations, gamma = 3, 16, 3, 0.8
    scaled, gae = [], ppo_continuous.gae
    monkeypatch.setattr(ppo_continuous, "gae", lambda *a: (scaled.append(a[0]), gae(*a))[1])
    Tape.episodes.clear()
    flags = {"num_envs": num_envs, "num_steps": num_steps, "gamma": gamma}
    _, checkpoint = train(
        "ppo_continuous",
        tmp_path / "run",
        env_id="TapeBox-v0",
        total_timesteps=num_envs * num_steps * iterations,
        **flags,
    )
    tapes = transitions(num_envs, num_steps * iterations)
    obs = np.array([step[0] for tape in tapes for step in tape])
    np.testing.assert_allclose(checkpoint["actor"]["norm.mean"], obs.mean(0), atol=1e-5)
    np.testing.assert_allclose(checkpoint["actor"]["norm.var"], obs.var(0), rtol=1e-4)

    sums = np.zeros((num_steps * iterations, num_envs))
    for env, tape in enumerate(tapes):
        running = 0.0
        for t, (_, _, reward, _, terminated, truncated) in enumerate(tape):
            sums[t, env] = running = reward + gamma * running
            if terminated or truncated:
                running = 0.0
    assert checkpoint["critic"]["reward_norm.var"].item() == pytest.approx(sums.var(), rel=1e-4)
    rewards = np.array([[step[2] for step in tape] for tape in tapes]).T
    for k in range(iterations):  # each segment is scaled by what has been seen up to its own end
        part, seen = slice(k * num_steps, (k + 1) * num_steps), sums[: (k + 1) * num_steps]
        np.testing.assert_allclose(scaled[k], rewards[part] / np.sqrt(seen.var() + 1e-8), rtol=1e-4, atol=1e-5)


def test_exploration_starts_as_asked_for(tmp_path):
    flags = {"num_envs": 3, "num_steps": 16, "total_timesteps": 48, "learning_rate": 0.0, "init_std": 0.5}
    _, checkpoint = train("ppo_continuous", tmp_path / "run", env_id="TapeBox-v0", **flags)
    assert checkpoint["actor"]["log_std"].exp().tolist() == pytest.approx([0.5, 0.5])


def test_evaluation_uses_the_mode_and_changes_nothing(script, tmp_path):
    """Whatever the random state, the same returns; and not a bit of the networks moves."""
    script, name = module(script), script
    args = script.Args(env_id=env_id(name, "DictObs-v0"), run_dir=tmp_path, eval_episodes=3)
    torch.manual_seed(0)
    if name == "ppo_continuous":
        actor = script.Actor(7, 2, script.RunningNorm(7))
        actor.norm.update(torch.randn(50, 7))
    else:
        actor = script.Actor(7, 3)
    before = {key: value.clone() for key, value in actor.state_dict().items()}
    first = script.evaluate(actor, args, torch.device("cpu"))
    torch.manual_seed(1)
    np.testing.assert_array_equal(script.evaluate(actor, args, torch.device("cpu")), first)
    assert all(torch.equal(value, before[key]) for key, value in actor.state_dict().items())
    env = script.make_env(args)
    seeds = np.random.SeedSequence(args.seed, spawn_key=(1,)).generate_state(3).tolist()
    for seed, expected in zip(seeds, first, strict=True):
        obs, done, total = env.reset(seed=seed)[0], False, 0.0
        while not done:
            with torch.no_grad():
                dist = actor(torch.as_tensor(obs, dtype=torch.float32))
                mode = dist.mean if name == "ppo_continuous" else dist.logits.argmax()
            obs, reward, terminated, truncated, _ = env.step(mode.numpy()[()])
            total, done = total + reward, terminated or truncated
        assert total == pytest.approx(expected)


def test_training_environments_have_streams_of_their_own(script, tmp_path):
    """No first observation occurs twice: not in one run, and not between runs of neighbouring seeds."""
    firsts = []
    for seed in (1, 2):
        Tape.episodes.clear()
        flags = {"total_timesteps": 64, "num_envs": 4, "seed": seed}
        train(script, tmp_path / str(seed), env_id=env_id(script, "Tape-v0"), **flags)
        firsts += [tuple(episode[0][0]) for episode in Tape.episodes if episode]
    assert len(firsts) > 8
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize(("script", "flags"), [("a2c", {"reward_scale": 0.25}), ("ppo_continuous", {})])
def test_logged_returns_are_the_environments(script, flags, tmp_path):
    """However rewards are scaled for the learning: each logged return is the sum of what one episode gave."""
    Tape.episodes.clear()
    summary, _ = train(script, tmp_path / "run", env_id=env_id(script, "Tape-v0"), total_timesteps=320, **flags)
    given = [sum(step[2] for step in episode) for episode in Tape.episodes if episode and any(episode[-1][4:])]
    events = EventAccumulator(str(tmp_path / "run")).Reload().Scalars("charts/episodic_return")
    assert len(events) == summary["train_episodes"] > 5
    for event in events:
        assert min(abs(event.value - total) for total in given) < 1e-4
    assert len({round(event.value, 4) for event in events}) > 5
