"""What train() does around its updates: annealing, minibatches, running statistics, seeds,
evaluation."""

import json

import numpy as np
import pytest
import torch
from envs import Faulty, Tape
from gymnasium.spaces import Box
from helpers import (
    BOX,
    GAUSSIAN,
    PIXELS,
    Ended,
    checkpoint_of,
    env_id,
    fields,
    loops,
    module,
    one,
    scalars,
    summary_of,
    train,
    transitions,
)
from torch import nn


@pytest.mark.parametrize("script", ["a2c", "a3c", "ppo", "ppo_continuous"])
@pytest.mark.parametrize("anneal_lr", [True, False])
def test_the_step_size_falls_linearly_to_0(script, anneal_lr, tmp_path):
    """Ten iterations: 1.0, 0.9, ..., 0.1 times the rate; or the same rate throughout."""
    flags = {"total_timesteps": 320, "learning_rate": 0.01, "log_interval": 1}
    flags |= {"num_steps": 32} if script == "a3c" else {}
    name = env_id(script, "Tape-v0")
    train(script, tmp_path / "run", env_id=name, anneal_lr=anneal_lr, **flags)
    events = scalars(tmp_path / "run")["losses/learning_rate"]
    expected = 0.01 * (1 - np.arange(10) / 10) if anneal_lr else [0.01] * 10
    assert [event.value for event in events] == pytest.approx(expected)


@pytest.mark.parametrize("interval", [97, 128])
def test_losses_are_logged_no_closer_than_the_interval(interval, tmp_path):
    """Iterations of 32 steps: the first, and every fourth after it, though 128 are just met."""
    train("ppo", tmp_path / "run", env_id="Tape-v0", total_timesteps=640, log_interval=interval)
    steps = [event.step for event in scalars(tmp_path / "run")["losses/policy_loss"]]
    assert steps == [32, 160, 288, 416, 544]


def minibatches(script, monkeypatch, tmp_path, steps=32, **flags):
    """The old log-probs of every minibatch that was handed to ppo_loss, and its approx_kl."""
    seen, found = [], module(script)
    loss = found.ppo_loss

    def note(*args):
        result = loss(*args)
        seen.append((args[3].clone(), result[1]["approx_kl"].item()))
        return result

    monkeypatch.setattr(found, "ppo_loss", note)
    name = env_id(script, "Tape-v0")
    train(script, tmp_path / "run", env_id=name, total_timesteps=steps, **flags)
    return seen


@pytest.mark.parametrize("script", ["ppo", "ppo_continuous"])
def test_every_epoch_sees_every_step_once_in_a_new_order(script, monkeypatch, tmp_path):
    seen = minibatches(script, monkeypatch, tmp_path, num_minibatches=4, update_epochs=3)
    assert [len(minibatch) for minibatch, _ in seen] == [8] * 12
    epochs = [torch.cat([m for m, _ in seen[k : k + 4]]) for k in (0, 4, 8)]
    for epoch in epochs[1:]:
        assert torch.equal(epoch.sort().values, epochs[0].sort().values)
        assert not torch.equal(epoch, epochs[0])


@pytest.mark.parametrize("script", ["ppo", "ppo_continuous"])
@pytest.mark.parametrize(("target_kl", "epochs"), [(1e-9, 1), (1e9, 5), (None, 5)])
def test_target_kl_ends_the_update(script, target_kl, epochs, monkeypatch, tmp_path):
    """Only between epochs, and only where it is given."""
    flags = {"num_minibatches": 2, "update_epochs": 5, "target_kl": target_kl}
    assert len(minibatches(script, monkeypatch, tmp_path, **flags)) == 2 * epochs


