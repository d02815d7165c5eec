"""TRPO's parts against dense linear algebra, and its step against its own promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence
from torch.func import functional_call

import trpo

STEP = {
    "target_kl": 0.01,
    "cg_max_steps": 15,
    "cg_damping": 0.1,
    "max_iter": 10,
    "shrinking_factor": 0.8,
}


@pytest.fixture
def actor():
    torch.manual_seed(0)
    return trpo.Actor(3, 4)


def shrink(actor):
    """Put a network small enough for dense linear algebra into the actor."""
    torch.manual_seed(2)
    actor.logits = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)
    )


@pytest.fixture
def batch(actor):
    """obs, actions drawn by the actor, advantages."""
    g = torch.Generator().manual_seed(1)
    obs = torch.randn(256, 3, generator=g)
    return obs, actor(obs).sample(), torch.randn(256, generator=g)


def vector(actor) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in actor.parameters()])


def measure(actor, old_logits, obs, actions, advantages) -> tuple[float, float]:
    """The improvement of the surrogate and the KL(old || new) of an actor, computed from logits
    alone."""
    old, new = (
        old_logits.log_softmax(-1).double(),
        actor.logits(obs).detach().log_softmax(-1).double(),
    )
    index = actions[:, None]
    ratio = (new.gather(1, index) - old.gather(1, index)).exp().squeeze(1)
    return ((ratio - 1) * advantages).mean().item(), (old.exp() * (old - new)).sum(
        1
    ).mean().item()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12))
def test_conjugate_gradient_equals_a_dense_solve(seed, n):
    rng = np.random.default_rng(seed)
    root, b = rng.normal(size=(n, n)), rng.normal(size=n)
    matrix = root @ root.T + 0.5 * np.eye(n)
    x = trpo.conjugate_gradient(
        lambda v: torch.as_tensor(matrix) @ v, torch.as_tensor(b), 3 * n, tolerance=1e-24
    )
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)


def test_conjugate_gradient_stops_early_and_at_negative_curvature():
    calls = []
    matvec = lambda v: calls.append(1) or v  # noqa: E731  the identity: solved after one step
    b = torch.tensor([3.0, -4.0])
    torch.testing.assert_close(trpo.conjugate_gradient(matvec, b, 50), b)
    assert len(calls) <= 2
    assert torch.equal(trpo.conjugate_gradient(lambda v: -v, b, 50), torch.zeros(2))
    assert torch.equal(trpo.conjugate_gradient(lambda v: v, torch.zeros(2), 50), torch.zeros(2))


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_conjugate_gradient_takes_as_many_steps_in_any_unit(scale):
    """Rewards have the user's unit, so gradients may be of any size: x grows with b, and the
    residual at which it stops does, too."""
    rng, calls = np.random.default_rng(3), []
    root = rng.normal(size=(6, 6))
    matrix, b = root @ root.T + 0.5 * np.eye(6), rng.normal(size=6)
    matvec = lambda v: calls.append(1) or torch.as_tensor(matrix) @ v  # noqa: E731
    x = trpo.conjugate_gradient(matvec, torch.as_tensor(scale * b), 50)
    np.testing.assert_allclose(x / scale, np.linalg.solve(matrix, b), rtol=1e-4)
    assert len(calls) <= 6 + 1


def test_fisher_vector_product_equals_the_explicit_hessian_of_the_kl(actor, batch):
    shrink(actor)
    actor, obs = actor.double(), batch[0][:32].double()
    names, parameters = zip(*actor.named_parameters(), strict=True)
    sizes, shapes = [p.numel() for p in parameters], [p.shape for p in parameters]
    old_log_probs = actor.logits(obs).detach().log_softmax(-1)

    def kl_of(flat):
        values = [x.reshape(shape) for x, shape in zip(flat.split(sizes), shapes, strict=True)]
        new = functional_call(
            actor, dict(zip(names, values, strict=True)), obs
        ).logits.log_softmax(-1)
        return (old_log_probs.exp() * (old_log_probs - new)).sum(-1).mean()

    hessian = torch.autograd.functional.hessian(kl_of, vector(actor))
    with torch.no_grad():
        old_dist = actor(obs)
    kl_gradient = trpo.flat_gradient(
        kl_divergence(old_dist, actor(obs)).mean(), list(parameters), create_graph=True
    )
    assert (
        kl_gradient.abs().max() < 1e-12
    )  # flat at the old policy, which is why the Hessian is what counts
    for seed in range(3):
        v = torch.randn(
            sum(sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        product = trpo.fisher_vector_product(kl_gradient, list(parameters), v, damping=0.3)
        torch.testing.assert_close(product, hessian @ v + 0.3 * v)
        assert (hessian @ v).abs().max() > 1e-3


@pytest.mark.parametrize("target_kl", [0.001, 0.01, 0.1])
def test_a_step_improves_the_surrogate_within_the_trust_region(actor, batch, target_kl):
    old_logits, before = actor.logits(batch[0]).detach(), vector(actor)
    result = trpo.trust_region_step(actor, *batch, **STEP | {"target_kl": target_kl})
    improvement, kl = measure(actor, old_logits, *batch)
    assert result["accepted"] == 1
    assert not torch.equal(before, vector(actor))
    assert improvement > 0
    assert kl <= target_kl * 1.001
    assert kl > target_kl / 10, "a step far shorter than allowed"
    assert result["kl"] == pytest.approx(kl, rel=1e-2)
    assert -result["policy_loss"] == pytest.approx(
        improvement + batch[2].mean().item(), rel=1e-2, abs=1e-4
    )


def test_the_direction_is_the_natural_gradient(actor, batch):
    """The full step is sqrt(2 delta / x^T F x) x with F x = g, F damped, all by dense
    algebra."""
    shrink(actor)
    obs, actions, advantages = batch
    parameters = list(actor.parameters())

    def flat(gradients):
        return torch.cat([x.reshape(-1) for x in gradients]).double()

    log_probs = actor.logits(obs).log_softmax(-1).gather(1, actions[:, None]).squeeze(1)
    g = flat(torch.autograd.grad((log_probs * advantages).mean(), parameters))
    # For a softmax the Fisher matrix is J^T (diag(p) - p p^T) J, J the Jacobian of the logits,
    # averaged over states.
    fisher = 0.1 * torch.eye(len(g), dtype=torch.float64)
    for logits in actor.logits(obs):
        jacobian = torch.stack(
            [flat(torch.autograd.grad(x, parameters, retain_graph=True)) for x in logits]
        )
        p = logits.detach().double().softmax(-1)
        fisher += jacobian.T @ (p.diag() - torch.outer(p, p)) @ jacobian / len(obs)
    x = torch.cholesky_solve(g[:, None], torch.linalg.cholesky(fisher)).squeeze(1)
    expected = (2 * 0.01 / (x @ fisher @ x)).sqrt() * x
    before = vector(actor)
    result = trpo.trust_region_step(
        actor, obs, actions, advantages, **STEP | {"cg_max_steps": 200}
    )
    step = (vector(actor) - before).double() / result["step_fraction"]
    assert torch.nn.functional.cosine_similarity(step, expected, dim=0) > 0.999
    assert step.norm().item() == pytest.approx(expected.norm().item(), rel=0.02)


@pytest.mark.parametrize(
    ("change", "advantages"),
    [
        (
            {"target_kl": 50.0, "max_iter": 1, "cg_damping": 1e-4},
            None,
        ),  # the quadratic model is useless that far
        ({}, torch.zeros(256)),  # no gradient, no direction
        ({}, torch.full((256,), float("nan"))),
    ],
)
def test_a_failed_line_search_restores_the_parameters(actor, batch, change, advantages):
    obs, actions, usual = batch
    before = vector(actor)
    result = trpo.trust_region_step(
        actor, obs, actions, usual if advantages is None else advantages, **STEP | change
    )
    assert result["accepted"] == 0
    assert result["step_fraction"] == 0
    assert result["kl"] == 0
    assert torch.equal(before, vector(actor))


def test_the_line_search_shrinks_until_the_kl_holds(actor, batch):
    """With hardly any damping the quadratic model proposes too long a step; the fraction tells
    how often it shrank."""
    old_logits = actor.logits(batch[0]).detach()
    change = {"target_kl": 0.3, "cg_damping": 1e-4}
    result = trpo.trust_region_step(actor, *batch, **STEP | change)
    improvement, kl = measure(actor, old_logits, *batch)
    assert result["accepted"] == 1
    assert result["step_fraction"] == pytest.approx(
        0.8 ** round(np.log(result["step_fraction"]) / np.log(0.8))
    )
    assert result["step_fraction"] < 1
    assert improvement > 0
    assert kl <= 0.3001


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.9])
def test_the_line_search_shrinks_by_the_factor_as_often_as_it_may(actor, batch, factor):
    """The fraction is the first power of the factor at which the KL holds, however far off. It
    may be the last trial; with one less there is no step."""
    change = {"target_kl": 0.3, "cg_damping": 1e-4, "shrinking_factor": factor, "max_iter": 40}
    before = vector(actor)
    result = trpo.trust_region_step(actor, *batch, **STEP | change)
    trials = round(np.log(result["step_fraction"]) / np.log(factor))
    assert result["step_fraction"] == pytest.approx(factor**trials)
    assert trials >= 1
    torch.nn.utils.vector_to_parameters(before, actor.parameters())
    for max_iter in (trials, trials + 1):
        result = trpo.trust_region_step(actor, *batch, **STEP | change | {"max_iter": max_iter})
        assert result["accepted"] == (max_iter > trials)
        assert torch.equal(before, vector(actor)) == (max_iter == trials)


def test_one_step_of_conjugate_gradients_is_the_plain_gradient(actor, batch):
    """And more steps turn away from it: as many are made as asked for."""
    obs, actions, advantages = batch
    log_pi = actor.logits(obs).log_softmax(-1).gather(1, actions[:, None]).squeeze(1)
    g = torch.autograd.grad((log_pi * advantages).mean(), list(actor.parameters()))
    g, before = torch.cat([x.reshape(-1) for x in g]), vector(actor)
    cosines = []
    for steps in (1, 2, 15):
        torch.nn.utils.vector_to_parameters(before, actor.parameters())
        trpo.trust_region_step(actor, *batch, **STEP | {"cg_max_steps": steps})
        step = vector(actor) - before
        cosines.append(torch.nn.functional.cosine_similarity(step, g, dim=0).item())
    assert cosines[0] > 0.9999
    assert cosines[0] > cosines[1] + 1e-3 > cosines[2]


def test_categorical_kl_direction():
    """kl_divergence(p, q) is KL(p || q): the sum of p log(p / q)."""
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.1, 0.5, 0.4])
    expected = (p * (p / q).log()).sum()
    assert kl_divergence(Categorical(probs=p), Categorical(probs=q)) == pytest.approx(
        expected.item(), rel=1e-5
    )
