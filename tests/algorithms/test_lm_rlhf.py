"""PPO from human feedback: preferences, the reward model, the critic, rewards and advantages of
tokens, and whole iterations of train(), each recomputed from the weights it began with.

The recomputation follows the formulas of TRL's PPO trainer: -kl_coef * (log pi - log pi_ref) at
each token and the score at the end, GAE over the tokens, returns from the raw advantages,
whitening over the tokens of all completions with the unbiased variance, the clipped surrogate
and the squared error of the values, each a mean over tokens. It is in double precision, one
completion at a time, without any padding. TRL differs in that it adds the score one place
behind an end, where it has a value too; clips the values' steps and halves their loss; reads a
reward model at the last token alone; and puts the 1e-8 of the whitening within the root.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import gae_by_definition, module
from lm_helpers import (
    EOS,
    chosen,
    doubles,
    flags_of,
    gpt_logits,
    log_pi_of,
    padded,
    real_tokens,
    train,
    with_reward,
)
from lm_recorded import (
    ITERATIONS,
    TEMPERATURE,
    Recorded,
    about_batch,
    assert_logged,
    assert_moved,
    assert_ratios,
    descend,
    scores,
)

import ppo_rlhf

LENGTHS = [3, 1, 5, 2, 4, 5, 1, 2]  # of completions, ends included
MASK = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
COMPLETIONS = padded([(1, 2, EOS), (EOS,), (3, 4, 5, 6), (7, EOS), (8, 8, 8, EOS)])


def noise(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- a scalar head ----
def gpt(seed: int = 5):
    torch.manual_seed(seed)
    return ppo_rlhf.GPT()


def scalar(seed: int = 5):
    """A critic or reward model whose head is no longer 0."""
    model = ppo_rlhf.Scalar(gpt(seed))
    with torch.no_grad():
        model.head.weight.normal_()
        model.head.bias.normal_()
    return model


def prompts_of(number: int) -> torch.Tensor:
    return torch.randint(0, 13, (number, 6), generator=torch.Generator().manual_seed(3))


def as_gpt(state: dict) -> dict:
    """The weights of a scalar model under the names that a GPT with one output would have."""
    own = {k: v for k, v in state.items() if not k.startswith("model.head.")}
    return {key.removeprefix("model."): value for key, value in own.items()}


def outputs(weights: dict, prompt: list[int], row: list[int]) -> tuple:
    """Of a scalar model in double precision, before each real token of a completion and at
    it."""
    tokens = real_tokens(row)
    out, n = gpt_logits(weights, prompt + tokens)[:, 0], len(prompt)
    return out[n - 1 : -1], out[n:]


def test_a_scalar_head_is_0_and_shares_no_trained_weight():
    """The policy and its copy neither share memory, nor does the policy lose its own head."""
    policy = gpt()
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    critic, reward_model = (ppo_rlhf.Scalar(policy) for _ in range(2))
    tokens = prompts_of(4)
    for model in (critic, reward_model):
        assert model(tokens).shape == (4, 6)
        assert model(tokens).eq(0).all()
        assert all(p.requires_grad for p in model.parameters())
        for name, p in model.named_parameters():
            own = name.startswith("head.")
            assert own or torch.equal(p, before[name.removeprefix("model.")])
    models = policy, critic, reward_model
    places = [p.data_ptr() for model in models for p in model.parameters()]
    assert len(set(places)) == len(places)
    with torch.no_grad():
        for p in critic.parameters():
            p.add_(1)
    for key, value in policy.state_dict().items():
        assert torch.equal(value, before[key])
    assert reward_model(tokens).eq(0).all()


def test_a_scalar_head_shares_the_weights_that_nobody_trains():
    policy = gpt()
    policy.blocks[0].requires_grad_(False)
    critic = ppo_rlhf.Scalar(policy)
    for name, p in critic.named_parameters():
        frozen = name.startswith("model.blocks.0.")
        assert p.requires_grad is not frozen
        if not name.startswith("head."):
            assert (p is policy.get_parameter(name.removeprefix("model."))) is frozen


# ---- scores and values ----
def test_scores_and_values_by_the_textbook():
    """A score is the sum of what the reward model says at each token of the completion, a value
    what the critic says one token earlier; both of the unpadded text by itself."""
    model, prompts = scalar(), prompts_of(5)
    mask = ppo_rlhf.completion_mask(COMPLETIONS, gpt().eos)
    found_scores = ppo_rlhf.score(model, prompts, COMPLETIONS, mask)
    found_values = ppo_rlhf.token_values(model, prompts, COMPLETIONS, mask)
    assert found_scores.shape == (5,)
    assert found_values.shape == mask.shape
    weights = doubles(as_gpt(model.state_dict()))
    for i, row in enumerate(COMPLETIONS.tolist()):
        before, at = (x.detach() for x in outputs(weights, prompts[i].tolist(), row))
        assert found_scores[i].item() == pytest.approx(at.sum().item(), rel=1e-4, abs=1e-4)
        expected = np.append(before, [0.0] * (4 - len(before)))
        np.testing.assert_allclose(found_values[i].detach(), expected, rtol=1e-4, atol=1e-4)
        assert found_values[i, len(before) :].eq(0).all()


@pytest.mark.parametrize("function", [ppo_rlhf.score, ppo_rlhf.token_values])
def test_nothing_behind_the_end_changes_scores_and_values(function):
    """Nor their gradients, whatever stands there and however much of it."""
    model, prompts, results = scalar(), prompts_of(2), []
    for rest in ([], [EOS, EOS], [3, 9]):
        completions = torch.tensor([[1, 2, EOS, *rest], [4, EOS, EOS, *rest]])
        mask = ppo_rlhf.completion_mask(completions, gpt().eos)
        numbers = function(model, prompts, completions, mask)
        model.zero_grad()
        (numbers.sin().sum() if numbers.ndim == 1 else numbers[:, :3].sin().sum()).backward()
        assert numbers.ndim == 1 or numbers[:, 3:].eq(0).all()
        numbers = numbers if numbers.ndim == 1 else numbers[:, :3]
        results.append((numbers.detach(), model.model.blocks[0].qkv.weight.grad.clone()))
    assert results[0][1].abs().max() > 1e-3
    for numbers, gradient in results[1:]:
        torch.testing.assert_close(numbers, results[0][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-4, atol=1e-5)


# ---- preferences ----
both = pytest.mark.parametrize("script", ["ppo_rlhf", "dpo"])


@both
@pytest.mark.parametrize("rationality", [0.0, 0.7, 3.0])
def test_preferences_are_as_frequent_as_bradley_and_terry_say(script, rationality):
    """Chi-square over pairs of all differences of rewards, which rejects others."""
    values, number = [0.0, 0.4, 1.0, 2.0], 1500
    kinds = list(itertools.product(values, repeat=2))
    rewards = torch.tensor(kinds * number).flatten()
    completions = torch.arange(len(rewards)).view(-1, 1)  # no two are equal
    torch.manual_seed(0)
    better, worse = module(script).prefer(completions, rewards, rationality)
    assert len(better) == len(worse) == len(kinds) * number
    assert torch.equal(better // 2, torch.arange(len(better))), "rows of one pair after another"
    assert torch.equal(worse // 2, better // 2)
    assert (better != worse).all()
    first = (better % 2 == 0).view(number, -1).sum(0).numpy()

    def surprise(slope: float) -> float:
        p = np.array([1 / (1 + math.exp(-slope * (a - b))) for a, b in kinds])
        statistic = ((first - number * p) ** 2 / (number * p * (1 - p))).sum()
        return (statistic - len(kinds)) / math.sqrt(2 * len(kinds))

    assert abs(surprise(rationality)) < 3.5
    assert surprise(rationality + 0.4) > 10


@both
def test_a_rational_answer_is_the_better_one_and_ties_are_coins(script):
    rewards = torch.tensor([1.0, 0.0] * 200 + [0.0, 1.0] * 200 + [1.0, 1.0] * 2000)
    completions = torch.arange(len(rewards)).view(-1, 1)
    torch.manual_seed(1)
    better, worse = module(script).prefer(completions, rewards, 1e3)
    assert rewards[better[:400]].eq(1).all()
    assert rewards[worse[:400]].eq(0).all()
    heads = (better[400:] % 2 == 0).sum().item()
    assert abs(heads - 1000) < 4 * math.sqrt(500)


@both
def test_pairs_of_equal_completions_are_left_out(script):
    """Equal to the last token, not in reward; but the first stays where there is no other."""
    found, equal, other = module(script), [1, 2, EOS], [1, EOS, EOS]
    rewards = torch.arange(8.0)
    pairs = torch.tensor([equal, equal, equal, other, other, other, other, [2, EOS, EOS]])
    better, worse = found.prefer(pairs, rewards, 1e3)
    assert better.tolist() == [3, 7]
    assert worse.tolist() == [2, 6]
    better, worse = found.prefer(torch.tensor([equal] * 6), torch.zeros(6), 1e3)
    assert sorted([*better.tolist(), *worse.tolist()]) == [0, 1]
    better, worse = found.prefer(torch.tensor([other, equal]), torch.zeros(2), 1e3)
    assert sorted([*better.tolist(), *worse.tolist()]) == [0, 1]


def test_preference_loss_by_hand():
    """And it is finite where the sigmoid is not."""
    better, worse = 3 * noise(0, 7).requires_grad_(), noise(1, 7)
    better = better.detach().requires_grad_()
    loss = ppo_rlhf.preference_loss(better, worse)
    (gradient,) = torch.autograd.grad(loss.sum(), better)
    for i in range(7):
        p = 1 / (1 + math.exp(worse[i].item() - better[i].item()))
        assert loss[i].item() == pytest.approx(-math.log(p), rel=1e-9)
        assert gradient[i].item() == pytest.approx(-(1 - p), rel=1e-9)
    far = torch.tensor([1000.0, -1000.0])
    assert ppo_rlhf.preference_loss(far, -far).tolist() == [0.0, 2000.0]


def test_the_gradient_of_the_reward_model():
    """That of -log sigmoid(sum at the chosen's tokens - sum at the rejected's), written out in
    double precision, in every weight."""
    model, prompts = scalar(), prompts_of(2).repeat(2, 1)
    completions = COMPLETIONS[[0, 2, 4, 1]]  # two chosen, then two rejected ones
    mask = ppo_rlhf.completion_mask(completions, gpt().eos)
    better, worse = ppo_rlhf.score(model, prompts, completions, mask).chunk(2)
    ppo_rlhf.preference_loss(better, worse).mean().backward()
    weights, total = doubles(as_gpt(model.state_dict())), 0.0
    sums = [
        outputs(weights, prompt, row)[1].sum()
        for prompt, row in zip(prompts.tolist(), completions.tolist(), strict=True)
    ]
    for i in range(2):
        total = total + (1 + (sums[2 + i] - sums[i]).exp()).log() / 2
    expected = torch.autograd.grad(total, list(weights.values()))
    parameters = as_gpt(dict(model.named_parameters()))
    for (name, p), gradient in zip(parameters.items(), expected, strict=True):
        close = 1e-3 * gradient.abs().max().item() + 1e-6
        torch.testing.assert_close(
            p.grad.double(), gradient, rtol=1e-2, atol=close, msg=f"{name}: {gradient.max()}"
        )


# ---- rewards and advantages of tokens ----
@pytest.mark.parametrize("kl_coef", [0.0, 0.5])
def test_rewards_of_tokens_by_a_plain_loop(kl_coef):
    """Each pays for its log-ratio, and the last, an end or a cut, earns the score; behind it
    there is nothing."""
    scores, log_ratio = noise(0, 8), noise(1, 8, 5)
    found = ppo_rlhf.rewards_of_tokens(scores, log_ratio, MASK, kl_coef)
    assert found.shape == (8, 5)
    for i, length in enumerate(LENGTHS):
        for t in range(5):
            expected = -kl_coef * log_ratio[i, t].item() if t < length else 0.0
            expected += scores[i].item() if t == length - 1 else 0.0
            assert found[i, t].item() == pytest.approx(expected, rel=1e-12)


def test_a_token_more_probable_than_before_costs_something():
    log_ratio = torch.tensor([[0.7, -0.2]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    rewards = ppo_rlhf.rewards_of_tokens(torch.tensor([3.0]), log_ratio, mask, 0.5)
    torch.testing.assert_close(rewards, torch.tensor([[-0.35, 3.1]]))


def advantages_of(rewards, values, gamma: float, gae_lambda: float) -> np.ndarray:
    """Of one completion's tokens: nothing follows the last."""
    rewards, values = (np.asarray(x)[:, None] for x in (rewards, values))
    last = np.arange(len(rewards))[:, None] == len(rewards) - 1
    following = np.roll(values, -1, axis=0)
    arrays = rewards, values, following, last, np.zeros_like(last)
    return gae_by_definition(*arrays, gamma, gae_lambda)[:, 0]


