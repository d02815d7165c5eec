"""REINFORCE against the exactly enumerated policy gradient of a small tabular problem.

The problem: states {0, 1}, actions {0, 1}, at most three steps. Action a in state s earns REWARD[s, a], moves to the
other state with probability MOVE[s, a] and ends the episode with probability END[s, a]. Every trajectory is listed with
its probability, so an expectation over trajectories is a finite sum: no sampling, no tolerance for noise.
"""

import numpy as np
import pytest
import torch
from envs import Tape
from helpers import module, train

REWARD = np.array([[1.0, -0.5], [0.3, 2.0]])
MOVE = np.array([[0.7, 0.2], [0.4, 0.9]])
END = np.array([[0.1, 0.5], [0.3, 0.2]])
HORIZON = 3
LOGITS = torch.tensor([[0.2, -0.4], [0.5, 0.1]], dtype=torch.float64)


def trajectories():
    """All (states, actions, probability of the environment's part): lists of 1 to HORIZON steps, from state 0."""
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
                extend([*states, following], taken, probability * (1 - END[state, action]) * move)

    extend([0], [], 1.0)
    return found


def expected_return(logits: torch.Tensor) -> torch.Tensor:
    """J = sum over trajectories of p(trajectory) * sum of rewards, differentiable in the logits (2, 2)."""
    log_pi = logits.log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for states, actions, probability in trajectories():
        log_prob = sum(log_pi[s, a] for s, a in zip(states, actions, strict=True))
        total = total + probability * log_prob.exp() * sum(REWARD[s, a] for s, a in zip(states, actions, strict=True))
    return total


def padded(states, actions):
    """One trajectory as (HORIZON, 1) tensors; steps after its end hold garbage, and alive is False there."""
    length, pad = len(actions), HORIZON - len(actions)
    rewards = [REWARD[s, a] for s, a in zip(states, actions, strict=True)] + [0.0] * pad
    alive = [True] * length + [False] * pad
    columns = (states + [1] * pad, actions + [1] * pad, rewards, alive)
    return [torch.tensor(x)[:, None] for x in columns]


def estimates(name: str, baseline: np.ndarray | None, gamma: float = 1.0):
    """The probability of each trajectory and the gradient that the shipped functions estimate from it alone."""
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
        weights.append(probability * sum(log_pi[s, a] for s, a in zip(states, actions, strict=True)).exp().item())
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
    """The mean return that follows a state, over all its visits, against none and against a bad one."""
    probabilities, visits, sums = [], np.zeros(2), np.zeros(2)
    log_pi = LOGITS.log_softmax(-1)
    for states, actions, probability in trajectories():
        p = probability * sum(log_pi[s, a] for s, a in zip(states, actions, strict=True)).exp().item()
        probabilities.append(p)
        for t, s in enumerate(states):
            visits[s] += p
            sums[s] += p * sum(REWARD[u, a] for u, a in zip(states[t:], actions[t:], strict=True))
    without = total_variance(*estimates("reinforce_baseline", None))
    good = total_variance(*estimates("reinforce_baseline", sums / visits))
    bad = total_variance(*estimates("reinforce_baseline", np.array([-5.0, 9.0])))
    assert good < 0.7 * without
    assert bad > without


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline"])
@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
def test_returns_to_go_by_brute_force(name, gamma):
    rewards = np.random.default_rng(0).normal(size=(7, 3))
    expected = [[sum(gamma ** (k - t) * rewards[k, n] for k in range(t, 7)) for n in range(3)] for t in range(7)]
    np.testing.assert_allclose(module(name).returns_to_go(torch.as_tensor(rewards), gamma), expected, atol=1e-12)


