"""REINFORCE against the exactly enumerated policy gradient of a small tabular problem.

The problem: states {0, 1}, actions {0, 1}, at most three steps. Action a in state s earns
REWARD[s, a], moves to the other state with probability MOVE[s, a] and ends the episode with
probability END[s, a]. Every trajectory is listed with its probability, so an expectation over
trajectories is a finite sum: no sampling, no tolerance for noise.
"""

import numpy as np
import pytest
import torch
from envs import Tape
from helpers import module, networks, train

REWARD = np.array([[1.0, -0.5], [0.3, 2.0]])
MOVE = np.array([[0.7, 0.2], [0.4, 0.9]])
END = np.array([[0.1, 0.5], [0.3, 0.2]])
HORIZON = 3
LOGITS = torch.tensor([[0.2, -0.4], [0.5, 0.1]], dtype=torch.float64)


def trajectories():
    """All (states, actions, probability of the environment's part): lists of 1 to HORIZON
    steps, from state 0."""
    found = []

    def extend(states, actions, probability):
        for action in (0, 1):
            state, taken = states[-1], [*actions, action]
            if len(taken) == HORIZON:
                found.append((states, taken, probability))
                continue
            found.append((states, taken, probability * END[state, action]))
            for following in (0, 1):
                move = MOVE[state, action] if following != state else 1 - MOVE[state, action]
                extend(
                    [*states, following], taken, probability * (1 - END[state, action]) * move
                )

    extend([0], [], 1.0)
    return found


def expected_return(logits: torch.Tensor) -> torch.Tensor:
    """J = sum over trajectories of p(trajectory) * sum of rewards, differentiable in the logits
    (2, 2)."""
    log_pi = logits.log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for states, actions, probability in trajectories():
        log_prob = sum(log_pi[s, a] for s, a in zip(states, actions, strict=True))
        total = total + probability * log_prob.exp() * sum(
            REWARD[s, a] for s, a in zip(states, actions, strict=True)
        )
    return total


def padded(states, actions):
    """One trajectory as (HORIZON, 1) tensors; steps after its end hold garbage, and alive is
    False there."""
    length, pad = len(actions), HORIZON - len(actions)
    rewards = [REWARD[s, a] for s, a in zip(states, actions, strict=True)] + [0.0] * pad
    alive = [True] * length + [False] * pad
    columns = (states + [1] * pad, actions + [1] * pad, rewards, alive)
    return [torch.tensor(x)[:, None] for x in columns]


def estimates(name: str, baseline: np.ndarray | None, gamma: float = 1.0):
    """The probability of each trajectory and the gradient that the shipped functions estimate
    from it alone."""
    script = module(name)
    weights, gradients = [], []
    for states, actions, probability in trajectories():
        logits = LOGITS.clone().requires_grad_()
        log_pi = logits.log_softmax(-1)
        obs, taken, rewards, alive = padded(states, actions)
        advantages = script.returns_to_go(rewards, gamma)
        if baseline is not None:
            advantages = advantages - torch.as_tensor(baseline)[obs]
        script.reinforce_loss(log_pi[obs, taken], advantages, alive).backward()
        weights.append(
            probability
            * sum(log_pi[s, a] for s, a in zip(states, actions, strict=True)).exp().item()
        )
        gradients.append(-logits.grad.flatten().numpy())
    return np.array(weights), np.array(gradients)


def exact_gradient() -> np.ndarray:
    logits = LOGITS.clone().requires_grad_()
    expected_return(logits).backward()
    return logits.grad.flatten().numpy()


def total_variance(weights, gradients) -> float:
    mean = weights @ gradients
    return float(weights @ ((gradients - mean) ** 2).sum(1))


def test_the_enumeration_is_complete():
    weights, _ = estimates("reinforce", None)
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline"])
def test_unbiased_without_baseline(name):
    weights, gradients = estimates(name, None)
    np.testing.assert_allclose(weights @ gradients, exact_gradient(), atol=1e-12)


@pytest.mark.parametrize("baseline", [[0.0, 0.0], [5.0, -3.0], [1.3, 1.7]])
def test_unbiased_with_any_baseline(baseline):
    weights, gradients = estimates("reinforce_baseline", np.array(baseline))
    np.testing.assert_allclose(weights @ gradients, exact_gradient(), atol=1e-12)