@pytest.mark.parametrize(
    ("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (0.7, 1.0), (1, 0), (0, 1)]
)
def test_advantages_of_tokens_by_the_double_sum(gamma, lam):
    """Of each completion by itself, at its own length."""
    rewards, values = noise(2, 8, 5) * MASK, noise(3, 8, 5) * MASK
    found = ppo_rlhf.gae(rewards, values, gamma, lam)
    assert found.shape == (8, 5)
    for i, n in enumerate(LENGTHS):
        expected = np.zeros(5)
        expected[:n] = advantages_of(rewards[i, :n], values[i, :n], gamma, lam)
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-12)


# ---- the loss ----
@pytest.mark.parametrize(("clip_coef", "vf_coef"), [(0.2, 0.1), (0.05, 0.5), (0.3, 0.0)])
def test_ppo_loss_by_hand(clip_coef, vf_coef):
    """Value, gradients and parts, token by token; old numbers get no gradient."""
    new, values = (0.3 * noise(4, 200)).requires_grad_(), noise(5, 200).requires_grad_()
    old, advantages, returns = 0.3 * noise(6, 200), noise(7, 200), noise(8, 200)
    loss, stats = ppo_rlhf.ppo_loss(new, values, old, advantages, returns, clip_coef, vf_coef)
    gradients = torch.autograd.grad(loss, (new, values))
    kinds, numbers = set(), []
    for i in range(200):
        ratio, a = math.exp(new[i].item() - old[i].item()), advantages[i].item()
        clipped = min(max(ratio, 1 - clip_coef), 1 + clip_coef)
        error = values[i].item() - returns[i].item()
        held = (ratio > 1 + clip_coef and a > 0) or (ratio < 1 - clip_coef and a < 0)
        kinds.add((ratio < 1 - clip_coef, ratio > 1 + clip_coef, a > 0))
        numbers.append({
            "policy_loss": -clipped * a if held else -ratio * a,
            "value_loss": error**2, "clip_frac": float(clipped != ratio),
            "approx_kl": ratio - 1 - math.log(ratio),
        })  # fmt: skip
        slope = 0.0 if held else -a * ratio
        assert 200 * gradients[0][i].item() == pytest.approx(slope, rel=1e-9, abs=1e-12)
        assert 200 * gradients[1][i].item() == pytest.approx(2 * vf_coef * error, rel=1e-9)
    means = {name: np.mean([x[name] for x in numbers]) for name in numbers[0]}
    assert stats.keys() == means.keys()
    for name, value in means.items():
        assert stats[name].item() == pytest.approx(value, rel=1e-6, abs=1e-9), name
    total = means["policy_loss"] + vf_coef * means["value_loss"]
    assert loss.item() == pytest.approx(total, rel=1e-9)
    assert len(kinds) == 6, "both signs, below, within and above"


