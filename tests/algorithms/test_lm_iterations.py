"""Several iterations of train() in a row, each recomputed from the weights it began with.

The recomputation shares no code with the scripts: the GPT, advantages, losses and gradient
steps are written out here, in double precision and one completion at a time, from the
completions that were sampled. The optimiser is replaced by plain gradient descent, so that a
step shows its gradient, and the order of the minibatches is noted. What is logged is recomputed
too.
"""

import math

import numpy as np
import pytest
import torch
from helpers import module, scalars
from lm_helpers import EOS, chosen, doubles, every, flags_of, groups, log_pi_of, real_tokens
from lm_recorded import (
    BATCH,
    ITERATIONS,
    SIZE,
    TEMPERATURE,
    Recorded,
    about_batch,
    assert_logged,
    assert_moved,
    assert_ratios,
    descend,
    reward,
    scores,
)


def group_advantages(script: str, rewards: list[float], norm_std=True) -> list[float]:
    found = []
    for i in range(len(rewards)):
        group = rewards[i // SIZE * SIZE : i // SIZE * SIZE + SIZE]
        if script == "rloo":
            others = [r for j, r in enumerate(group) if j != i % SIZE]
            found.append(rewards[i] - sum(others) / (SIZE - 1))
            continue
        mean = sum(group) / SIZE
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / (SIZE - 1))
        found.append((rewards[i] - mean) / (std if norm_std and std else 1.0))
    return found


def recompute(run: Recorded, k: int):
    """The policy after iteration k from the one before, and what is to be logged."""
    args, script = run.args, run.script
    prompts, rows, rewards = run.batch(k)
    lengths = [len(row) for row in rows]
    assert all(real_tokens(row) == row for row in rows)
    weights = doubles(run.states[k]["policy"])
    reference = doubles(run.states[0]["policy"])
    with torch.no_grad():
        old_log_pi, ref_log_pi = (scores(w, prompts, rows) for w in (weights, reference))
        old = [chosen(p, row) for p, row in zip(old_log_pi, rows, strict=True)]
        ref = [chosen(p, row) for p, row in zip(ref_log_pi, rows, strict=True)]
    log_ratios = [(p - q).sum().item() for p, q in zip(old, ref, strict=True)]
    logged = about_batch(prompts) | {"kl": np.mean(log_ratios)}
    if script == "reinforce_lm":
        advantages = [r - run.baseline(k) for r in rewards]
        logged["baseline"] = run.baseline(k + 1)
        del logged["kl"]
    elif script == "rloo":
        penalised = [r - args.kl_coef * x for r, x in zip(rewards, log_ratios, strict=True)]
        advantages = group_advantages(script, penalised)
    else:
        advantages = group_advantages(script, rewards, args.norm_std)
    if args.mask_truncated_completions:
        advantages = [a * (EOS in row) for a, row in zip(advantages, rows, strict=True)]
    if script == "grpo":
        teaching = [any(advantages[g : g + SIZE]) for g in range(0, BATCH, SIZE)]
        logged["equal_groups"] = 1 - np.mean(teaching)
    orders = [list(range(BATCH))]
    if script == "grpo":
        epochs = args.update_epochs
        orders = [x for o in run.orders[k * epochs : (k + 1) * epochs]
                  for x in o.view(args.num_minibatches, -1).tolist()]  # fmt: skip
    losses, entropies, clips, norms = [], [], [], []
    rate = args.learning_rate * ((1 - k / ITERATIONS) if args.anneal_lr else 1)
    for order in orders:
        loss, entropy, clipped = 0.0, [], []
        for i in order:
            log_pi = log_pi_of(weights, prompts[i], rows[i], TEMPERATURE)
            new, a = chosen(log_pi, rows[i]), advantages[i]
            if script != "grpo":
                term = -a * new.sum()
            else:
                ratio = (new - old[i]).exp()
                if args.sequence_ratio:
                    ratio = ratio.prod() ** (1 / lengths[i]) * torch.ones(lengths[i])
                low, high = 1 - args.clip_coef_low, 1 + args.clip_coef_high
                gain = torch.min(ratio * a, ratio.clamp(low, high) * a)
                if args.cispo:
                    gain = torch.tensor([min(max(r, low), high) for r in ratio.tolist()])
                    gain = gain * a * new
                r = (ref[i] - new).exp()
                k3 = r - 1 - r.log()
                share = {
                    "own": lengths[i],
                    "mean": sum(lengths[j] for j in order) / len(order),
                    "max": args.max_completion_length,
                }[args.length_norm]
                term = -(gain - args.kl_coef * k3).sum() / share
                clipped += ((ratio < low) | (ratio > high)).tolist()
            loss = loss + term / len(order)
            entropy += (-(log_pi.exp() * log_pi).sum(-1)).tolist()
        losses.append(loss.item())
        entropies.append(np.mean(entropy))
        clips.append(np.mean(clipped) if clipped else 0.0)
        weights, norm = descend(weights, loss, rate, args.max_grad_norm)
        norms.append(norm)
    logged |= {"policy_loss": np.mean(losses), "entropy": np.mean(entropies)}
    logged["grad_norm"] = np.mean(norms)
    if script == "grpo":
        logged["clip_frac"] = np.mean(clips)
    return weights, logged


