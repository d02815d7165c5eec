"""Several iterations of train() in a row, each recomputed from the weights it began with.

The recomputation shares no code with the scripts: networks, densities, advantages, losses and
gradient steps are written out here, in double precision, from what the environments saw. The
optimiser is replaced by plain gradient descent, so that a step shows its gradient, and the
order of the minibatches is noted. What an iteration must not take from an earlier one (a
gradient, a statistic, a segment) shows from the second iteration on; and what is logged is
recomputed too.
"""

import math

import numpy as np
import pytest
import torch
from envs import Tape
from helpers import (
    Recorder,
    env_id,
    fields,
    gae_by_definition,
    module,
    own_names,
    train,
    transitions,
)

NUM_ENVS, NUM_STEPS, ITERATIONS, GAMMA, GAE_LAMBDA = 2, 16, 4, 0.9, 0.8
BATCH = NUM_ENVS * NUM_STEPS


class Recorded(Recorder):
    """Runs a script with notes taken, also of the actions as they were drawn."""

    def __init__(self, script: str, run_dir, monkeypatch, env_kwargs: str = "{}", **flags):
        super().__init__()
        found, self.drawn = module(script), []
        sample, sgd = found.Actor.sample, torch.optim.SGD

        def note_sample(actor, obs):
            self.drawn.append(sample(actor, obs))
            return self.drawn[-1]

        def descent(parameters, lr, **_):
            return sgd(parameters, lr)

        self.watch(found, monkeypatch)
        monkeypatch.setattr(found.Actor, "sample", note_sample)
        monkeypatch.setattr(torch.optim, "Adam", descent)
        monkeypatch.setattr(torch.optim, "RMSprop", descent)
        # Outputs of the usual start are so small that few mistakes would show in them.
        mlp = found.mlp
        monkeypatch.setattr(found, "mlp", lambda n, m, out_gain: mlp(n, m, 1.0))
        Tape.episodes.clear()
        usual = {"num_envs": NUM_ENVS, "num_steps": NUM_STEPS, "gamma": GAMMA}
        usual |= {"gae_lambda": GAE_LAMBDA, "total_timesteps": BATCH * ITERATIONS}
        name = env_id(script, "Tape-v0")
        flags = own_names(script, usual | flags)
        train(script, run_dir, env_id=name, env_kwargs=env_kwargs, **flags)
        if script == "a3c":
            self.segments = segments_in_turn(Tape.episodes)
            return
        drawn = torch.stack(self.drawn[: NUM_STEPS * ITERATIONS]).numpy()
        tapes = transitions(NUM_ENVS, NUM_STEPS * ITERATIONS, drawn)
        columns = zip(*(zip(*tape, strict=True) for tape in tapes), strict=True)
        arrays = [np.array(column).swapaxes(0, 1) for column in columns]
        self.all_obs, _, self.all_rewards, *_ = arrays
        self.ended = arrays[4] | arrays[5]
        self.segments = [
            [x[k * NUM_STEPS : (k + 1) * NUM_STEPS] for x in arrays] for k in range(ITERATIONS)
        ]


def segments_in_turn(episodes: list[list[tuple]]) -> list[list[np.ndarray]]:
    """What A3C's workers learned from, as they took turns (lockstep.py). A worker resets its
    environment first when its turn comes, and whenever an episode has ended."""
    owner, position, following, segments = {}, {}, 0, []
    for k in range(ITERATIONS):
        worker, steps = k % NUM_ENVS, []
        if worker not in owner:
            owner[worker], position[worker] = following, 0
            following += 1
        for _ in range(NUM_STEPS):
            steps.append(episodes[owner[worker]][position[worker]])
            position[worker] += 1
            if steps[-1][4] or steps[-1][5]:
                owner[worker], position[worker] = following, 0
                following += 1
        columns = zip(*steps, strict=True)
        segments.append([np.array(column)[:, None] for column in columns])
    return segments