@pytest.mark.parametrize(
    ("ratio", "advantage", "pulls", "counts"),
    [
        (1.19, 1.0, True, False),
        (1.21, 1.0, False, True),
        (1.21, -1.0, True, True),  # it must be able to come back
        (0.81, -1.0, True, False),
        (0.79, -1.0, False, True),
        (0.79, 1.0, True, True),
    ],
)
def test_the_clip_stops_only_harmful_steps(ratio, advantage, pulls, counts):
    new = torch.tensor([math.log(ratio)], requires_grad=True)
    zero = torch.zeros(1)
    loss, stats = ppo_rlhf.ppo_loss(new, zero, zero, torch.tensor([advantage]), zero, 0.2, 0.1)
    loss.backward()
    assert new.grad.item() == (pytest.approx(-advantage * ratio) if pulls else 0.0)
    assert stats["clip_frac"].item() == float(counts)


# ---- whole iterations ----
def rows_of(weights: dict, prompts, rows) -> list[tuple]:
    return [outputs(weights, p, r) for p, r in zip(prompts, rows, strict=True)]


def recompute_round(run: Recorded, k: int, noted: dict) -> tuple[dict, float]:
    """The reward model after one round's preferences, and the share of those that it ordered
    rightly before it learned from them."""
    weights, right = doubles(as_gpt(run.states[k]["reward_model"])), []
    number = run.args.num_preferences // run.args.preference_rounds
    assert sum(map(len, noted["texts"])) == number
    for texts, completions, preferred in zip(
        noted["texts"], noted["completions"], noted["preferences"], strict=True
    ):
        prompts, rows, rewards = run.plain(texts, completions, 2)
        pairs = list(zip(*(x.tolist() for x in preferred), strict=True))
        size = run.args.batch_size // 2 // run.args.num_minibatches
        for first in range(0, len(pairs), size):
            step, loss = pairs[first : first + size], 0.0
            for better, worse in step:
                assert better // 2 == worse // 2
                sums = [outputs(weights, prompts[i], rows[i])[1].sum() for i in (better, worse)]
                margin = sums[0] - sums[1]
                loss = loss + (1 + (-margin).exp()).log() / len(step)
                if rewards[better] != rewards[worse]:
                    right.append(margin.item() > 0)
                if run.args.rationality > 100:
                    assert rewards[better] >= rewards[worse]
            weights, _ = descend(weights, loss, run.args.reward_lr, math.inf)
    return weights, np.mean(right)