CASES = [
    ("reinforce_lm", {}),
    ("reinforce_lm", {"baseline_decay": 1.0}),
    ("reinforce_lm", {"max_grad_norm": 0.2, "anneal_lr": False, "baseline_decay": 0.5}),
    ("reinforce_lm", {"mask_truncated_completions": True}),
    ("rloo", {"kl_coef": 0.5}),
    ("rloo", {"mask_truncated_completions": True}),
    ("rloo", {"kl_coef": 0.5, "max_grad_norm": 0.2}),
    ("grpo", {}),
    ("grpo", {"mask_truncated_completions": True, "kl_coef": 0.5}),
    ("grpo", {"norm_std": False, "length_norm": "max", "kl_coef": 0.0}),
    (
        "grpo",
        {
            "kl_coef": 0.5, "num_minibatches": 3, "update_epochs": 2, "clip_coef_low": 0.02,
            "clip_coef_high": 0.05, "max_grad_norm": 0.5,
        },
    ),
    ("grpo", {"length_norm": "mean", "num_minibatches": 3, "update_epochs": 2}),
    (
        "grpo",
        {
            "sequence_ratio": True, "clip_coef_low": 0.01, "clip_coef_high": 0.02,
            "num_minibatches": 2, "update_epochs": 2,
        },
    ),
    (
        "grpo",
        {
            "cispo": True, "length_norm": "mean", "clip_coef_low": 0.05, "clip_coef_high": 0.02,
            "num_minibatches": 3, "kl_coef": 0.0,
        },
    ),
]  # fmt: skip


def check(run: Recorded, k: int) -> None:
    """The step and the log of iteration k against what is recomputed."""
    weights, logged = recompute(run, k)
    assert_moved(run.states[k]["policy"], run.states[k + 1]["policy"], weights)
    assert_logged(run.logged[k], logged)


@pytest.mark.parametrize(("script", "flags"), CASES, ids=str)
def test_iterations_one_by_one(script, flags, tmp_path, monkeypatch):
    usual = {"learning_rate": 0.1, "max_grad_norm": math.inf}
    run = Recorded(script, tmp_path, monkeypatch, **usual | flags)
    assert len(run.logged) == ITERATIONS
    falling = [1, 2 / 3, 1 / 3] if run.args.anneal_lr else [1] * 3
    each = flags.get("num_minibatches", 1) * flags.get("update_epochs", 1)
    assert run.rates == pytest.approx([0.1 * x for x in falling for _ in range(each)])
    for k in range(ITERATIONS):
        check(run, k)
    moved = run.states[-1]["policy"]["head.weight"] - run.states[0]["policy"]["head.weight"]
    assert moved.abs().max() > 1e-3
    lengths = [len(row) for k in range(ITERATIONS) for row in run.batch(k)[1]]
    assert len(set(lengths)) > 3, "one length, one test"
    if script == "grpo":
        assert 0 < np.mean([x["equal_groups"] for x in run.logged]) < 1
        rewards = np.array([run.batch(k)[2] for k in range(ITERATIONS)]).reshape(-1, SIZE)
        average = rewards == rewards.mean(1, keepdims=True)
        assert (average.any(1) & ~average.all(1)).any(), "a member of no advantage"
    if "mask_truncated_completions" in flags:
        cut = [EOS not in row for k in range(ITERATIONS) for row in run.batch(k)[1]]
        assert 0.1 < np.mean(cut) < 0.9
    if "clip_coef_low" in flags:
        assert 0.05 < run.logged[-1]["clip_frac"] < 0.95
    for tag, name in ((f"losses/{name}", name) for name in run.logged[0]):
        events = scalars(tmp_path / "run")[tag]
        assert [e.value for e in events] == pytest.approx([x[name] for x in run.logged])
        assert [e.step for e in events] == [BATCH * (k + 1) for k in range(ITERATIONS)]