@pytest.mark.parametrize("script", ["ppo", "ppo_continuous"])
def test_the_last_minibatch_of_an_epoch_decides_whether_it_was_the_last(
    script, monkeypatch, tmp_path
):
    """Not the first one's approx_kl, the mean or the largest: an update goes on exactly as long
    as the last minibatch of each epoch stays within the target. All runs below begin alike."""
    flags = {"num_minibatches": 4, "update_epochs": 8, "learning_rate": 0.003}
    with monkeypatch.context() as patch:
        free = [kl for _, kl in minibatches(script, patch, tmp_path / "free", **flags)]
    last, told_apart = free[3::4], 0
    for target in np.geomspace(min(last) * 0.9, max(last) * 1.1, 7):
        stop = next((e for e, kl in enumerate(last) if kl > target), 7)
        means = [np.mean(free[4 * e : 4 * e + 4]) for e in range(8)]
        told_apart += stop != next((e for e, kl in enumerate(means) if kl > target), 7)
        with monkeypatch.context() as patch:
            folder = tmp_path / f"{target:g}"
            seen = minibatches(script, patch, folder, target_kl=float(target), **flags)
        assert len(seen) == 4 * (stop + 1)
    assert told_apart


@pytest.mark.parametrize("script", GAUSSIAN)
def test_running_statistics_are_those_of_all_training_steps(script, monkeypatch, tmp_path):
    """Three iterations; observations before each step, and discounted sums of rewards that
    start anew after an end."""
    num_envs, num_steps, iterations, gamma = 3, 16, 3, 0.8
    scaled, gae = [], module(script).gae
    monkeypatch.setattr(module(script), "gae", lambda *a: (scaled.append(a[0]), gae(*a))[1])
    Tape.episodes.clear()
    flags = {"num_envs": num_envs, "num_steps": num_steps, "gamma": gamma}
    flags["total_timesteps"] = num_envs * num_steps * iterations
    _, checkpoint = train(script, tmp_path / "run", env_id="TapeBox-v0", **flags)
    tapes = transitions(num_envs, num_steps * iterations)
    obs = np.array([step[0] for tape in tapes for step in tape])
    assert checkpoint["actor"]["norm.count"].item() == len(obs)
    for network in ("actor", "critic"):
        np.testing.assert_allclose(checkpoint[network]["norm.mean"], obs.mean(0), atol=1e-5)
        np.testing.assert_allclose(checkpoint[network]["norm.var"], obs.var(0), rtol=1e-4)

    sums = np.zeros((num_steps * iterations, num_envs))
    for env, tape in enumerate(tapes):
        running = 0.0
        for t, (_, _, reward, _, terminated, truncated) in enumerate(tape):
            sums[t, env] = running = reward + gamma * running
            if terminated or truncated:
                running = 0.0
    assert checkpoint["reward_norm"]["var"].item() == pytest.approx(sums.var(), rel=1e-4)
    rewards = np.array([[step[2] for step in tape] for tape in tapes]).T
    for k in range(iterations):  # each segment is scaled by what was seen up to its own end
        part, seen = slice(k * num_steps, (k + 1) * num_steps), sums[: (k + 1) * num_steps]
        expected = rewards[part] / np.sqrt(seen.var() + 1e-8)
        np.testing.assert_allclose(scaled[k], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("script", GAUSSIAN)
@pytest.mark.parametrize("value", [1e6, -1e6])
def test_a_reward_far_off_the_others_counts_ten_stds(script, value, monkeypatch, tmp_path):
    """Of 512 rewards one is a million, and so nearly 23 of the std that it makes."""
    seen, gae = [], module(script).gae
    monkeypatch.setattr(module(script), "gae", lambda *a: (seen.append(a[0]), gae(*a))[1])
    monkeypatch.setattr(Faulty, "steps", 0)
    kwargs = json.dumps({"kind": "reward", "at": 50, "value": value})
    flags = {"env_id": "FaultyBox-v0", "env_kwargs": kwargs, "gamma": 0.0, "num_steps": 256}
    train(script, tmp_path / "run", total_timesteps=512, **flags)
    (rewards,) = seen
    assert rewards.abs().max() == 10
    assert (rewards.abs() > 0.01).sum() == 1
    assert rewards.sum().sign() == np.sign(value)


@pytest.mark.parametrize("script", GAUSSIAN)
def test_switched_off_there_are_no_statistics(script, tmp_path):
    flags = {"norm_obs": False, "norm_reward": False, "total_timesteps": 64}
    _, checkpoint = train(script, tmp_path / "run", env_id="TapeBox-v0", **flags)
    assert not any("norm" in key for key in [*checkpoint["actor"], *checkpoint["critic"]])
    assert checkpoint["reward_norm"]["count"] == 0


def evaluated(script: str, tmp_path, monkeypatch, actor=None, **flags):
    """Train one iteration, put `actor` in place, evaluate; return the actor and the summary."""
    found, kept = module(script), []
    evaluate = found.evaluate

    def note(trained, env, run):
        kept.append(actor or trained)
        return evaluate(kept[0], env, run)

    monkeypatch.setattr(found, "evaluate", note)
    summary, _ = train(script, tmp_path, **flags)
    return kept[0], summary


def test_evaluation_uses_the_mode_and_changes_nothing(script, tmp_path, monkeypatch):
    """The returns are those of the most probable action, or of the mean, from the seeds of the
    evaluation; and not a bit of the networks moves."""
    found, name = module(script), env_id(script, "DictObs-v0")
    torch.manual_seed(5)
    actor = found.Actor(7, 2 if script in BOX else 3)
    if script in PIXELS:
        actor = nn.Sequential(found.Trunk(Box(-1, 1, (3, 3, 7))), found.Actor(128, 3))
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    if script in GAUSSIAN:
        actor.norm.update(torch.randn(50, 7))
    before = {key: value.clone() for key, value in actor.state_dict().items()}
    flags = {"env_id": name, "total_timesteps": 64, "eval_episodes": 6}
    _, summary = evaluated(script, tmp_path / "run", monkeypatch, actor, **flags)
    assert all(torch.equal(value, before[key]) for key, value in actor.state_dict().items())
    env, returns = found.make_env(found.Args(env_id=name)), []
    for seed in np.random.SeedSequence(1, spawn_key=(1,)).generate_state(6).tolist():
        obs, done, total = env.reset(seed=seed >> 1)[0], False, 0.0
        while not done:
            with torch.no_grad():
                dist = actor(torch.as_tensor(obs, dtype=torch.float32))
                mode = dist.mean if script in BOX else dist.logits.argmax()
                mode = mode.tanh() if script == "sac" else mode
            obs, reward, terminated, truncated, _ = env.step(mode.numpy()[()])
            total, done = total + reward, terminated or truncated
        returns.append(total)
    assert len(set(returns)) > 1
    assert summary["eval_return_mean"] == pytest.approx(np.mean(returns))
    assert summary["eval_return_std"] == pytest.approx(np.std(returns), abs=1e-9)


def test_training_and_evaluation_have_streams_of_their_own(script, tmp_path):
    """No first observation occurs twice: not in one run, and not between neighbouring seeds."""
    firsts = []
    for seed in (1, 2):
        Tape.episodes.clear()
        flags = {"total_timesteps": 64, "num_envs": 4, "seed": seed}
        train(script, tmp_path / str(seed), env_id=env_id(script, "Tape-v0"), **flags)
        firsts += [tuple(episode[0][0]) for episode in Tape.episodes if episode]
    assert len(firsts) > 8
    assert len(set(firsts)) == len(firsts)


def test_the_seed_decides_the_weights_as_it_does_the_environments(
    script, tmp_path, monkeypatch
):
    """Before the first update: the same seed gives the same weights, another one others."""
    found, fresh = module(script), []
    start = found.Run.start

    def note(run, *args):
        start(run, *args)
        fresh.append(checkpoint_of(run.args.run_dir))
        raise Ended

    monkeypatch.setattr(found.Run, "start", note)
    for n, seed in enumerate((1, 1, 2)):
        torch.manual_seed(n)
        torch.rand(n)
        with pytest.raises(Ended):
            train(script, tmp_path / str(n), env_id=env_id(script, "Tape-v0"), seed=seed)
    for network in ("actor", "critic"):
        if network in fresh[0]:
            weights = [key for key in fresh[0][network] if key.endswith("weight")]
            assert all(torch.equal(fresh[0][network][k], fresh[1][network][k]) for k in weights)
            assert not any(
                torch.equal(fresh[0][network][k], fresh[2][network][k]) for k in weights
            )


def ends_in_segments(num_envs: int, num_steps: int) -> list[tuple]:
    """The global step, return and length of each episode where all environments step at once,
    in the order of steps and of environments."""
    found = []
    for tape in transitions(num_envs, num_steps):
        begun = 0
        for t, step in enumerate(tape, 1):
            if any(step[4:]):
                rewards = [step[2] for step in tape[begun:t]]
                found.append((t * num_envs, sum(rewards), len(rewards)))
                begun = t
    return sorted(found, key=lambda end: end[0])


def ends_in_batches(episodes: list[list[tuple]], num_envs: int) -> list[tuple]:
    """The same where an environment whose episode has ended waits for the others. The first
    resets, with the seeds, begin no episode."""
    found, before = [], 0
    for k in range(num_envs, len(episodes), num_envs):
        batch = episodes[k : k + num_envs]
        for episode in batch:
            if episode and any(episode[-1][4:]):
                step = before + sum(min(len(other), len(episode)) for other in batch)
                found.append((step, sum(step[2] for step in episode), len(episode)))
        before += sum(map(len, batch))
    return sorted(found, key=lambda end: end[0])


def test_logged_returns_are_the_environments(script, tmp_path, monkeypatch):
    """However rewards are scaled for the learning, each logged return is the sum of what one
    episode gave, each logged length its number of steps, both at the step of its end; and the
    summary's mean is that of the last hundred."""
    found, num_envs = module(script), 1 if script == "a3c" else 3
    evaluate, seen = found.evaluate, []
    monkeypatch.setattr(
        found, "evaluate", lambda *args: seen.extend(Tape.episodes) or evaluate(*args)
    )
    Tape.episodes.clear()
    flags = {"num_envs": num_envs, "total_timesteps": 1536}
    flags |= {"reward_scale": 0.25} if "reward_scale" in fields(script) else {}
    summary, _ = train(script, tmp_path / "run", env_id=env_id(script, "Tape-v0"), **flags)
    if script.startswith("reinforce"):
        expected = ends_in_batches(seen, num_envs)
    else:
        expected = ends_in_segments(num_envs, summary["global_step"] // num_envs)
    assert len(expected) == summary["train_episodes"] > 200
    events = scalars(tmp_path / "run")
    returns, lengths = events["charts/episodic_return"], events["charts/episodic_length"]
    assert [e.step for e in returns] == [e.step for e in lengths] == [e[0] for e in expected]
    assert [e.value for e in returns] == pytest.approx([e[1] for e in expected], abs=1e-4)
    assert [e.value for e in lengths] == [e[2] for e in expected]
    mean = np.mean([e[1] for e in expected[-100:]])
    assert summary["train_return_mean"] == pytest.approx(mean, abs=1e-4)


@one
def test_an_evaluation_without_end_is_cut(script, tmp_path):
    """After 10,000 steps of reward 1."""
    name = env_id(script, "Endless-v0")
    summary, _ = train(script, tmp_path / "run", env_id=name, total_timesteps=64)
    assert summary["eval_return_mean"] == 10_000
    assert summary["train_return_mean"] is None


@loops
def test_the_first_checkpoint_comes_before_the_first_update(script, tmp_path, monkeypatch):
    """It holds what the run begins with, so that a kill at any time leaves something to
    resume."""
    found, seen = module(script), []
    function = "forward" if script == "sac" else "sample"
    sample = getattr(found.Actor, function)

    def note(actor, obs):
        if not seen:
            (path,) = tmp_path.glob("run")
            seen.append((checkpoint_of(path), actor.state_dict()))
            for key, value in seen[0][1].items():
                assert torch.equal(value, seen[0][0]["actor"][key])
        return sample(actor, obs)

    monkeypatch.setattr(found.Actor, function, note)
    train(script, tmp_path / "run", env_id=env_id(script, "Tape-v0"), total_timesteps=64)
    assert seen[0][0]["counters"][:2] == [0, 0]
    assert summary_of(tmp_path / "run")["global_step"] > 0