def recompute(run: Recorded, k: int):
    """The policy and the critic after iteration k from those before, and what is logged."""
    args, (prompts, rows, rewards) = run.args, run.batch(k)
    weights = doubles(run.states[k]["policy"])
    critic = doubles(as_gpt(run.states[k]["critic"]))
    with torch.no_grad():
        reference = doubles(run.states[0]["policy"])
        old_log_pi, ref_log_pi = (scores(w, prompts, rows) for w in (weights, reference))
        old, ref = ([chosen(p, r) for p, r in zip(x, rows, strict=True)]
                    for x in (old_log_pi, ref_log_pi))  # fmt: skip
        values = [before for before, _ in rows_of(critic, prompts, rows)]
        told = rewards
        if args.reward == "learned":
            reward_model = doubles(as_gpt(run.states[k + 1]["reward_model"]))
            told = [at.sum().item() for _, at in rows_of(reward_model, prompts, rows)]
    kl = [(p - q).sum().item() for p, q in zip(old, ref, strict=True)]
    advantages, returns = [], []
    for i in range(len(rows)):
        r = (-args.kl_coef * (old[i] - ref[i])).numpy()
        r[-1] += told[i]
        advantages.append(advantages_of(r, values[i], args.gamma, args.gae_lambda))
        returns.append(advantages[-1] + values[i].numpy())
    if args.norm_adv:
        tokens = np.concatenate(advantages)
        advantages = [(a - tokens.mean()) / tokens.std(ddof=1) for a in advantages]
    orders = run.orders[k * args.update_epochs : (k + 1) * args.update_epochs]
    orders = [x for o in orders for x in o.view(args.num_minibatches, -1).tolist()]
    rate = args.learning_rate * ((1 - k / ITERATIONS) if args.anneal_lr else 1)
    logged = {key: [] for key in ("policy_loss", "value_loss", "approx_kl", "clip_frac")}
    logged |= {"entropy": [], "grad_norm": []}
    low, high = 1 - args.clip_coef, 1 + args.clip_coef
    for order in orders:
        number, loss = sum(len(rows[i]) for i in order), 0.0
        tokens = {key: [] for key in logged if key != "grad_norm"}
        for i in order:
            log_pi = log_pi_of(weights, prompts[i], rows[i], TEMPERATURE)
            ratio = (chosen(log_pi, rows[i]) - old[i]).exp()
            a = torch.tensor(advantages[i])
            gain = torch.min(ratio * a, ratio.clamp(low, high) * a)
            error = outputs(critic, prompts[i], rows[i])[0] - torch.tensor(returns[i])
            loss = loss + (-gain + args.vf_coef * error**2).sum() / number
            tokens["policy_loss"] += (-gain).tolist()
            tokens["value_loss"] += (error**2).tolist()
            tokens["approx_kl"] += (ratio - 1 - ratio.log()).tolist()
            tokens["clip_frac"] += ((ratio < low) | (ratio > high)).tolist()
            tokens["entropy"] += (-(log_pi.exp() * log_pi).sum(-1)).tolist()
        for key, numbers in tokens.items():
            logged[key].append(np.mean(numbers))
        both = {("policy", k): w for k, w in weights.items()}
        both |= {("critic", k): w for k, w in critic.items()}
        both, norm = descend(both, loss, rate, args.max_grad_norm)
        logged["grad_norm"].append(norm)
        weights, critic = (
            {k: w for (network, k), w in both.items() if network == name}
            for name in ("policy", "critic")
        )
    logged = {key: np.mean(x) for key, x in logged.items()}
    logged |= {"score": np.mean(told), "kl": np.mean(kl)}
    return weights, critic, logged | about_batch(prompts)