def forward(weights: dict, prefix: str, x: torch.Tensor) -> torch.Tensor:
    for layer in (0, 2):
        w, b = weights[f"{prefix}.{layer}.weight"], weights[f"{prefix}.{layer}.bias"]
        x = torch.tanh(x @ w.T + b)
    return x @ weights[f"{prefix}.4.weight"].T + weights[f"{prefix}.4.bias"]


def density(weights: dict, obs: torch.Tensor, actions: torch.Tensor):
    """Log-probabilities of the actions and entropies of the policy, by their formulas."""
    if "log_std" in weights:
        mean, log_std = forward(weights, "mean", obs), weights["log_std"]
        z = (actions - mean) / log_std.exp()
        log_prob = (-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        entropy = (0.5 * math.log(2 * math.pi * math.e) + log_std).sum().expand(len(obs))
        return log_prob, entropy
    logits = forward(weights, "logits", obs)
    log_pi = logits - logits.exp().sum(-1, keepdim=True).log()
    entropy = -(log_pi.exp() * log_pi).sum(-1)
    return log_pi.gather(-1, actions.long()[..., None]).squeeze(-1), entropy


def leaves(state: dict) -> dict:
    """The parameters of a network in double precision, ready to be differentiated."""
    return {
        key: value.double().requires_grad_()
        for key, value in state.items()
        if not key.startswith("norm.")
    }


def segment(run: Recorded, k: int, reward_of=lambda k, rewards: rewards, normalised=False):
    """Everything that iteration k learns from, flat: obs, actions, advantages, returns; and the
    values' explained variance."""
    obs, actions, rewards, next_obs, terminated, truncated = run.segments[k]
    mean, std = np.zeros(3), np.ones(3)
    if normalised and k:
        seen = run.all_obs[: k * NUM_STEPS].reshape(-1, 3).astype(float)
        mean, std = seen.mean(0), np.sqrt(seen.var(0) + 1e-8)
    obs, next_obs = (
        torch.as_tensor(((x - mean) / std).clip(-10, 10) if normalised else x).double()
        for x in (obs.astype(float), next_obs.astype(float))
    )
    critic = {key: value.double() for key, value in run.states[k]["critic"].items()}
    values, next_values = (
        forward(critic, "value", x).squeeze(-1).numpy() for x in (obs, next_obs)
    )
    rewards = reward_of(k, rewards)
    arrays = rewards, values, next_values, terminated, truncated
    advantages = gae_by_definition(*arrays, GAMMA, GAE_LAMBDA)
    returns = advantages + values
    explained = 1 - (returns - values).var(ddof=1) / returns.var(ddof=1)
    flat = [torch.as_tensor(x).flatten(0, 1) for x in (advantages, returns)]
    return obs.flatten(0, 1), torch.as_tensor(actions).flatten(0, 1), *flat, explained


def scaling(run: Recorded, norm_reward: bool):
    """What becomes of the rewards of iteration k."""
    sums = np.zeros_like(run.all_rewards)
    for n in range(NUM_ENVS):
        running = 0.0
        for t in range(len(sums)):
            sums[t, n] = running = run.all_rewards[t, n] + GAMMA * running
            running *= not run.ended[t, n]

    def scaled(k, rewards):
        if not norm_reward:
            return rewards
        std = np.sqrt(sums[: (k + 1) * NUM_STEPS].var() + 1e-8)
        return (rewards / std).clip(-10, 10)

    return scaled


def check(after: dict, weights: dict, before: dict) -> None:
    """The weights after an iteration are those computed here."""
    for key, value in weights.items():
        moved = (value.detach() - before[key].double()).abs().max().item()
        assert moved > 1e-7, f"{key} did not move: the comparison would say nothing"
        found, expected = (
            after[key].double() - before[key].double(),
            value - before[key].double(),
        )
        torch.testing.assert_close(found, expected.detach(), rtol=1e-2, atol=5e-3 * moved)


def step(loss: torch.Tensor, weights: list[torch.Tensor], rate: float, longest: float) -> float:
    """Plain gradient descent with clipping; returns the gradient's norm before it."""
    gradients = torch.autograd.grad(loss, weights)
    norm = sum(g.square().sum() for g in gradients).sqrt().item()
    with torch.no_grad():
        for w, g in zip(weights, gradients, strict=True):
            w -= rate * min(1.0, longest / norm) * g
    return norm


@pytest.mark.parametrize("norm_adv", [False, True])
@pytest.mark.parametrize("script", ["a2c", "a3c"])
def test_a2c(script, norm_adv, tmp_path, monkeypatch):
    """A3C's two workers update in turn, each from its own segment, made with the weights as the
    other has left them."""
    rate, scale, longest, vf_coef, ent_coef = 0.05, 0.5, 0.8, 0.4, 0.1
    total = NUM_STEPS * ITERATIONS * (NUM_ENVS if script == "a2c" else 1)
    run = Recorded(
        script, tmp_path / "run", monkeypatch, learning_rate=rate, total_timesteps=total,
        reward_scale=scale, max_grad_norm=longest, vf_coef=vf_coef, ent_coef=ent_coef,
        norm_adv=norm_adv,
    )  # fmt: skip
    norms = []
    for k in range(ITERATIONS):
        parts = segment(run, k, lambda k, rewards: scale * rewards)
        obs, actions, advantages, returns, explained = parts
        before = run.states[k]
        actor, critic = leaves(before["actor"]), leaves(before["critic"])
        if norm_adv:
            advantages = (advantages - advantages.mean()) / advantages.std(correction=1)
        log_probs, entropies = density(actor, obs, actions)
        policy_loss = -(log_probs * advantages).mean()
        value_loss = (forward(critic, "value", obs).squeeze(-1) - returns).square().mean()
        entropy = entropies.mean()
        loss = policy_loss + vf_coef * value_loss - ent_coef * entropy
        weights = [*actor.values(), *critic.values()]
        annealed = rate * (1 - k / ITERATIONS)
        norms.append(step(loss, weights, annealed, longest))
        check(run.states[k + 1]["actor"], actor, before["actor"])
        check(run.states[k + 1]["critic"], critic, before["critic"])
        expected = {
            "policy_loss": policy_loss.item(), "value_loss": value_loss.item(),
            "entropy": entropy.item(), "grad_norm": norms[-1],
            "explained_variance": explained, "learning_rate": annealed,
        }  # fmt: skip
        expected |= {"staleness": 0.0} if script == "a3c" else {}
        assert run.logged[k] == pytest.approx(expected, rel=2e-3, abs=1e-4)
    assert max(norms) > longest


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("ppo", {}),
        ("ppo", {"norm_adv": False, "ent_coef": 0.1}),
        ("ppo_continuous", {}),
        ("ppo_continuous", {"norm_obs": False, "norm_reward": False, "ent_coef": 0.1}),
    ],
)
def test_ppo(script, flags, tmp_path, monkeypatch):
    """With ppo_continuous's normalisation the observations are far from mean 0 and std 1."""
    rate, clip, longest, vf_coef, epochs = 0.03, 0.1, 1.0, 0.4, 3
    usual = {"norm_adv": True, "ent_coef": 0.0, "norm_obs": True, "norm_reward": True}
    if script == "ppo":
        usual |= {"norm_obs": False, "norm_reward": False}
    flags = usual | flags
    given = {name: value for name, value in flags.items() if name in fields(script)}
    run = Recorded(
        script, tmp_path / "run", monkeypatch, learning_rate=rate, clip_coef=clip,
        max_grad_norm=longest, vf_coef=vf_coef, update_epochs=epochs, num_minibatches=4,
        env_kwargs='{"shift": 3.0, "scale": 5.0}' if flags["norm_obs"] else "{}", **given,
    )  # fmt: skip
    scaled, clipped = scaling(run, flags["norm_reward"]), []
    for k in range(ITERATIONS):
        obs, actions, advantages, returns, explained = segment(
            run, k, scaled, flags["norm_obs"]
        )
        before = run.states[k]
        actor, critic = leaves(before["actor"]), leaves(before["critic"])
        weights = [*actor.values(), *critic.values()]
        old_log_probs = density(actor, obs, actions)[0].detach()
        annealed, stats = rate * (1 - k / ITERATIONS), []
        for _ in range(epochs):
            for indices in run.orders.pop(0).split(BATCH // 4):
                a = advantages[indices]
                if flags["norm_adv"]:
                    a = (a - a.mean()) / a.std(correction=1)
                log_probs, entropies = density(actor, obs[indices], actions[indices])
                ratio = (log_probs - old_log_probs[indices]).exp()
                inside = ((ratio >= 1 - clip) & (ratio <= 1 + clip)).double()
                bound = torch.where(a > 0, (1 + clip) * a, (1 - clip) * a)
                policy_loss = -torch.minimum(ratio * a, bound).mean()
                values = forward(critic, "value", obs[indices]).squeeze(-1)
                value_loss = (values - returns[indices]).square().mean()
                entropy = entropies.mean()
                loss = policy_loss + vf_coef * value_loss - flags["ent_coef"] * entropy
                kl = (ratio - 1 - ratio.log()).mean().item()
                norm = step(loss, weights, annealed, longest)
                parts = (policy_loss.item(), value_loss.item(), entropy.item(), kl)
                stats.append((*parts, 1 - inside.mean().item(), norm))
        check(run.states[k + 1]["actor"], actor, before["actor"])
        check(run.states[k + 1]["critic"], critic, before["critic"])
        names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_frac", "grad_norm")
        expected = dict(zip(names, np.mean(stats, axis=0), strict=True))
        expected |= {"explained_variance": explained, "learning_rate": annealed}
        assert run.logged[k] == pytest.approx(expected, rel=5e-3, abs=2e-4)
        clipped.append(expected["clip_frac"])
    assert max(clipped) > 0.01


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("trpo", {}),
        ("trpo_continuous", {}),
        ("trpo_continuous", {"norm_obs": False, "norm_reward": False}),
    ],
)
def test_trpo(script, flags, tmp_path, monkeypatch):
    """The critic's epochs, and what the trust region step is handed; its own work is tested in
    test_trpo.py."""
    rate, handed = 0.05, []
    found, norm = module(script), script == "trpo_continuous" and not flags
    trust_region_step = found.trust_region_step

    def note(actor, *args):
        copies = [x.clone() if isinstance(x, torch.Tensor) else x for x in args]
        result = trust_region_step(actor, *args)
        handed.append((*copies, dict(result)))
        return result

    monkeypatch.setattr(found, "trust_region_step", note)
    run = Recorded(
        script, tmp_path / "run", monkeypatch, learning_rate=rate, num_minibatches=4,
        env_kwargs='{"shift": 3.0, "scale": 5.0}' if norm else "{}",
        n_critic_updates=3, target_kl=0.02, cg_max_steps=7, cg_damping=0.3,
        line_search_max_iter=6, line_search_shrinking_factor=0.7, **flags,
    )  # fmt: skip
    for k in range(ITERATIONS):
        obs, actions, advantages, returns, explained = segment(run, k, scaling(run, norm), norm)
        advantages = (advantages - advantages.mean()) / advantages.std(correction=1)
        *given, result = handed[k]
        raw = torch.as_tensor(run.segments[k][0]).flatten(0, 1)  # the actor normalises them
        assert torch.equal(given[0], raw)
        assert torch.equal(given[1], actions)
        torch.testing.assert_close(given[2].double(), advantages, rtol=1e-3, atol=1e-4)
        assert tuple(given[3:]) == (0.02, 7, 0.3, 6, 0.7)

        before, errors = run.states[k], []
        critic = leaves(before["critic"])
        for _ in range(3):
            for indices in run.orders.pop(0).split(BATCH // 4):
                values = forward(critic, "value", obs[indices]).squeeze(-1)
                error = (values - returns[indices]).square().mean()
                step(error, list(critic.values()), rate, math.inf)
                errors.append(error.item())
        check(run.states[k + 1]["critic"], critic, before["critic"])
        after = leaves(run.states[k + 1]["actor"])
        old = leaves(before["actor"])
        log_probs, entropies = density(after, obs, actions)
        ratio = (log_probs - density(old, obs, actions)[0]).exp()
        assert result["accepted"] == 1
        expected = {
            "policy_loss": -(ratio * advantages).mean().item(), "kl": result["kl"],
            "accepted": 1.0, "step_fraction": result["step_fraction"],
            "entropy": entropies.mean().item(), "value_loss": np.mean(errors),
            "explained_variance": explained,
        }  # fmt: skip
        assert run.logged[k] == pytest.approx(expected, rel=5e-3, abs=1e-3)


@pytest.mark.parametrize(("script", "norm_obs"), [("ppo", None), ("ppo_continuous", True)])
def test_without_learning_the_ratio_stays_1(script, norm_obs, tmp_path, monkeypatch):
    """Acting, the old log-probabilities and the updates see the same normalisation, also after
    the statistics have moved: at learning rate 0 nothing ever moves away from the old
    policy."""
    run = Recorded(
        script, tmp_path / "run", monkeypatch, learning_rate=0.0, clip_coef=1e-5,
        env_kwargs='{"shift": 20.0, "scale": 4.0}', num_minibatches=4, update_epochs=2,
    )  # fmt: skip
    for losses in run.logged:
        assert losses["clip_frac"] == 0
        assert abs(losses["approx_kl"]) < 1e-7  # ratios are rounded to 2**-23
    states = [state["actor"] for state in run.states]
    if norm_obs:
        assert not torch.equal(states[1]["norm.mean"], states[2]["norm.mean"])
    for key, value in states[0].items():
        assert key.startswith("norm.") or torch.equal(value, states[-1][key])


def test_policy_and_critic_see_normalised_observations_always(tmp_path, monkeypatch):
    """What reaches the first layer of either network, in the rollout as in the update, has
    about mean 0 and std 1 once there are statistics, however far off the observations are; and
    in the evaluation too."""
    found, inputs = module("ppo_continuous"), []
    mlp = found.mlp

    def watched(*args, **kwargs):
        net, name = mlp(*args, **kwargs), f"net{len(inputs)}"
        inputs.append((name, []))
        seen = inputs[-1][1]
        net.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach().reshape(-1, 3)))
        return net

    monkeypatch.setattr(found, "mlp", watched)
    kwargs = '{"shift": 1000.0, "scale": 20.0, "p_end": 0.01}'
    flags = {"total_timesteps": 8 * BATCH, "num_envs": 2, "num_steps": 16, "update_epochs": 1}
    train("ppo_continuous", tmp_path / "run", env_id="TapeBox-v0", env_kwargs=kwargs, **flags)
    assert len(inputs) == 2
    for _, batches in inputs:
        raw = [b for b in batches if (b == 10).all()]  # before there were statistics: clipped
        later = batches[len(raw) :]
        assert 0 < len(raw) < len(batches) / 4
        assert all(b.abs().max() < 8 for b in later)
        everything = torch.cat(later)
        assert everything.mean().abs() < 0.3
        assert 0.7 < everything.std() < 1.4


@pytest.mark.parametrize("bad", [1.0, -1.0])
def test_scaled_rewards_are_clipped_on_both_sides(bad, tmp_path, monkeypatch):
    """One reward in a thousand is huge: its multiple of the running std would be far above
    10."""
    scaled, found = [], module("ppo_continuous")
    gae = found.gae
    monkeypatch.setattr(found, "gae", lambda *a: (scaled.append(a[0].clone()), gae(*a))[1])

    class Rare(Tape):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            huge = len(Tape.episodes) > 5 and not Rare.given
            Rare.given |= huge
            return obs, bad * 1e6 if huge else reward, *rest

    Rare.given = False
    Tape.episodes.clear()
    monkeypatch.setattr(found.gym, "make", lambda *_, **__: Rare(continuous=True))
    flags = {"total_timesteps": 2048, "num_envs": 2, "num_steps": 512, "update_epochs": 1}
    train("ppo_continuous", tmp_path / "run", env_id="TapeBox-v0", gamma=0.5, **flags)
    extremes = [(segment.min().item(), segment.max().item()) for segment in scaled]
    assert extremes[0][0 if bad < 0 else 1] == 10 * bad
    assert abs(extremes[0][0 if bad > 0 else 1]) < 1
