"""Direct preference optimisation: its loss and gradient by hand, where the expected loss is
least, whose completions are compared, and whole iterations of train(), each recomputed from the
weights it began with: in double precision, one completion at a time and without padding."""

import math

import numpy as np
import pytest
import torch
from helpers import module
from lm_helpers import (
    EOS,
    Table,
    chosen,
    doubles,
    log_pi_of,
    padded,
    random_base,
    real_tokens,
)
from lm_recorded import (
    ITERATIONS,
    TEMPERATURE,
    Recorded,
    about_batch,
    assert_logged,
    assert_moved,
    descend,
    scores,
)

import dpo

LENGTHS = [3, 1, 5, 2, 4, 5, 1, 2]  # of four chosen completions and four rejected ones
MASK = torch.arange(5) < torch.tensor(LENGTHS)[:, None]


def batch(seed: int):
    """Log-probabilities that need a gradient and the reference's; behind the ends numbers that
    must not count."""
    generator = torch.Generator().manual_seed(seed)
    new, ref = -torch.rand(2, 8, 5, generator=generator, dtype=torch.float64) - 0.1
    return new.requires_grad_(), ref


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# ---- the loss ----
@pytest.mark.parametrize("nll_coef", [0.0, 0.7])
@pytest.mark.parametrize("kl_coef", [0.1, 2.0])
def test_the_loss_and_its_parts_by_hand(kl_coef, nll_coef):
    """Sums over each completion's own tokens; the gradient of one pair's loss in its tokens'
    log-probabilities is -kl_coef * sigmoid(-margin) for the chosen one, where the likelihood
    adds -nll_coef / length, and +kl_coef * sigmoid(-margin) for the rejected one."""
    new, ref = batch(0)
    loss, stats = dpo.dpo_loss(new, ref, MASK, kl_coef, nll_coef)
    (gradient,) = torch.autograd.grad(loss, new)
    assert not any(value.requires_grad for value in stats.values())
    expected, numbers = np.zeros((8, 5)), []
    for i in range(4):
        sums = []
        for k in (i, i + 4):
            tokens = range(LENGTHS[k])
            log_prob, ref_log_prob = (sum(x[k, t].item() for t in tokens) for x in (new, ref))
            sums.append((log_prob, kl_coef * (log_prob - ref_log_prob)))
        (better, reward_better), (worse, reward_worse) = sums
        margin = reward_better - reward_worse
        value = -math.log(sigmoid(margin)) - nll_coef * better / LENGTHS[i]
        numbers.append({
            "policy_loss": value, "reward_chosen": reward_better,
            "reward_rejected": reward_worse, "log_prob_chosen": better,
            "log_prob_rejected": worse, "reward_accuracy": float(margin > 0),
        })  # fmt: skip
        pull = kl_coef * sigmoid(-margin) / 4
        expected[i, : LENGTHS[i]] = -pull - nll_coef / LENGTHS[i] / 4
        expected[i + 4, : LENGTHS[i + 4]] = pull
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=0)
    assert stats.keys() == numbers[0].keys()
    for name, value in stats.items():
        assert value.item() == pytest.approx(np.mean([x[name] for x in numbers]), rel=1e-6)
    assert loss.item() == stats["policy_loss"].item()
    assert 0 < stats["reward_accuracy"] < 1


