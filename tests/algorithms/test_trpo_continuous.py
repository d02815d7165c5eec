"""TRPO with a Gaussian: its KL divergence against the closed form, its Fisher matrix against
the known one and against a dense Hessian, its step against its own promise.

What does not depend on the policy is tested in test_trpo.py: it is the same text.
"""

import numpy as np
import pytest
import torch
from torch.distributions import kl_divergence
from torch.func import functional_call

import trpo_continuous

STEP = {
    "target_kl": 0.01, "cg_max_steps": 15, "cg_damping": 0.1, "max_iter": 10,
    "shrinking_factor": 0.8,
}  # fmt: skip


class Plain(torch.nn.Module):
    """A Gaussian whose mean does not depend on the observation, made as Actor.forward does."""

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        self.actor = trpo_continuous.Actor(1, len(mean), norm_obs=False)
        for parameter in self.actor.mean.parameters():
            parameter.data.zero_()
            parameter.requires_grad_(False)
        self.bias = self.actor.mean[-1].bias.requires_grad_()
        self.bias.data.copy_(torch.tensor(mean))
        self.actor.log_std.data.copy_(torch.tensor(std).log())

    def forward(self, obs: torch.Tensor):
        return self.actor(obs)

    def weights(self) -> list[torch.Tensor]:
        return [self.bias, self.actor.log_std]


def closed_form(mean0, std0, mean1, std1):
    """KL(N0 || N1) of diagonal Gaussians."""
    terms = (std0**2 + (mean0 - mean1) ** 2) / std1**2 - 1
    return (0.5 * terms + (std1 / std0).log()).sum(-1)


def test_kl_is_the_closed_form_and_its_direction_is_old_to_new():
    old, new = (
        Plain([0.3, -1.0], [0.5, 2.0]).double(),
        Plain([0.6, -0.2], [0.8, 1.1]).double(),
    )
    obs = torch.zeros(5, 1, dtype=torch.float64)
    numbers = [x.double() for x in (old.bias, old.actor.log_std.exp())]
    others = [x.double() for x in (new.bias, new.actor.log_std.exp())]
    found = kl_divergence(old(obs), new(obs))
    assert found.shape == (5,)
    expected = closed_form(*numbers, *others)
    torch.testing.assert_close(found, expected.expand(5))
    assert abs(expected - closed_form(*others, *numbers)) > 0.1


def test_the_fisher_matrix_of_a_gaussian_is_the_known_one():
    """1 / std^2 for each mean, 2 for each log std, nothing besides; by products with unit
    vectors."""
    std = [0.5, 2.0, 1.3]
    policy = Plain([0.3, -1.0, 0.0], std).double()
    obs = torch.zeros(7, 1, dtype=torch.float64)
    with torch.no_grad():
        old = policy(obs)
    kl = kl_divergence(old, policy(obs)).mean()
    gradient = trpo_continuous.flat_gradient(kl, policy.weights(), create_graph=True)
    assert gradient.abs().max() < 1e-12
    columns = [
        trpo_continuous.fisher_vector_product(gradient, policy.weights(), unit, 0.0)
        for unit in torch.eye(6, dtype=torch.float64)
    ]
    expected = torch.tensor([*(1 / s**2 for s in std), 2.0, 2.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(columns), expected.diag())


@pytest.fixture
def actor():
    """With statistics of its observations, and another std for each action."""
    torch.manual_seed(0)
    actor = trpo_continuous.Actor(3, 2)
    actor.norm.update(torch.randn(500, 3) * torch.tensor([1.0, 5.0, 0.2]) + 3)
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-0.5, 0.3]))
    return actor


@pytest.fixture
def batch(actor):
    """obs, actions drawn by the actor, advantages."""
    g = torch.Generator().manual_seed(1)
    obs = torch.randn(256, 3, generator=g) * torch.tensor([1.0, 5.0, 0.2]) + 3
    return obs, actor.sample(obs).detach(), torch.randn(256, generator=g)


def vector(actor) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in actor.parameters()])


def moments(actor, obs) -> list[torch.Tensor]:
    mean = actor.mean(actor.norm(obs)).detach().double()
    return [mean, actor.log_std.detach().exp().double().expand_as(mean)]


def shrink(actor):
    """Put a network small enough for dense linear algebra into the actor."""
    torch.manual_seed(2)
    actor.mean = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    )