@every
def test_the_reference_never_changes(script, tmp_path, monkeypatch):
    run = Recorded(script, tmp_path, monkeypatch, learning_rate=0.1)
    for state in run.states:
        for key, value in state["reference"].items():
            assert torch.equal(value, run.states[0]["policy"][key])
    assert any(
        not torch.equal(value, run.states[-1]["policy"][key])
        for key, value in run.states[-1]["reference"].items()
    )


def test_the_first_minibatchs_ratio_is_1_at_any_temperature(tmp_path, monkeypatch):
    """And in the second it is not."""
    found, ratios = module("grpo"), []
    loss = found.grpo_loss

    def note(log_probs, old_log_probs, ref_log_probs, mask, *rest):
        ratios.append((log_probs - old_log_probs).exp()[mask].detach())
        return loss(log_probs, old_log_probs, ref_log_probs, mask, *rest)

    monkeypatch.setattr(found, "grpo_loss", note)
    Recorded("grpo", tmp_path, monkeypatch, learning_rate=0.1, update_epochs=2)
    assert_ratios(ratios)


@groups
def test_groups_that_agree_move_nothing_but_for_the_kl(script, tmp_path, monkeypatch):
    """One reward for all, and no KL: the weights stay as they are."""
    run = Recorded(
        script, tmp_path, monkeypatch, rewarded=lambda prompt, answer: 0.1, kl_coef=0.0,
        learning_rate=0.5, max_grad_norm=math.inf,
    )  # fmt: skip
    for key, value in run.states[0]["policy"].items():
        torch.testing.assert_close(run.states[-1]["policy"][key], value, rtol=0, atol=1e-6)
    if script == "grpo":
        assert [x["equal_groups"] for x in run.logged] == [1.0] * ITERATIONS
        assert [x["grad_norm"] for x in run.logged] == [0.0] * ITERATIONS


@pytest.mark.parametrize("max_draws", [2, 5])
def test_groups_of_equals_are_drawn_anew(max_draws, tmp_path, monkeypatch):
    """As many groups as were equal, until none is, or until those that may be drawn are fewer;
    all that is drawn is a step; the update sees what was kept, and the run ends in time."""
    total = 12 * BATCH
    run = Recorded(
        "grpo", tmp_path, monkeypatch, max_draws=max_draws, total_timesteps=total,
        anneal_lr=False, learning_rate=0.05, max_grad_norm=math.inf,
    )  # fmt: skip
    step, several, refused = 0, 0, 0
    for k in range(len(run.logged)):
        draws, rest = run.draws(k)
        allowed = min(max_draws * BATCH, total - step)
        assert len(draws[0][2]) == BATCH <= allowed
        groups = [[set(r[g : g + SIZE]) for g in range(0, len(r), SIZE)] for _, _, r in draws]
        equal = [sum(len(rewards) == 1 for rewards in draw) for draw in groups]
        assert [len(draw) for draw in groups[1:]] == equal[:-1]
        assert all(equal[:-1])
        assert len(rest) * SIZE == allowed - sum(len(r) for _, _, r in draws)
        assert equal[-1] == 0 or equal[-1] > len(rest)
        refused += equal[-1] > 0
        several += len(draws) > 2
        step += sum(len(r) for _, _, r in draws)
        if k < 4:
            check(run, k)
    assert total - BATCH < step <= total
    assert [event.step for event in scalars(tmp_path / "run")["charts/episodic_return"]][
        -1
    ] == step
    assert several if max_draws > 2 else refused


