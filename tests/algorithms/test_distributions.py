"""The policies and the running statistics against closed forms and numpy."""

import numpy as np
import pytest
import torch
from helpers import DISCRETE, module
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import ppo_continuous


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_sample_follows_forward(name):
    """200,000 draws by the Gumbel trick, against the softmax, by the chi-square test."""
    torch.manual_seed(0)
    actor = module(name).Actor(3, 4)
    with torch.no_grad():
        [*actor.logits.modules()][-1].bias += torch.tensor([1.0, 0.0, -1.0, -3.0])
        obs = torch.tensor([[0.3, -0.2, 0.9]])
        counts = actor.sample(obs.expand(200_000, 3)).bincount(minlength=4).numpy()
        probabilities = actor.logits(obs).double().softmax(-1)[0].numpy()
    assert (
        stats.chisquare(counts, probabilities / probabilities.sum() * counts.sum()).pvalue
        > 1e-3
    )
    torch.testing.assert_close(
        actor(obs).probs[0].double(), torch.as_tensor(probabilities), rtol=1e-5, atol=1e-6
    )


@pytest.fixture
def gaussian():
    torch.manual_seed(0)
    actor = ppo_continuous.Actor(3, 2, norm_obs=False)
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-0.7, 0.4]))
        actor.mean[-1].bias.copy_(torch.tensor([1.0, -2.0]))
    return actor


def test_gaussian_log_prob_entropy_and_mode(gaussian):
    obs, actions = torch.randn(5, 3), torch.randn(5, 2)
    dist, mean, std = (
        gaussian(obs),
        gaussian.mean(obs).detach().numpy(),
        gaussian.log_std.exp().detach().numpy(),
    )
    for i in range(5):
        normal = stats.multivariate_normal(mean[i], np.diag(std**2))
        assert dist.log_prob(actions)[i].item() == pytest.approx(
            normal.logpdf(actions[i]), rel=1e-4
        )
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
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
    st.floats(-100, 100),
)
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
    floor = 1e-6 * everything.mean(0)  # differences that are smaller are rounding
    z = (everything - everything.mean(0)) / np.sqrt(everything.var(0) + floor**2)
    np.testing.assert_allclose(norm(torch.as_tensor(everything)), z.clip(-10, 10), atol=1e-5)


def test_running_statistics_forget_nothing():
    """After ten million values 2, of as many values 4 the mean becomes 3, in float32 too."""
    norm = ppo_continuous.RunningNorm(1)
    for value in (2.0, 4.0):
        for _ in range(100):
            norm.update(torch.full((100_000, 1), value))
    assert norm.mean.item() == pytest.approx(3, rel=1e-4)
    assert norm.var.item() == pytest.approx(1, rel=1e-4)


def test_running_statistics_are_clipped_on_both_sides():
    norm = ppo_continuous.RunningNorm(1)
    norm.update(torch.tensor([[-1.0], [1.0]]))
    x = torch.tensor([[1000.0], [-1000.0], [10.5], [-10.5], [9.5], [-9.5]])
    expected = torch.tensor([[10.0], [-10.0], [10.0], [-10.0], [9.5], [-9.5]])
    torch.testing.assert_close(norm(x), expected)


def test_running_statistics_travel_with_the_state_dict():
    actor, other = (ppo_continuous.Actor(1, 1) for _ in range(2))
    actor.norm.update(torch.tensor([[3.0], [9.0]]))
    other.load_state_dict(actor.state_dict())
    found = (other.norm.mean.item(), other.norm.var.item(), other.norm.count.item())
    assert found == (6.0, 9.0, 2.0)
    assert other.norm(torch.tensor([[12.0]])).item() == pytest.approx(2.0)
    torch.testing.assert_close(
        other(torch.tensor([[12.0]])).mean, other.mean(torch.tensor([[2.0]]))
    )


def test_initial_standard_deviation_is_the_one_asked_for():
    actor = ppo_continuous.Actor(3, 2, 0.5)
    dist = actor(torch.zeros(4, 3))
    torch.testing.assert_close(dist.stddev, torch.full((4, 2), 0.5))
    torch.manual_seed(0)
    draws = actor.sample(torch.zeros(20_000, 3)).detach()
    assert stats.kstest(draws[:, 0], stats.norm(0, 0.5).cdf).pvalue > 1e-3