def test_a_good_baseline_lowers_the_variance():
    """The mean return that follows a state, over all its visits, against none and against a bad
    one."""
    probabilities, visits, sums = [], np.zeros(2), np.zeros(2)
    log_pi = LOGITS.log_softmax(-1)
    for states, actions, probability in trajectories():
        p = (
            probability
            * sum(log_pi[s, a] for s, a in zip(states, actions, strict=True)).exp().item()
        )
        probabilities.append(p)
        for t, s in enumerate(states):
            visits[s] += p
            sums[s] += p * sum(
                REWARD[u, a] for u, a in zip(states[t:], actions[t:], strict=True)
            )
    without = total_variance(*estimates("reinforce_baseline", None))
    good = total_variance(*estimates("reinforce_baseline", sums / visits))
    bad = total_variance(*estimates("reinforce_baseline", np.array([-5.0, 9.0])))
    assert good < 0.7 * without
    assert bad > without


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline"])
@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
def test_returns_to_go_by_brute_force(name, gamma):
    rewards = np.random.default_rng(0).normal(size=(7, 3))
    expected = [
        [sum(gamma ** (k - t) * rewards[k, n] for k in range(t, 7)) for n in range(3)]
        for t in range(7)
    ]
    np.testing.assert_allclose(
        module(name).returns_to_go(torch.as_tensor(rewards), gamma), expected, atol=1e-12
    )


def test_normalized_returns_by_hand():
    """Three episodes of 3, 2 and 1 steps: what is alone at its step is its own mean."""
    returns = torch.tensor([[9.0, 6.0, 3.0], [4.0, 2.0, 77.0], [5.0, 55.0, 66.0]])
    alive = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    expected = (
        torch.tensor([[3.0, 0.0, -3.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]) / (20 / 6) ** 0.5
    )
    torch.testing.assert_close(module("reinforce").normalize_returns(returns, alive), expected)


@pytest.mark.parametrize("num_envs", [1, 3, 10, 16])
def test_nothing_is_learned_where_all_episodes_have_the_same_returns(num_envs):
    """Not even from rounding errors, which a division by their std would blow up."""
    script, steps = module("reinforce"), 500
    returns = script.returns_to_go(torch.full((steps, num_envs), -1.0), 0.99)
    assert not script.normalize_returns(returns, torch.ones(steps, num_envs, dtype=bool)).any()


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline"])
def test_the_loss_averages_over_episodes(name):
    """A batch of two episodes of different lengths gives the mean of their gradients."""
    (_, gradients), script = estimates(name, None), module(name)
    short = next(i for i, (_, actions, _) in enumerate(trajectories()) if len(actions) == 1)
    long = next(
        i for i, (_, actions, _) in enumerate(trajectories()) if len(actions) == HORIZON
    )
    logits = LOGITS.clone().requires_grad_()
    pair = [padded(*trajectories()[i][:2]) for i in (long, short)]
    obs, taken, rewards, alive = (torch.cat(columns, 1) for columns in zip(*pair, strict=True))
    returns = script.returns_to_go(rewards, 1.0)
    script.reinforce_loss(logits.log_softmax(-1)[obs, taken], returns, alive).backward()
    np.testing.assert_allclose(
        -logits.grad.flatten(), gradients[[long, short]].mean(0), atol=1e-12
    )


def iterations(script, name, run_dir, monkeypatch, **flags):
    """Train with plain gradient steps; return what the training environments saw, the networks
    before the first iteration and after each, and the logged losses of each."""
    sgd = torch.optim.SGD
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, lr, **_: sgd(parameters, lr))
    states, losses = [], []
    start, record, evaluate = script.Run.start, script.Run.record_iteration, script.evaluate

    def note_start(run, *args):
        start(run, *args)
        states.append(networks(run))

    def note_iteration(run, values):
        record(run, values)
        states.append(networks(run))
        losses.append(values)

    def note_end(actor, env, run):
        seen.extend(Tape.episodes)
        states.append(networks(run))
        return evaluate(actor, env, run)

    monkeypatch.setattr(script.Run, "start", note_start)
    monkeypatch.setattr(script.Run, "record_iteration", note_iteration)
    monkeypatch.setattr(script, "evaluate", note_end)
    Tape.episodes.clear()
    seen = []
    summary, _ = train(name, run_dir, env_id="Tape-v0", **flags)
    return seen, states, losses, summary


def rows_of(episodes, gamma):
    """obs, action, return and time of every step, by brute force."""
    obs, actions, returns, steps = [], [], [], []
    for episode in episodes:
        rewards = [step[2] for step in episode]
        for t, step in enumerate(episode):
            obs.append(step[0])
            actions.append(int(step[1]))
            returns.append(sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))))
            steps.append(t)
    returns = torch.tensor(returns, dtype=torch.float64)
    obs = torch.as_tensor(np.array(obs)).double()
    return obs, torch.tensor(actions), returns, torch.tensor(steps)