def test_drawing_anew_ends_where_all_groups_are_equal(tmp_path, monkeypatch):
    """Three times in the first iteration, and twice in the second, for which steps are left."""
    run = Recorded(
        "grpo", tmp_path, monkeypatch, rewarded=lambda prompt, answer: 1.0, max_draws=3,
        total_timesteps=5 * BATCH, kl_coef=0.0,
    )  # fmt: skip
    assert [len(run.draws(k)[0]) for k in range(len(run.logged))] == [3, 2]
    assert [x["equal_groups"] for x in run.logged] == [1.0, 1.0]


def test_b_is_the_average_of_earlier_batches(tmp_path, monkeypatch):
    """Known before the batch it is compared with; saved with the checkpoint and restored."""
    run = Recorded("reinforce_lm", tmp_path, monkeypatch, baseline_decay=0.8)
    means = [np.mean(run.batch(k)[2]) for k in range(ITERATIONS)]
    b, expected = 0.0, [0.0]
    for mean in means:
        b = 0.8 * b + 0.2 * mean
        expected.append(b)
    assert [s["baseline"]["b"].item() for s in run.states] == pytest.approx(expected)
    assert [x["baseline"] for x in run.logged] == pytest.approx(expected[1:])
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert saved["baseline"]["b"].item() == pytest.approx(expected[-1])
    more = Recorded(
        "reinforce_lm", tmp_path, monkeypatch, run_dir=None, base_model=None,
        resume=tmp_path / "run", baseline_decay=0.8, total_timesteps=BATCH * (ITERATIONS + 1),
    )  # fmt: skip
    assert more.states[0]["baseline"]["b"].item() == pytest.approx(expected[-1])
    b = 0.8 * b + 0.2 * np.mean(more.batch(0)[2])
    assert more.states[1]["baseline"]["b"].item() == pytest.approx(b)


def test_without_decay_there_is_no_baseline(tmp_path, monkeypatch):
    run = Recorded("reinforce_lm", tmp_path, monkeypatch, baseline_decay=1.0)
    assert [s["baseline"]["b"].item() for s in run.states] == [0.0] * (ITERATIONS + 1)


@every
def test_the_optimiser(script, tmp_path, monkeypatch):
    """Adam on all parameters of the policy, and of the critic where there is one, with these
    betas; a reward model has an Adam of its own, with torch's."""
    found, made = module(script), []
    adam = torch.optim.Adam

    def note(parameters, lr, betas=(0.9, 0.999), **rest):
        parameters = list(parameters)
        made.append((len(parameters), lr, betas))
        return adam(parameters, lr, betas, **rest)

    monkeypatch.setattr(torch.optim, "Adam", note)
    found.train(found.Args(**flags_of(script, tmp_path, learning_rate=2e-3)))
    number = len(list(found.GPT().parameters()))
    if script == "ppo_rlhf":
        assert made == [(2 * number + 2, 2e-3, (0.9, 0.95)), (number + 2, 1e-3, (0.9, 0.999))]
    else:
        assert made == [(number, 2e-3, (0.9, 0.95))]


@every
def test_an_offset_of_all_rewards_changes_no_step(script, tmp_path, monkeypatch):
    """Whatever compares completions with each other compares them in double precision; b is
    an average in double precision too."""
    flags = (
        {"learning_rate": 0.1, "kl_coef": 0.0} if script == "rloo" else {"learning_rate": 0.1}
    )
    runs = []
    for offset in (0.0, 1e8):
        (folder := tmp_path / str(offset)).mkdir()
        runs.append(
            Recorded(
                script,
                folder,
                monkeypatch,
                lambda *texts, by=offset: reward(*texts) + by,
                **flags,
            )
        )
    near, far = runs
    if script == "reinforce_lm":
        means = [np.mean(far.batch(k)[2]) for k in range(ITERATIONS)]
        decay = far.args.baseline_decay
        expected = sum(
            (1 - decay) * decay ** (ITERATIONS - 1 - k) * m for k, m in enumerate(means)
        )
        assert abs(far.states[-1]["baseline"]["b"].item() - expected) < 1e-4
        return
    for key, value in near.states[-1]["policy"].items():
        assert torch.equal(value, far.states[-1]["policy"][key])
        assert script != "rloo" or not torch.equal(value, near.states[0]["policy"][key])
