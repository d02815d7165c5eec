"""SAC: its squashed Gaussian against numerical integration, its losses by hand, its updates
against Stable-Baselines3's, its buffer against a list."""

import math
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from envs import Dial, Tape
from helpers import ROOT, checkpoint_of, copied, scalars, train, transitions
from scipy import integrate, stats
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv

import sac

GAUSSIANS = [(0.0, 0.0), (1.2, -0.5), (-0.4, 0.3), (0.1, -3.0)]


def squashed(mean, log_std) -> sac.SquashedGaussian:
    return sac.SquashedGaussian(
        *(torch.tensor(x, dtype=torch.float64) for x in (mean, log_std))
    )


@pytest.mark.parametrize(("mean", "log_std"), GAUSSIANS)
def test_the_density_integrates_to_the_probabilities_of_intervals(mean, log_std):
    """Of actions a = tanh(u): all of (-1, 1) has probability 1, and the part between two
    actions what the normal distribution gives the part between their atanh."""
    dist = squashed([mean], [log_std])

    def density(action: float) -> float:
        return dist.log_prob(torch.tensor([math.atanh(action)]).double()).exp().item()

    middle, most = math.tanh(mean), 1 - 1e-12
    whole, _ = integrate.quad(density, -most, most, points=[middle], limit=500)
    assert whole == pytest.approx(1, abs=1e-6)
    normal = stats.norm(mean, math.exp(log_std))
    for low, high in ((-0.9, -0.2), (-0.2, 0.5), (0.5, 0.99), (middle - 0.01, middle + 0.01)):
        found, _ = integrate.quad(density, low, high, limit=200)
        expected = normal.cdf(math.atanh(high)) - normal.cdf(math.atanh(low))
        assert found == pytest.approx(expected, abs=1e-7)


def test_dimensions_are_independent():
    means, log_stds = [list(x) for x in zip(*GAUSSIANS, strict=True)]
    u = [0.3, -1.1, 2.0, 0.12]
    alone = [squashed([m], [s]).log_prob(torch.tensor([x]).double()) for m, s, x in
             zip(means, log_stds, u, strict=True)]  # fmt: skip
    together = squashed(means, log_stds).log_prob(torch.tensor(u).double())
    assert together.shape == ()
    assert together.item() == pytest.approx(sum(alone).item())
    batch = squashed([means] * 5, [log_stds] * 5).log_prob(torch.tensor([u] * 5).double())
    assert batch.tolist() == pytest.approx([sum(alone).item()] * 5)