def test_the_gradient_is_that_of_the_paper():
    """In the parameters of a table: -kl_coef * sigmoid(-margin) * (grad log pi(chosen) - grad
    log pi(rejected)), and that of the mean log-probability of the chosen one's tokens."""
    policy, reference = (Table(1, 3, 3, seed=seed).double() for seed in (1, 2))
    better, worse, kl_coef, nll_coef = (0, 1, 2), (1, 1, 0), 0.3, 0.6

    def log_prob(table: Table, answer) -> torch.Tensor:
        rows = [table.row(0, answer[:k]) for k in range(len(answer))]
        return table.logits[rows].log_softmax(-1)[range(len(answer)), answer].sum()

    gradients = [
        torch.autograd.grad(log_prob(policy, answer), policy.logits)[0]
        for answer in (better, worse)
    ]
    margin = kl_coef * sum(
        sign * (log_prob(policy, answer) - log_prob(reference, answer)).item()
        for sign, answer in ((1, better), (-1, worse))
    )
    expected = -kl_coef * sigmoid(-margin) * (gradients[0] - gradients[1])
    expected = expected - nll_coef * gradients[0] / 3

    prompts, completions = torch.zeros(2, 1, dtype=torch.long), torch.tensor([better, worse])
    mask = dpo.completion_mask(completions, policy.eos)
    texts = prompts, completions, 1.0
    (log_probs, _), (ref_log_probs, _) = (
        dpo.log_policy(model, *texts) for model in (policy, reference)
    )
    loss, _ = dpo.dpo_loss(log_probs, ref_log_probs, mask, kl_coef, nll_coef)
    (found,) = torch.autograd.grad(loss, policy.logits)
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0.05


@pytest.mark.parametrize("kl_coef", [0.1, 5.0])
def test_the_loss_is_log_2_at_the_reference(kl_coef):
    new, _ = batch(1)
    loss, stats = dpo.dpo_loss(new, new.detach(), MASK, kl_coef, 0.0)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-12)
    assert stats["reward_chosen"] == stats["reward_rejected"] == 0
    assert stats["reward_accuracy"] == 0, "none is ordered rightly yet"
    (gradient,) = torch.autograd.grad(loss, new)
    torch.testing.assert_close(
        gradient[:4][MASK[:4]].unique(), -gradient.new_tensor([kl_coef / 2 / 4])
    )


def test_the_loss_is_finite_where_the_sigmoid_is_not():
    new = torch.tensor([[-3000.0], [0.0]])
    loss, _ = dpo.dpo_loss(new, torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool), 1.0, 0.0)
    assert loss.item() == 3000.0


