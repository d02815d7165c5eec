"""The policies and the running statistics against closed forms and numpy."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers import SCRIPTS, module
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

import ppo_continuous


def test_network_is_the_sequence_of_its_modules(script):
    """The forward pass that calls no module against the one that does, wherever the weights come from."""

    def outputs(network, x):
        ours, theirs = network(x), nn.Sequential.forward(network, x)
        torch.testing.assert_close(ours, theirs)
        gradients = [torch.autograd.grad(y.square().sum(), list(network.parameters())) for y in (ours, theirs)]
        torch.testing.assert_close(*gradients)
        return ours

    torch.manual_seed(0)
    x = torch.randn(7, 5, 3)
    network, other = module(script).MLP(3, 2, 1.0), module(script).MLP(3, 2, 1.0)
    copied = deepcopy(network)
    before = outputs(network, x)
    network.load_state_dict(other.state_dict())
    torch.testing.assert_close(outputs(network, x), outputs(other, x))
    torch.testing.assert_close(outputs(copied, x), before)
    nn.utils.vector_to_parameters(
        torch.zeros_like(nn.utils.parameters_to_vector(other.parameters())), other.parameters()
    )
    assert not outputs(other, x).any()
    assert outputs(copied.double(), x.double()).dtype == torch.float64


@pytest.mark.parametrize("name", SCRIPTS[:-1])
def test_discrete_sample_follows_forward(name):
    """200,000 draws by the Gumbel trick, against the softmax, by the chi-square test."""
    torch.manual_seed(0)
    actor = module(name).Actor(3, 4)
    with torch.no_grad():
        actor.logits[-1].bias += torch.tensor([1.0, 0.0, -1.0, -3.0])
        obs = torch.tensor([[0.3, -0.2, 0.9]])
        counts = actor.sample(obs.expand(200_000, 3)).bincount(minlength=4).numpy()
        probabilities = actor.logits(obs).double().softmax(-1)[0].numpy()
    assert stats.chisquare(counts, probabilities / probabilities.sum() * counts.sum()).pvalue > 1e-3
    torch.testing.assert_close(actor(obs).probs[0].double(), torch.as_tensor(probabilities), rtol=1e-5, atol=1e-6)


@pytest.fixture
def gaussian():
    torch.manual_seed(0)
    actor = ppo_continuous.Actor(3, 2, nn.Identity())
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-0.7, 0.4]))
        actor.mean[-1].bias.copy_(torch.tensor([1.0, -2.0]))
    return actor


def test_gaussian_log_prob_entropy_and_mode(gaussian):
    obs, actions = torch.randn(5, 3), torch.randn(5, 2)
    dist, mean, std = gaussian(obs), gaussian.mean(obs).detach().numpy(), gaussian.log_std.exp().detach().numpy()
    for i in range(5):
        normal = stats.multivariate_normal(mean[i], np.diag(std**2))
        assert dist.log_prob(actions)[i].item() == pytest.approx(normal.logpdf(actions[i]), rel=1e-4)
        assert dist.entropy()[i].item() == pytest.approx(normal.entropy(), rel=1e-5)
    np.testing.assert_array_equal(dist.mode.detach(), mean)


def test_gaussian_sample_follows_forward(gaussian):
    obs = torch.randn(1, 3)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = gaussian.sample(obs.expand(50_000, 3)).double().numpy()
        mean, std = gaussian.mean(obs)[0].numpy(), gaussian.log_std.exp().numpy()
    for i in range(2):
        assert stats.kstest(draws[:, i], stats.norm(mean[i], std[i]).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.02


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 2**32 - 1), st.floats(-100, 100))
def test_running_statistics_equal_those_of_everything_seen(sizes, seed, offset):
    rng = np.random.default_rng(seed)
    batches = [offset + rng.normal(size=(size, 2, 3)) * [1, 5, 0.1] for size in sizes]
    norm = ppo_continuous.RunningNorm(3).double()
    for batch in batches:
        norm.update(torch.as_tensor(batch))
    everything = np.concatenate(batches).reshape(-1, 3)
    assert norm.count == len(everything)
    np.testing.assert_allclose(norm.mean, everything.mean(0), atol=1e-9)
    np.testing.assert_allclose(norm.var, everything.var(0), atol=1e-8)
    z = (everything - everything.mean(0)) / np.sqrt(everything.var(0) + 1e-8)
    np.testing.assert_allclose(norm(torch.as_tensor(everything)), z.clip(-10, 10), atol=1e-5)


def test_running_statistics_are_clipped_and_travel_with_the_state_dict():
    norm = ppo_continuous.RunningNorm(1)
    norm.update(torch.tensor([[-1.0], [1.0]]))
    assert norm(torch.tensor([[1000.0]])).item() == 10
    actor, other = (ppo_continuous.Actor(1, 1, ppo_continuous.RunningNorm(1)) for _ in range(2))
    actor.norm.update(torch.tensor([[3.0], [9.0]]))
    other.load_state_dict(actor.state_dict())
    assert (other.norm.mean.item(), other.norm.var.item(), other.norm.count.item()) == (6.0, 9.0, 2.0)
    assert other.norm(torch.tensor([[12.0]])).item() == pytest.approx(2.0)


def test_initial_standard_deviation_is_the_one_asked_for():
    actor = ppo_continuous.Actor(3, 2, torch.nn.Identity(), 0.5)
    dist = actor(torch.zeros(4, 3))
    torch.testing.assert_close(dist.stddev, torch.full((4, 2), 0.5))
    torch.manual_seed(0)
    draws = actor.sample(torch.zeros(20_000, 3)).detach()
    assert stats.kstest(draws[:, 0], stats.norm(0, 0.5).cdf).pvalue > 1e-3