@pytest.mark.parametrize("u", [0.0, 0.5, -3.0, 9.2, 20.0, -20.0, 80.0, -80.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_log_density_is_right_where_tanh_rounds_to_1(u, dtype):
    """Against 120 digits. At |u| = 20, 1 - tanh(u)^2 is 0 in both precisions."""
    mean, log_std = 0.25, 0.5
    with mpmath.workdps(120):
        noise = (mpmath.mpf(u) - mean) / mpmath.exp(log_std)
        log_normal = -(noise**2) / 2 - log_std - mpmath.log(2 * mpmath.pi) / 2
        expected = float(log_normal - mpmath.log(1 - mpmath.tanh(u) ** 2))
    dist = sac.SquashedGaussian(*torch.tensor([[mean], [log_std]], dtype=dtype))
    found = dist.log_prob(torch.tensor([u], dtype=dtype)).item()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("noise", [[0.3, -0.8], [12.0, -9.0]])
def test_actions_and_log_densities_are_differentiable_in_mean_and_std(noise, monkeypatch):
    """By finite differences, at given noise, also where tanh is flat; and the log density is
    that of the action."""
    noise = torch.tensor([noise], dtype=torch.float64)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    mean, log_std = torch.tensor([[[0.4, -0.2]], [[0.6, 0.1]]], dtype=torch.float64)

    def rsample(mean, log_std):
        return sac.SquashedGaussian(mean, log_std).rsample()

    inputs = (mean.requires_grad_(), log_std.requires_grad_())
    assert torch.autograd.gradcheck(rsample, inputs)
    u = mean + log_std.exp() * noise
    actions, log_probs = rsample(mean, log_std)
    torch.testing.assert_close(actions, u.tanh())
    torch.testing.assert_close(log_probs, sac.SquashedGaussian(mean, log_std).log_prob(u))


def test_draws_follow_the_distribution():
    torch.manual_seed(0)
    dist = sac.SquashedGaussian(torch.tensor([0.3, -1.0]).expand(20_000, 2), torch.tensor(-0.7))
    actions = dist.rsample()[0].double().numpy()
    for i, mean in enumerate((0.3, -1.0)):
        drawn = stats.kstest(np.arctanh(actions[:, i]), stats.norm(mean, math.exp(-0.7)).cdf)
        assert drawn.pvalue > 1e-3
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.03


def test_the_actor_splits_its_output_and_bounds_the_log_std():
    torch.manual_seed(0)
    actor = sac.Actor(3, 2)
    with torch.no_grad():
        actor.mean_and_log_std[-1].weight.zero_()
        actor.mean_and_log_std[-1].bias.copy_(torch.tensor([0.5, -3.0, -50.0, 7.0]))
    dist = actor(torch.randn(4, 3))
    torch.testing.assert_close(dist.mean, torch.tensor([[0.5, -3.0]] * 4))
    torch.testing.assert_close(dist.log_std, torch.tensor([[-20.0, 2.0]] * 4))
    torch.testing.assert_close(dist.mode, torch.tensor([[0.5, -3.0]] * 4).tanh())


# ---- Losses by hand ----
def batch(seed: int, size: int = 7) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    rewards, log_probs = rng.normal(size=(2, size))
    return rewards, rng.normal(size=(2, size)), log_probs, rng.random(size) < 0.4


def test_targets_by_hand():
    """The smaller critic less the entropy's cost, nothing after a termination."""
    rewards, next_q, next_log_probs, terminated = batch(0)
    expected = [
        r + (0 if end else 0.9 * (min(q1, q2) - 0.3 * log_prob))
        for r, q1, q2, log_prob, end in zip(
            rewards, *next_q, next_log_probs, terminated, strict=True
        )
    ]
    tensors = map(torch.as_tensor, (rewards, next_q, next_log_probs, terminated))
    found = sac.soft_q_targets(*tensors, torch.tensor(0.3).double(), 0.9)
    assert 0 < terminated.sum() < len(terminated)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_losses_by_hand():
    targets, q, log_probs, _ = batch(1)
    n = len(targets)
    expected = sum((x - y) ** 2 / 2 for row in q for x, y in zip(row, targets, strict=True)) / n
    found = sac.critic_loss(*map(torch.as_tensor, (q, targets)))
    assert found.item() == pytest.approx(expected)
    expected = sum(0.3 * p - min(a, b) for p, a, b in zip(log_probs, *q, strict=True)) / n
    found = sac.actor_loss(*map(torch.as_tensor, (q, log_probs)), torch.tensor(0.3))
    assert found.item() == pytest.approx(expected)
    log_alpha = torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    found = sac.temperature_loss(log_alpha, torch.as_tensor(log_probs), -2.5)
    assert found.item() == pytest.approx(0.4 * sum(p - 2.5 for p in log_probs) / n)


@pytest.mark.parametrize(("entropy", "sign"), [(-1.0, 1), (-3.0, -1)])
def test_the_temperature_falls_while_the_entropy_is_above_its_target(entropy, sign):
    """The gradient of the loss has the sign of entropy - target; descent goes against it."""
    log_alpha = torch.tensor(0.7, requires_grad=True)
    sac.temperature_loss(log_alpha, torch.full((4,), -entropy), -2.0).backward()
    assert log_alpha.grad.item() == pytest.approx(sign * 1.0)


# ---- The buffer ----
def rows(numbers: list[int]) -> list[np.ndarray]:
    """Transitions that can be told apart."""
    x = np.array(numbers, np.float32)
    two = np.stack([x, -x], 1)
    return [two, 0.1 * two, x + 0.5, two + 1, x % 3 == 0]


@pytest.mark.parametrize(("capacity", "n"), [(10, 1), (10, 3), (7, 7), (5, 4)])
def test_the_buffer_holds_the_newest(capacity, n):
    """After every addition what is in it is the end of the list of all that came, and a copy
    through the state_dict goes on in the same way."""
    buffer, numbers = sac.ReplayBuffer(capacity, 2, 2), count()
    everything = []
    for step in range(12):
        new = [next(numbers) for _ in range(n)]
        everything += new
        buffer.add(*rows(new))
        kept = everything[-capacity:]
        held = [array[: len(kept)] for array in buffer.arrays]
        order = np.argsort(held[2])
        for found, expected in zip(held, rows(kept), strict=True):
            np.testing.assert_array_equal(found[order], expected)
        if step % 5 == 4:
            other = sac.ReplayBuffer(capacity, 2, 2)
            state = buffer.state_dict()
            assert [len(torch.cat(pieces)) for pieces in state["arrays"]] == [len(kept)] * 5
            other.load_state_dict(copied(state))
            buffer = other


@pytest.mark.parametrize("filled", [6, 10, 23])
def test_every_transition_of_the_buffer_is_drawn_equally_often(filled):
    """And none that is not there; every draw is one whole transition."""
    buffer = sac.ReplayBuffer(10, 2, 2)
    for number in range(filled):
        buffer.add(*rows([number]))
    torch.manual_seed(0)
    drawn = [array.numpy() for array in buffer.sample(20_000, torch.device("cpu"))]
    numbers = (drawn[2] - 0.5).astype(int)
    for found, expected in zip(drawn, rows(numbers), strict=True):
        np.testing.assert_array_equal(found, expected)
    seen, counts = np.unique(numbers, return_counts=True)
    assert seen.tolist() == list(range(filled))[-10:]
    assert stats.chisquare(counts).pvalue > 1e-3


# ---- train() ----
def test_transitions_enter_the_buffer_as_they_were(tmp_path):
    """What the environments saw, in order: actions as drawn in (-1, 1), the observation that a
    step really led to, and terminated without truncated."""
    Tape.episodes.clear()
    total = 3 * 40
    flags = {"num_envs": 3, "total_timesteps": total, "learning_starts": 60}
    _, checkpoint = train("sac", tmp_path / "run", env_id="TapeBox-v0", **flags)
    tapes = transitions(3, 40)
    steps = [tape[t] for t in range(40) for tape in tapes]
    assert checkpoint["buffer"]["count"] == total
    obs, actions, rewards, next_obs, terminated = (
        torch.cat(pieces).numpy() for pieces in checkpoint["buffer"]["arrays"]
    )
    np.testing.assert_array_equal(obs, [step[0] for step in steps])
    np.testing.assert_allclose(0.5 * actions, [step[1] for step in steps], rtol=1e-6)
    np.testing.assert_allclose(rewards, [step[2] for step in steps], rtol=1e-6)
    np.testing.assert_array_equal(next_obs, [step[3] for step in steps])
    np.testing.assert_array_equal(terminated, [step[4] for step in steps])
    assert sum(step[5] and not step[4] for step in steps) > 3
    assert np.abs(actions).max() < 1
    uniform = stats.kstest(actions[:60].flatten(), stats.uniform(-1, 2).cdf)
    assert uniform.pvalue > 1e-2


def test_after_learning_starts_actions_are_drawn_from_the_policy(tmp_path, monkeypatch):
    """At what the environments showed, tanh(mean + std * noise) with new noise."""
    acts, forward, randn_like = [], sac.Actor.forward, torch.randn_like

    def note_forward(actor, obs):
        dist = forward(actor, obs)
        if obs.shape == (3, 3):  # the evaluation's is (3,), an update's (16, 3)
            acts.append([obs.clone(), dist.mean.double(), dist.log_std.double()])
        return dist

    def note_noise(x):
        noise = randn_like(x)
        if len(x) == 3:
            acts[-1].append(noise.double())
        return noise

    monkeypatch.setattr(sac.Actor, "forward", note_forward)
    monkeypatch.setattr(torch, "randn_like", note_noise)
    flags = {"num_envs": 3, "total_timesteps": 90, "learning_starts": 60, "batch_size": 16}
    _, checkpoint = train("sac", tmp_path / "run", env_id="TapeBox-v0", **flags)
    obs, actions = (torch.cat(x)[60:] for x in checkpoint["buffer"]["arrays"][:2])
    assert len(acts) == 10
    for k, (seen, mean, log_std, noise) in enumerate(acts):
        rows = slice(3 * k, 3 * k + 3)
        assert torch.equal(seen, obs[rows])
        drawn = (mean + log_std.exp() * noise).tanh()
        torch.testing.assert_close(actions[rows].double(), drawn, rtol=1e-5, atol=1e-6)
    assert len(torch.stack([noise for *_, noise in acts]).unique()) == 10 * 3 * len(mean[0])


@pytest.mark.parametrize(("num_envs", "starts", "gradient_steps"), [(1, 20, 1), (2, 16, 3)])
def test_updates_begin_after_learning_starts_and_each_step_has_as_many_as_asked_for(
    num_envs, starts, gradient_steps, tmp_path, monkeypatch
):
    """Up to that step actions are uniformly random; the next is the policy's, and the first
    update follows it."""
    updates, acted, loss, forward = [], [], sac.critic_loss, sac.Actor.forward
    runs, start = [], sac.Run.start
    monkeypatch.setattr(sac.Run, "start", lambda run, *a: (runs.append(run), start(run, *a))[1])

    def note_update(*args):
        updates.append(runs[0].global_step)
        return loss(*args)

    def note_forward(actor, obs):
        if obs.shape == (num_envs, 3):
            acted.append(runs[0].global_step)
        return forward(actor, obs)

    monkeypatch.setattr(sac, "critic_loss", note_update)
    monkeypatch.setattr(sac.Actor, "forward", note_forward)
    flags = {"num_envs": num_envs, "learning_starts": starts, "gradient_steps": gradient_steps}
    flags |= {"total_timesteps": starts + 4 * num_envs, "batch_size": 16}
    train("sac", tmp_path / "run", env_id="TapeBox-v0", **flags)
    steps = [starts + num_envs * k for k in range(5)]
    assert acted == steps[:-1]
    assert updates == [step for step in steps[1:] for _ in range(gradient_steps)]


UPDATES, BATCH = 5, 16


def recorded(run_dir, monkeypatch, **flags):
    """Run UPDATES updates; return the state before and after them, the batches, the noise of
    each (that of the next actions, that of the new ones), and the logged losses."""
    before, batches, noise, logged = [], [], [], []
    start, sample, record = sac.Run.start, sac.ReplayBuffer.sample, sac.Run.record_iteration
    randn_like = torch.randn_like

    def note_start(run, state, total_steps):
        start(run, state, total_steps)
        before.append({name: copied(part.state_dict()) for name, part in state.items()})

    def note_sample(buffer, *args):
        batches.append([x.clone() for x in sample(buffer, *args)])
        return batches[-1]

    def note_noise(x):
        drawn = randn_like(x)
        if len(x) == BATCH:
            noise.append(drawn)
        return drawn

    def note_iteration(run, losses):
        record(run, losses)
        if losses:
            logged.append(losses)

    monkeypatch.setattr(sac.Run, "start", note_start)
    monkeypatch.setattr(sac.ReplayBuffer, "sample", note_sample)
    monkeypatch.setattr(torch, "randn_like", note_noise)
    monkeypatch.setattr(sac.Run, "record_iteration", note_iteration)
    usual = {"num_envs": 2, "learning_starts": 40, "batch_size": BATCH}
    usual["total_timesteps"] = 40 + 2 * UPDATES
    _, after = train("sac", run_dir, env_id="TapeBox-v0", **usual | flags)
    monkeypatch.undo()
    return before[0], after, batches, noise, logged


def theirs(state: dict) -> tuple[dict, dict, dict]:
    """Our actor, critic and target under the names of Stable-Baselines3."""
    actor = {}
    for part in ("weight", "bias"):
        for layer in (0, 2):
            key = f"{layer}.{part}"
            actor[f"latent_pi.{key}"] = state["actor"][f"mean_and_log_std.{key}"]
        last = state["actor"][f"mean_and_log_std.4.{part}"]
        actor[f"mu.{part}"], actor[f"log_std.{part}"] = last.chunk(2)
    critic, target = (
        {f"qf{int(key[1]) - 1}{key[2:]}": value for key, value in state[name].items()}
        for name in ("critic", "target")
    )
    return actor, critic, target


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
@pytest.mark.parametrize("alpha", [None, 0.2])
def test_updates_equal_those_of_stable_baselines3(optimizer, alpha, tmp_path, monkeypatch):
    """Several in a row on the same batches and noise: actor, critics, target networks,
    temperature and losses. Plain gradient descent shows a gradient that Adam would rescale.

    They add 1e-6 to 1 - tanh(u)^2 before the logarithm, which is set to 0 here. They draw the
    new actions before the next ones and have an optimiser for each part; and their critic loss
    is half the sum of the two mean squared errors, which is ours.
    """
    adam, sgd = torch.optim.Adam, torch.optim.SGD
    rate, tolerance = (3e-3, 0.05) if optimizer == "Adam" else (0.05, 5e-3)
    with monkeypatch.context() as patch:
        if optimizer == "SGD":
            patch.setattr(torch.optim, "Adam", lambda weights, lr, **_: sgd(weights, lr))
        before, after, batches, noise, logged = recorded(
            tmp_path / "run", patch, learning_rate=rate, alpha=alpha, gamma=0.95, tau=0.1
        )
    assert len(batches) == UPDATES
    assert len(noise) == 2 * UPDATES

    model = SAC(
        "MlpPolicy", DummyVecEnv([lambda: Tape(continuous=True)]), learning_rate=rate,
        gamma=0.95, tau=0.1, ent_coef=alpha or "auto", buffer_size=10, device="cpu",
    )  # fmt: skip
    model.set_logger(Logger(folder=None, output_formats=[]))
    networks = (model.actor, model.critic, model.critic_target)
    for network, state in zip(networks, theirs(before), strict=True):
        network.load_state_dict(state, strict=True)
    model.actor.action_dist.epsilon = 0.0
    if optimizer == "SGD":
        for network in networks[:2]:
            network.optimizer = sgd(network.parameters(), rate)
        if alpha is None:
            model.ent_coef_optimizer = sgd([model.log_ent_coef], rate)
    assert isinstance(model.actor.optimizer, adam if optimizer == "Adam" else sgd)
    samples = iter(
        ReplayBufferSamples(obs, actions, next_obs, end.float()[:, None], rewards[:, None])
        for obs, actions, rewards, next_obs, end in batches
    )
    model.replay_buffer.sample = lambda *_, **__: next(samples)
    order = iter(noise[i] for k in range(UPDATES) for i in (2 * k + 1, 2 * k))
    monkeypatch.setattr(
        "torch.distributions.normal._standard_normal", lambda *_, **__: next(order)
    )
    model.train(UPDATES, BATCH)

    # Adam turns a gradient that is nearly 0 into a step, whose sign is a matter of rounding.
    for network, old, new in zip(networks, theirs(before), theirs(after), strict=True):
        for key, value in network.state_dict().items():
            moved = (value - old[key]).abs().max().item()
            assert moved > 1e-6, f"{key} did not move: the comparison would say nothing"
            torch.testing.assert_close(
                new[key] - old[key], value - old[key], rtol=1e-3, atol=tolerance * moved
            )
    log_alpha = after["temperature"]["log_alpha"].item()
    if alpha is None:
        assert log_alpha == pytest.approx(model.log_ent_coef.item(), rel=1e-4)
        assert abs(log_alpha) > 1e-3
    else:
        assert log_alpha == before["temperature"]["log_alpha"].item()
    names = {"q_loss": "critic_loss", "policy_loss": "actor_loss", "alpha": "ent_coef"}
    for ours, name in names.items():
        mean = np.mean([losses[ours] for losses in logged])
        assert mean == pytest.approx(model.logger.name_to_value[f"train/{name}"], rel=1e-3)


def test_logged_entropy_and_targets_are_the_last_updates(tmp_path, monkeypatch):
    seen, soft_q_targets, actor_loss = [], sac.soft_q_targets, sac.actor_loss

    def note_targets(*args):
        seen.append([soft_q_targets(*args)])
        return seen[-1][0]

    def note_log_probs(q, log_probs, alpha):
        seen[-1].append(log_probs.detach())
        return actor_loss(q, log_probs, alpha)

    monkeypatch.setattr(sac, "soft_q_targets", note_targets)
    monkeypatch.setattr(sac, "actor_loss", note_log_probs)
    *_, logged = recorded(tmp_path / "run", monkeypatch, gradient_steps=2)
    assert len(seen) == 2 * len(logged) == 2 * UPDATES
    for losses, (targets, log_probs) in zip(logged, seen[1::2], strict=True):
        assert losses["q_target"] == pytest.approx(targets.mean().item(), rel=1e-5)
        assert losses["entropy"] == pytest.approx(-log_probs.mean().item(), rel=1e-5)
        assert set(losses) == {"q_loss", "policy_loss", "alpha", "q_target", "entropy"}


def test_target_networks_are_a_moving_average_of_the_critics(tmp_path, monkeypatch):
    """After k updates (1 - tau)^k times the first weights and tau (1 - tau)^(k - j) times those
    after update j."""
    tau, states, record = 0.2, [], sac.Run.record_iteration

    def note(run, losses):
        record(run, losses)
        states.append(
            {name: copied(run.state[name].state_dict()) for name in ("critic", "target")}
        )

    monkeypatch.setattr(sac.Run, "record_iteration", note)
    flags = {"tau": tau, "total_timesteps": 16 + 2 * 6, "learning_rate": 0.01}
    train("sac", tmp_path / "run", env_id="TapeBox-v0", **flags)
    states = states[7:]  # the last before the first update, and after each
    assert len(states) == 7
    for key, first in states[0]["critic"].items():
        assert torch.equal(first, states[0]["target"][key])
        for k in range(1, 7):
            expected = (1 - tau) ** k * first.double()
            for j in range(1, k + 1):
                expected += tau * (1 - tau) ** (k - j) * states[j]["critic"][key].double()
            found = states[k]["target"][key].double()
            assert (expected - first).abs().max() > 1e-5
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_fixed_temperature_stays(tmp_path):
    flags = {"alpha": 0.3, "total_timesteps": 64, "log_interval": 1}
    _, checkpoint = train("sac", tmp_path / "run", env_id="TapeBox-v0", **flags)
    assert checkpoint["temperature"]["log_alpha"].item() == pytest.approx(math.log(0.3))
    logged = [event.value for event in scalars(tmp_path / "run")["losses/alpha"]]
    assert logged == pytest.approx([0.3] * 24)


def test_a_full_buffer_is_saved_whole_and_resumed(tmp_path):
    run_dir = tmp_path / "run"
    flags = {"buffer_size": 20, "total_timesteps": 64}
    _, first = train("sac", run_dir, env_id="TapeBox-v0", **flags)
    assert first["buffer"]["count"] == 64
    sac.train(sac.Args(resume=run_dir, total_timesteps=74))
    second = checkpoint_of(run_dir)
    assert second["buffer"]["count"] == 74
    for pair in zip(first["buffer"]["arrays"], second["buffer"]["arrays"], strict=True):
        old, new = map(torch.cat, pair)
        assert len(old) == len(new) == 20
        assert torch.equal(old[:4], new[:4])  # steps 60 to 63 lie before 64 % 20
        assert torch.equal(old[14:], new[14:])
        assert new.dtype == torch.bool or not torch.equal(old[4:14], new[4:14])


@pytest.mark.parametrize(("low", "high"), [(-math.inf, math.inf), (0.0, math.inf)])
def test_unbounded_actions_are_refused(low, high, tmp_path, monkeypatch):
    monkeypatch.setattr(sac.gym, "make", lambda *_, **__: Dial([low], [high], [0.0]))
    with pytest.raises(sac.BadInput, match="tanh needs finite bounds") as refusal:
        train("sac", tmp_path / "run", env_id="Unbounded-v0", total_timesteps=64)
    assert "Unbounded-v0" in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_the_best_action_is_found_and_the_entropy_goes_to_its_target(tmp_path):
    """Actions from 900 to 940, the best near 931, nothing to bootstrap from. The entropy is
    that of actions in +-1, whose target is -1: a Gaussian with a std of 0.09 has it."""
    flags = {"total_timesteps": 700, "learning_starts": 50, "log_interval": 1}
    flags |= {"num_envs": 1, "batch_size": 32, "learning_rate": 0.01}
    summary, checkpoint = train("sac", tmp_path / "run", env_id="Dial-v0", **flags)
    entropies = [event.value for event in scalars(tmp_path / "run")["losses/entropy"]]
    assert entropies[0] > 0.3
    assert np.mean(entropies[-100:]) == pytest.approx(-1, abs=0.15)
    assert summary["eval_return_mean"] > 0.9
    assert checkpoint["temperature"]["log_alpha"].item() < -0.5


def peak(code: str) -> float:
    """A program that prints by how many MB its memory grows at most while `code` runs."""
    return (
        f"import resource, sys; sys.path.insert(0, {str(ROOT)!r}); import sac, torch\n"
        "def now(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "torch.save({'x': torch.zeros(9)}, sys.argv[1] + '.warm'); before = now()\n"
        f"{code}\nprint(now() - before)"
    )


def grown(code: str, path: Path) -> float:
    result = subprocess.run(
        [sys.executable, "-c", peak(code), path], capture_output=True, text=True, check=True
    )
    return float(result.stdout.split()[-1])


def test_a_buffer_is_saved_and_resumed_in_little_more_than_its_own_memory(tmp_path):
    """162 MB of transitions, full; its flags are read in next to none."""
    path = tmp_path / "checkpoint.pt"
    make = "buffer = sac.ReplayBuffer(400_000, 50, 1)\n"
    fill = "buffer.count = 400_000\nfor array in buffer.arrays: array[:] = 1\n"
    save = (
        "state = {'buffer': buffer.state_dict(), 'args': vars(sac.Args()), 'counters': [1]}\n"
        "torch.save(state, sys.argv[1])"
    )
    assert grown(make + fill + save, path) < 1.2 * 165
    load = make + (
        "saved = torch.load(sys.argv[1], 'cpu', weights_only=True)\n"
        "buffer.load_state_dict(saved['buffer'])\n"
        "assert all((array == 1).all() for array in buffer.arrays)"
    )
    assert grown(load, path) < 1.2 * 165
    flags = (
        "from pathlib import Path\n"
        "args = sac.check_args(sac.Args(resume=Path(sys.argv[1]).parent))\n"
        "assert args.gamma == 0.99"
    )
    assert grown(flags, path) < 20


def test_a_buffer_that_the_memory_cannot_hold_is_said_at_the_start(tmp_path, monkeypatch):
    """By its size when it is full, though it takes no memory yet."""
    usual = os.sysconf
    pages = {"SC_PHYS_PAGES": 1000}  # of 4 kB each, mostly
    monkeypatch.setattr(os, "sysconf", lambda name: pages.get(name, usual(name)))
    args = sac.Args(run_dir=tmp_path / "run", buffer_size=200_000)
    with pytest.raises(sac.BadInput, match="buffer_size 200000 takes"):
        sac.train(args)
    assert not (tmp_path / "run").exists()