def test_padding_changes_no_loss_and_no_gradient():
    """Two more columns behind the ends, whatever stands in them."""
    results = []
    for extra in (0, 2):
        new, ref = batch(3)
        rubbish = torch.full((8, extra), -50.0, dtype=torch.float64)
        mask = torch.cat([MASK, torch.zeros(8, extra, dtype=torch.bool)], 1)
        wide = torch.cat([new, rubbish], 1), torch.cat([ref, 3 * rubbish], 1)
        loss, stats = dpo.dpo_loss(*wide, mask, 0.3, 0.2)
        (gradient,) = torch.autograd.grad(loss, new)
        results.append([loss.detach(), gradient, *stats.values()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
    assert results[0][1][~MASK].eq(0).all()


def test_pairs_know_nothing_of_each_other():
    """Chosen first, then rejected, in one order: the loss is the mean of each pair's own."""
    new, ref = batch(4)
    whole, _ = dpo.dpo_loss(new, ref, MASK, 0.3, 0.2)
    alone = [
        dpo.dpo_loss(new[rows], ref[rows], MASK[rows], 0.3, 0.2)[0]
        for rows in ([i, i + 4] for i in range(4))
    ]
    torch.testing.assert_close(torch.stack(alone).mean(), whole)


# ---- the optimum ----
REWARDS = np.random.default_rng(5).normal(size=100)


def expected_loss(policy: Table, reference: Table, kl_coef: float, rationality: float):
    """Over both completions of a pair, drawn from the reference, and over which of them is
    preferred, by the model of Bradley and Terry."""
    answers, q = policy.answers(), reference.probabilities(0)
    indices = [(i, j) for i in range(len(answers)) for j in range(len(answers)) if i != j]
    better, worse = ([answers[pair[k]] for pair in indices] for k in (0, 1))
    completions = padded([*better, *worse], policy.end)
    prompts = torch.zeros(len(completions), 1, dtype=torch.long)
    texts = prompts, completions, 1.0
    (log_probs, _), (ref_log_probs, _) = (
        dpo.log_policy(model, *texts) for model in (policy, reference)
    )
    mask = dpo.completion_mask(completions, policy.eos)
    pairs = (x.view(2, -1, x.shape[1]).unbind(1) for x in (log_probs, ref_log_probs, mask))
    losses = [dpo.dpo_loss(*pair, kl_coef, 0.0)[0] for pair in zip(*pairs, strict=True)]
    weights = [
        q[i] * q[j] * sigmoid(rationality * (REWARDS[i] - REWARDS[j])) for i, j in indices
    ]
    return torch.tensor(weights) @ torch.stack(losses)


@pytest.mark.parametrize(("kl_coef", "rationality"), [(0.5, 1.0), (1.0, 2.0)])
def test_the_expected_loss_is_least_at_the_best_distribution(kl_coef, rationality):
    """pi_ref * exp(rationality * R / kl_coef) but for a factor: there the gradient is 0, and
    there descent from the reference ends. Enumerated over all completions of at most two tokens
    of a vocabulary of three. The labels are by rationality * R, which is the reward that is
    fitted, and E[R] - kl_coef * KL is greatest for it."""
    policy, reference = (Table(1, 3, 2, seed=2).double() for _ in range(2))
    q = reference.probabilities(0)
    best = q * np.exp(rationality * REWARDS[: len(q)] / kl_coef)
    best /= best.sum()
    assert abs(best - q).max() > 0.1
    optimizer = torch.optim.LBFGS(
        policy.parameters(), 1.0, 200, tolerance_grad=1e-10, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = expected_loss(policy, reference, kl_coef, rationality)
        loss.backward()
        return loss

    start = closure().item()
    optimizer.step(closure)
    np.testing.assert_allclose(policy.probabilities(0), best, atol=1e-5)
    assert closure().item() < start - 0.01

    answers = policy.answers()  # and the closed form itself, token by token
    with torch.no_grad():
        for prefix in {answer[:k] for answer in answers for k in range(len(answer))}:
            for token in range(3):
                sums = [
                    p for answer, p in zip(answers, best, strict=True)
                    if answer[: len(prefix) + 1] == (*prefix, token)
                ]  # fmt: skip
                policy.logits[policy.row(0, prefix), token] = math.log(sum(sums))
    np.testing.assert_allclose(policy.probabilities(0), best, rtol=1e-9)
    closure()
    assert policy.logits.grad.abs().max() < 1e-12


# ---- whole iterations ----
def recompute(run: Recorded, k: int):
    """The policy after iteration k from the one before, and what is to be logged."""
    args, (prompts, rows, rewards) = run.args, run.batch(k)
    assert all(real_tokens(row) == row for row in rows)
    weights = doubles(run.states[k]["policy"])
    with torch.no_grad():
        ref_log_pi = scores(doubles(run.states[0]["policy"]), prompts, rows)
    ref = [chosen(p, r).sum().item() for p, r in zip(ref_log_pi, rows, strict=True)]
    pairs = list(zip(*(x.tolist() for x in run.preferences[k]), strict=True))
    differ = [i for i in range(0, len(rows), 2) if rows[i] != rows[i + 1]]
    assert [sorted(pair) for pair in pairs] == [[i, i + 1] for i in differ]
    total, names = 0.0, ("reward_chosen", "reward_rejected", "reward_accuracy", "policy_loss")
    logged = {key: [] for key in (*names, "log_prob_chosen", "log_prob_rejected")}
    for pair in pairs:
        assert prompts[pair[0]] == prompts[pair[1]]
        if args.rationality > 100:
            assert rewards[pair[0]] >= rewards[pair[1]]
        better, worse = (
            chosen(log_pi_of(weights, prompts[i], rows[i], TEMPERATURE), rows[i]).sum()
            for i in pair
        )
        gains = [
            args.kl_coef * (x - ref[i]) for x, i in zip((better, worse), pair, strict=True)
        ]
        loss = (1 + (gains[1] - gains[0]).exp()).log()
        loss = loss - args.nll_coef * better / len(rows[pair[0]])
        total = total + loss / len(pairs)
        right = float(gains[0] > gains[1])
        numbers = (*gains, right, loss, better, worse)
        for key, number in zip(logged, numbers, strict=True):
            logged[key].append(torch.as_tensor(number).item())
    rate = args.learning_rate * ((1 - k / ITERATIONS) if args.anneal_lr else 1)
    weights, norm = descend(weights, total, rate, args.max_grad_norm)
    logged = {key: np.mean(numbers) for key, numbers in logged.items()}
    logged |= {"grad_norm": norm, "pairs": len(pairs)}
    return weights, logged | about_batch(prompts)


CASES = [
    {},
    {"online": True, "nll_coef": 0.0, "max_grad_norm": 0.2, "learning_rate": 0.5},
    {"rationality": 0.5, "kl_coef": 1.0, "anneal_lr": False},
]


@pytest.mark.parametrize("flags", CASES, ids=str)
def test_iterations_one_by_one(flags, tmp_path, monkeypatch):
    """With a base model so sure of itself that some pairs are of equal completions, which are
    left out."""
    path = random_base(tmp_path / "base.pt")
    base = torch.load(path, weights_only=True)
    weights = base["reference"]
    weights["head.weight"] *= 4
    torch.save(base, path)
    usual = {"learning_rate": 0.05, "max_grad_norm": math.inf}
    run = Recorded("dpo", tmp_path, monkeypatch, **usual | flags)
    args = run.args
    falling = [1, 2 / 3, 1 / 3] if args.anneal_lr else [1] * 3
    assert run.rates == pytest.approx([args.learning_rate * x for x in falling])
    sampler = "policy" if args.online else "reference"
    assert run.samplers[:ITERATIONS] == [sampler] * ITERATIONS
    for k in range(ITERATIONS):
        weights, logged = recompute(run, k)
        assert_moved(run.states[k]["policy"], run.states[k + 1]["policy"], weights)
        assert_logged(run.logged[k], logged)
    moved = run.states[-1]["policy"]["head.weight"] - run.states[0]["policy"]["head.weight"]
    assert moved.abs().max() > 1e-3
    assert min(x["pairs"] for x in run.logged) < 12


def test_a_batch_of_equal_completions_teaches_nothing(tmp_path, monkeypatch):
    """Neither a division by 0 nor a step of the logistic term; one pair stays."""
    found = module("dpo")
    equal = torch.tensor([[1, 2, EOS, EOS, EOS]])
    monkeypatch.setattr(
        found, "sample", lambda _, prompts, *rest: equal.repeat(len(prompts), 1)
    )
    run = Recorded(
        "dpo", tmp_path, monkeypatch, nll_coef=0.0, learning_rate=0.5, max_grad_norm=math.inf
    )
    for key, value in run.states[0]["policy"].items():
        torch.testing.assert_close(run.states[-1]["policy"][key], value, rtol=0, atol=1e-6)
    for logged in run.logged:
        assert logged["pairs"] == 1
        assert logged["policy_loss"] == pytest.approx(math.log(2))
        assert logged["grad_norm"] == pytest.approx(0.0, abs=1e-6)


def test_the_likelihood_term_alone_imitates_the_chosen(tmp_path, monkeypatch):
    """Where all completions are equal there is nothing but it."""
    found = module("dpo")
    equal = torch.tensor([[1, 2, EOS, EOS, EOS]])
    monkeypatch.setattr(
        found, "sample", lambda _, prompts, *rest: equal.repeat(len(prompts), 1)
    )
    run = Recorded("dpo", tmp_path, monkeypatch, nll_coef=1.0, learning_rate=0.5)
    log_probs = [x["log_prob_chosen"] for x in run.logged]
    assert log_probs[0] < log_probs[1] < log_probs[2]