CASES = [
    {"reward": "true"},
    {
        "reward": "true", "gamma": 0.9, "gae_lambda": 0.8, "kl_coef": 2.0, "clip_coef": 0.02,
        "num_minibatches": 3, "max_grad_norm": 0.5, "vf_coef": 0.7,
    },
    {"norm_adv": False, "preference_rounds": 2, "anneal_lr": False, "num_minibatches": 1},
    {"preference_rounds": 3, "num_preferences": 38, "rationality": 1.0, "update_epochs": 1},
]  # fmt: skip


@pytest.mark.parametrize("flags", CASES, ids=str)
def test_iterations_one_by_one(flags, tmp_path, monkeypatch):
    usual = {"learning_rate": 0.05, "max_grad_norm": math.inf, "num_minibatches": 2}
    usual |= {"num_preferences": 60, "reward_lr": 0.3}
    run = Recorded("ppo_rlhf", tmp_path, monkeypatch, **usual | flags)
    args, rounds = run.args, list(run.rounds)
    falling = [1, 2 / 3, 1 / 3] if args.anneal_lr else [1] * 3
    each = args.num_minibatches * args.update_epochs
    assert run.rates == pytest.approx([0.05 * x for x in falling for _ in range(each)])
    assert run.samplers[:ITERATIONS] == ["policy"] * ITERATIONS
    for key, value in as_gpt(run.states[0]["critic"]).items():
        assert key.startswith("head.") or torch.equal(run.states[0]["policy"][key], value)
    for k in range(ITERATIONS):
        before, after = (
            {name: as_gpt(state) for name, state in run.states[i].items()} for i in (k, k + 1)
        )
        if rounds and rounds[0]["iteration"] == k:
            noted = rounds.pop(0)
            assert set(noted["samplers"]) == {"policy"}
            weights, accuracy = recompute_round(run, k, noted)
            assert_moved(before["reward_model"], after["reward_model"], weights)
            assert noted["accuracy"] == pytest.approx(accuracy)
        else:
            for key, value in before["reward_model"].items():
                assert torch.equal(after["reward_model"][key], value)
        weights, critic, logged = recompute(run, k)
        assert_moved(before["policy"], after["policy"], weights)
        assert_moved(before["critic"], after["critic"], critic)
        assert_logged(run.logged[k], logged)
    assert not rounds
    for name in ("policy", "critic"):
        moved = run.states[-1][name]["head.weight"] - run.states[0][name]["head.weight"]
        assert moved.abs().max() > 1e-3
    lengths = [len(row) for k in range(ITERATIONS) for row in run.batch(k)[1]]
    assert len(set(lengths)) > 3, "one length, one test"
    if args.clip_coef < 0.1:
        assert 0.05 < run.logged[-1]["clip_frac"] < 0.95