def test_fisher_vector_product_equals_the_dense_hessian_and_the_jacobians(actor, batch):
    """The Hessian of the closed form at the old policy; and the mean over observations of
    J^T diag(1 / std^2, 2) J, J the Jacobian of mean and log std."""
    shrink(actor)
    actor, obs = actor.double(), batch[0][:24].double()
    names, parameters = zip(*actor.named_parameters(), strict=True)
    sizes, shapes = [p.numel() for p in parameters], [p.shape for p in parameters]
    old = moments(actor, obs)

    def kl_of(flat):
        values = [x.reshape(shape) for x, shape in zip(flat.split(sizes), shapes, strict=True)]
        new = functional_call(actor, dict(zip(names, values, strict=True)), obs)
        return closed_form(*old, new.base_dist.loc, new.base_dist.scale).mean()

    hessian = torch.autograd.functional.hessian(kl_of, vector(actor))

    def flat(gradients):
        return torch.cat([x.reshape(-1) for x in gradients])

    fisher = torch.zeros_like(hessian)
    for i in range(len(obs)):
        mean = actor.mean(actor.norm(obs[i]))
        for k in range(2):
            for output, weight in ((mean[k], 1 / old[1][i, k] ** 2), (actor.log_std[k], 2.0)):
                gradients = torch.autograd.grad(
                    output, parameters, retain_graph=True, materialize_grads=True
                )
                fisher += weight * torch.outer(flat(gradients), flat(gradients)) / len(obs)
    torch.testing.assert_close(hessian, fisher)

    with torch.no_grad():
        old_dist = actor(obs)
    kl = kl_divergence(old_dist, actor(obs)).mean()
    gradient = trpo_continuous.flat_gradient(kl, list(parameters), create_graph=True)
    assert gradient.abs().max() < 1e-12
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        v = torch.randn(sum(sizes), dtype=torch.float64, generator=g)
        product = trpo_continuous.fisher_vector_product(gradient, list(parameters), v, 0.3)
        torch.testing.assert_close(product, hessian @ v + 0.3 * v)
        assert (hessian @ v).abs().max() > 1e-3


@pytest.mark.parametrize("target_kl", [0.001, 0.01, 0.1])
def test_a_step_improves_the_surrogate_within_the_trust_region(actor, batch, target_kl):
    """Measured by the formulas: the density of the Gaussian, the closed form of the KL. The
    statistics of the observations stay; mean and std both move."""
    obs, actions, advantages = batch
    old, before = moments(actor, obs), {k: v.clone() for k, v in actor.state_dict().items()}
    result = trpo_continuous.trust_region_step(actor, *batch, **STEP | {"target_kl": target_kl})
    new = moments(actor, obs)

    def log_prob(mean, std):
        return (-0.5 * ((actions - mean) / std) ** 2 - std.log()).sum(-1)

    improvement = (((log_prob(*new) - log_prob(*old)).exp() - 1) * advantages).mean().item()
    kl = closed_form(*old, *new).mean().item()
    assert result["accepted"] == 1
    assert improvement > 0
    assert target_kl / 10 < kl <= target_kl * 1.001
    assert result["kl"] == pytest.approx(kl, rel=1e-2)
    assert -result["policy_loss"] == pytest.approx(
        improvement + advantages.mean().item(), rel=1e-2, abs=1e-4
    )
    for key, value in actor.state_dict().items():
        assert torch.equal(value, before[key]) is key.startswith("norm."), key


@pytest.mark.parametrize("change", [{"target_kl": 50.0, "max_iter": 1}, {}])
def test_a_step_that_is_rejected_changes_nothing(actor, batch, change):
    """So far off that the quadratic model is useless, or without anything to improve."""
    obs, actions, advantages = batch
    before, change = vector(actor), STEP | {"cg_damping": 1e-4} | change
    advantages = advantages * (change["max_iter"] == 1)
    result = trpo_continuous.trust_region_step(actor, obs, actions, advantages, **change)
    assert result["accepted"] == result["kl"] == result["step_fraction"] == 0
    assert torch.equal(before, vector(actor))
    assert np.isfinite(list(result.values())).all()


def test_the_line_search_shrinks_until_the_kl_holds(actor, batch):
    """With hardly any damping the quadratic model proposes too long a step. The trial at which
    the KL holds may be the last; with one less there is no step."""
    old, before = moments(actor, batch[0]), vector(actor)
    change = {"target_kl": 0.5, "cg_damping": 1e-5}
    result = trpo_continuous.trust_region_step(actor, *batch, **STEP | change)
    assert result["accepted"] == 1
    assert result["step_fraction"] < 1
    assert closed_form(*old, *moments(actor, batch[0])).mean() <= 0.5001
    trials = round(np.log(result["step_fraction"]) / np.log(STEP["shrinking_factor"]))
    for max_iter in (trials, trials + 1):
        torch.nn.utils.vector_to_parameters(before, actor.parameters())
        change["max_iter"] = max_iter
        result = trpo_continuous.trust_region_step(actor, *batch, **STEP | change)
        assert result["accepted"] == (max_iter > trials)
        assert torch.equal(before, vector(actor)) == (max_iter == trials)