def test_normalized_returns_by_hand():
    """Three episodes of 3, 2 and 1 steps: what is alone at its step is its own mean."""
    returns = torch.tensor([[9.0, 6.0, 3.0], [4.0, 2.0, 77.0], [5.0, 55.0, 66.0]])
    alive = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    expected = torch.tensor([[3.0, 0.0, -3.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]) / (20 / 6) ** 0.5
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
    long = next(i for i, (_, actions, _) in enumerate(trajectories()) if len(actions) == HORIZON)
    logits = LOGITS.clone().requires_grad_()
    pair = [padded(*trajectories()[i][:2]) for i in (long, short)]
    obs, taken, rewards, alive = (torch.cat(columns, 1) for columns in zip(*pair, strict=True))
    returns = script.returns_to_go(rewards, 1.0)
    script.reinforce_loss(logits.log_softmax(-1)[obs, taken], returns, alive).backward()
    np.testing.assert_allclose(-logits.grad.flatten(), gradients[[long, short]].mean(0), atol=1e-12)


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline"])
@pytest.mark.parametrize("norm_returns", [False, True])
def test_one_iteration_takes_the_gradient_of_its_own_episodes(name, norm_returns, tmp_path, monkeypatch):
    """The whole of train(): the first episode of each environment, and nothing after it, step by step by hand."""
    if name == "reinforce_baseline" and norm_returns:
        pytest.skip("has no such flag")
    script, gamma, num_envs = module(name), 0.9, 3
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, lr, **_: torch.optim.SGD(parameters, lr))
    states, losses = [], []
    save, record = script.Run.save, script.Run.record_iteration

    def stop_after_one(run, values):
        record(run, values)
        losses.append(values)
        run.global_step = run.args.total_timesteps

    monkeypatch.setattr(script.Run, "record_iteration", stop_after_one)
    monkeypatch.setattr(script.Run, "save", lambda run: (save(run), states.append(snapshot(run))))
    Tape.episodes.clear()
    flags = {"norm_returns": True} if norm_returns else {}
    train(name, tmp_path / "run", env_id="Tape-v0", num_envs=num_envs, gamma=gamma, learning_rate=1e-3, **flags)

    # Before training come num_envs resets with seeds; then each environment's own episode is the first it starts.
    episodes = Tape.episodes[num_envs : 2 * num_envs]
    assert len({len(episode) for episode in episodes}) > 1, "the test needs episodes of different lengths"
    rows = []
    for episode in episodes:
        rewards = [step[2] for step in episode]
        for t, (obs, action, *_) in enumerate(episode):
            rows.append((obs, int(action), sum(gamma ** (k - t) * rewards[k] for k in range(t, len(episode))), t))
    obs = torch.as_tensor(np.array([row[0] for row in rows]))
    returns = torch.tensor([row[2] for row in rows], dtype=torch.float32)
    before = states[0]
    actor = script.Actor(3, 3)
    actor.load_state_dict(before["actor"])
    advantages = returns
    if norm_returns:
        steps = torch.tensor([row[3] for row in rows])
        advantages = returns - torch.stack([returns[steps == t].mean() for t in steps])
        advantages = advantages / advantages.std(correction=0)
    if name == "reinforce_baseline":
        critic = script.Critic(3)
        critic.load_state_dict(before["critic"])
        advantages = returns - critic(obs).detach()
    objective = (
        sum(torch.log_softmax(actor.logits(obs[i]), -1)[rows[i][1]] * advantages[i] for i in range(len(rows)))
        / num_envs
    )
    objective.backward()
    after = states[-1]["actor"]
    for key, parameter in actor.named_parameters():
        step = (after[key] - before["actor"][key]) / 1e-3
        torch.testing.assert_close(step, parameter.grad, rtol=2e-2, atol=2e-3)
    if name == "reinforce_baseline":
        error = torch.nn.functional.mse_loss(critic(obs), returns).item()
        for _ in range(10):
            loss = torch.nn.functional.mse_loss(critic(obs), returns)
            gradients = torch.autograd.grad(loss, list(critic.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(critic.parameters(), gradients, strict=True):
                    parameter -= 1e-3 * gradient
        assert loss.item() < error
        for key, value in critic.state_dict().items():
            torch.testing.assert_close(states[-1]["critic"][key], value, rtol=1e-4, atol=1e-5)


def snapshot(run) -> dict:
    return {
        name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in run.modules.items() if "opt" not in name
    }