@pytest.mark.parametrize(
    ("name", "norm_returns"),
    [("reinforce", False), ("reinforce", True), ("reinforce_baseline", False)],
)
def test_every_iteration_takes_the_gradient_of_its_own_episodes(
    name, norm_returns, tmp_path, monkeypatch
):
    """The whole of train(), three iterations: one episode of each environment and nothing else,
    step by step by hand. What is logged are the losses at the weights that made the
    episodes."""
    script, gamma, num_envs, rate = module(name), 0.9, 3, 1e-2
    flags = {"norm_returns": True} if norm_returns else {}
    seen, states, losses, _ = iterations(
        script, name, tmp_path / "run", monkeypatch,
        num_envs=num_envs, gamma=gamma, learning_rate=rate, total_timesteps=120, **flags,
    )  # fmt: skip
    assert len(losses) >= 3
    for k in range(3):
        # Before training come num_envs resets with seeds, then num_envs resets an iteration.
        episodes = seen[(k + 1) * num_envs : (k + 2) * num_envs]
        assert all(any(episode[-1][4:]) for episode in episodes)
        assert len({len(episode) for episode in episodes}) > 1, "lengths should differ"
        obs, actions, returns, steps = rows_of(episodes, gamma)
        actor = script.Actor(3, 3).double()
        actor.load_state_dict(states[k]["actor"])
        advantages = returns
        if norm_returns:
            means = torch.stack([returns[steps == t].mean() for t in steps])
            advantages = (returns - means) / (returns - means).std(correction=0)
        if name == "reinforce_baseline":
            critic = script.Critic(3).double()
            critic.load_state_dict(states[k]["critic"])
            advantages = returns - critic(obs).detach()
        log_pi = torch.log_softmax(actor.logits(obs), -1)
        taken = log_pi[range(len(obs)), actions]
        objective = (taken * advantages).sum() / num_envs
        objective.backward()
        for key, parameter in actor.named_parameters():
            step = (states[k + 1]["actor"][key] - states[k]["actor"][key]).double() / rate
            torch.testing.assert_close(step, parameter.grad, rtol=2e-2, atol=1e-3)

        logged = losses[k]
        entropy = -(log_pi.exp() * log_pi).sum(-1).mean().item()
        norm = sum(p.grad.square().sum() for p in actor.parameters()).sqrt().item()
        assert logged["policy_loss"] == pytest.approx(-objective.item(), rel=1e-3)
        assert logged["entropy"] == pytest.approx(entropy, rel=1e-5)
        assert logged["grad_norm"] == pytest.approx(norm, rel=1e-3)
        if name == "reinforce_baseline":
            share = 1 - (advantages.var() / returns.var()).item()
            assert logged["explained_variance"] == pytest.approx(share, rel=1e-3, abs=1e-4)
            errors = []
            for _ in range(10):
                error = (critic(obs) - returns).square().mean()
                gradients = torch.autograd.grad(error, list(critic.parameters()))
                with torch.no_grad():
                    for p, gradient in zip(critic.parameters(), gradients, strict=True):
                        p -= rate * gradient
                errors.append(error.item())
            assert errors[-1] < errors[0]
            assert logged["value_loss"] == pytest.approx(np.mean(errors), rel=1e-3)
            for key, value in critic.state_dict().items():
                found = states[k + 1]["critic"][key].double()
                torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline"])
@pytest.mark.parametrize(("total", "number_cut"), [(98, 0), (107, 3), (127, 1), (133, 3)])
def test_steps_count_in_running_episodes_only_and_a_cut_one_teaches_nothing(
    name, total, number_cut, tmp_path, monkeypatch
):
    """Every step that an environment made is counted once, nothing else is, and never more than
    asked for. The last episodes, of which the end of the steps cuts some, change no weight, not
    even those that are complete: there is one iteration for each whole batch."""
    num_envs = 4
    seen, states, losses, summary = iterations(
        module(name), name, tmp_path / "run", monkeypatch,
        num_envs=num_envs, total_timesteps=total, learning_rate=0.1,
    )  # fmt: skip
    made = sum(len(episode) for episode in seen)
    assert summary["global_step"] == made <= total
    complete = [episode for episode in seen if episode and any(episode[-1][4:])]
    cut = [episode for episode in seen if episode and not any(episode[-1][4:])]
    assert total - made < (len(cut) or num_envs), (
        "no room was left for the episodes still running"
    )
    assert summary["train_episodes"] == len(complete)
    assert len(cut) == number_cut
    batches = [seen[k : k + num_envs] for k in range(num_envs, len(seen), num_envs)]
    whole = [all(episode and any(episode[-1][4:]) for episode in batch) for batch in batches]
    assert whole == [True] * (len(batches) - 1) + [False]
    assert len(losses) == len(batches) - 1 >= 2
    assert any(not torch.equal(states[0]["actor"][k], v) for k, v in states[1]["actor"].items())
    for key in states[-1]:
        for name, value in states[-1][key].items():
            assert torch.equal(value, states[-2][key][name])


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline"])
def test_an_environment_whose_episode_is_over_is_not_stepped(name, tmp_path, monkeypatch):
    """In each iteration each environment ends one episode and begins the next with the
    others."""
    seen, _, losses, _ = iterations(
        module(name), name, tmp_path / "run", monkeypatch, num_envs=3, total_timesteps=200
    )
    assert not any(seen[:3])  # the resets that take the seeds
    for episode in seen[3 : 3 + 3 * len(losses)]:
        assert any(episode[-1][4:])
        assert not any(any(step[4:]) for step in episode[:-1])
    lengths = [len(episode) for episode in seen[3 : 3 + 3 * len(losses)]]
    assert len(set(lengths)) > 3