def test_the_first_minibatchs_ratio_is_1_at_any_temperature(tmp_path, monkeypatch):
    """And in the second it is not."""
    ratios, loss = [], ppo_rlhf.ppo_loss

    def note(log_probs, values, old_log_probs, *rest):
        ratios.append((log_probs - old_log_probs).exp().detach())
        return loss(log_probs, values, old_log_probs, *rest)

    monkeypatch.setattr(ppo_rlhf, "ppo_loss", note)
    Recorded(
        "ppo_rlhf", tmp_path, monkeypatch, learning_rate=0.1, num_minibatches=2,
        update_epochs=1,
    )  # fmt: skip
    assert_ratios(ratios)


# ---- rounds of preferences ----
@pytest.mark.parametrize("rounds", [1, 3, 4, 7, 0])
def test_preferences_are_collected_in_rounds_spread_evenly(rounds, tmp_path, monkeypatch):
    """Of seven iterations the first and as many as were asked for; for the true reward, which
    0 stands for here, never."""
    begun, steps = [], []

    def note(policy, reward_model, optimizer, task, args):
        begun.append(len(steps))
        return 0.5

    record = ppo_rlhf.Run.record_step
    monkeypatch.setattr(ppo_rlhf, "train_reward_model", note)
    monkeypatch.setattr(
        ppo_rlhf.Run, "record_step", lambda *args: steps.append(1) or record(*args)
    )
    flags = {"batch_size": 4, "total_timesteps": 28, "num_preferences": 70}
    flags |= {"preference_rounds": rounds} if rounds else {"reward": "true"}
    train("ppo_rlhf", tmp_path, **flags)
    assert len(begun) == len(set(begun)) == rounds
    if rounds:
        assert begun[0] == 0
        assert set(np.diff([*begun, 7])) <= {7 // rounds, -(-7 // rounds)}


@pytest.mark.parametrize(("number", "sizes"), [(3, [3]), (8, [8]), (21, [8, 8, 5])])
def test_a_rounds_preferences_come_in_batches(number, sizes, tmp_path, monkeypatch):
    """As many as were asked for, pairs of one prompt side by side, never more at a time than a
    batch has completions."""
    run = Recorded(
        "ppo_rlhf", tmp_path, monkeypatch, batch_size=16, total_timesteps=32,
        num_preferences=2 * number, preference_rounds=2,
    )  # fmt: skip
    for noted in run.rounds:
        assert [len(texts) for texts in noted["texts"]] == sizes
        assert [len(rows) for rows in noted["completions"]] == [2 * n for n in sizes]


@pytest.mark.parametrize(("minibatches", "size"), [(1, 150), (3, 50), (200, 1)])
def test_a_step_of_the_reward_model_has_a_minibatch_of_pairs(
    minibatches, size, tmp_path, monkeypatch
):
    """Half of a batch's completions, divided by num_minibatches, and one at the least; what is
    equal has been left out."""
    args = {"batch_size": 300, "num_preferences": 150, "num_minibatches": minibatches}
    args = ppo_rlhf.Args(**flags_of("ppo_rlhf", tmp_path, **args))
    with_reward(ppo_rlhf, monkeypatch, lambda prompt, answer: float(len(answer)))
    task = ppo_rlhf.Task(args)
    policy, model = task.policy, ppo_rlhf.Scalar(task.policy)
    optimizer, sizes = torch.optim.SGD(model.parameters(), 0.1), []
    loss = ppo_rlhf.preference_loss
    monkeypatch.setattr(
        ppo_rlhf, "preference_loss", lambda a, b: sizes.append((len(a), len(b))) or loss(a, b)
    )
    torch.manual_seed(0)
    ppo_rlhf.train_reward_model(policy, model, optimizer, task, args)
    assert all(a == b for a, b in sizes)
    assert set(sizes[:-1]) <= {(size, size)}
    assert 0 < sizes[-1][0] <= size
    assert 100 < sum(a for a, _ in sizes) < 150


def test_a_reward_model_learns_to_order_completions(tmp_path, monkeypatch):
    """A round of preferences for long answers: of fresh pairs it then orders nearly all."""
    args = ppo_rlhf.Args(**flags_of("ppo_rlhf", tmp_path, batch_size=128, num_preferences=800))
    with_reward(ppo_rlhf, monkeypatch, lambda prompt, answer: float(len(answer)))
    task = ppo_rlhf.Task(args)
    policy, model = task.policy, ppo_rlhf.Scalar(task.policy)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    torch.manual_seed(0)
    ppo_rlhf.train_reward_model(policy, model, optimizer, task, args)
    assert ppo_rlhf.train_reward_model(policy, model, optimizer, task, args) > 0.95


def test_without_unequal_rewards_there_is_no_accuracy(tmp_path, monkeypatch):
    """0, and no division by nothing."""
    run = Recorded("ppo_rlhf", tmp_path, monkeypatch, rewarded=lambda prompt, answer: 1.0)
    assert [noted["accuracy"] for noted in run.rounds] == [0]


def test_preferences_between_rewards_that_are_not_finite_end_the_run(tmp_path, monkeypatch):
    """Though every completion of the rollouts is rewarded well."""
    asked = []

    def reward(prompt: str, answer: str) -> float:
        asked.append(prompt)
        return math.nan if len(asked) == 3 else 1.0

    with_reward(ppo_rlhf, monkeypatch, reward)
    with pytest.raises(FloatingPointError, match="a reward is not finite"):
        train("ppo_rlhf", tmp_path)
