"""What the scripts for language models refuse, in one line and before anything is made; and
rewards, weights and evaluations that are not finite."""

import math
from pathlib import Path

import pytest
import torch
from helpers import checkpoint_of, fields, module, scalars, step_of
from lm_helpers import (
    every,
    flags_of,
    random_base,
    some_reward,
    task_of,
    train,
    with_reward,
)


def refused(script: str, folder: Path, **flags) -> str:
    found = module(script)
    with pytest.raises(found.BadInput) as refusal:
        found.train(found.Args(**flags_of(script, folder, **flags)))
    text = str(refusal.value)
    assert isinstance(refusal.value, ValueError)
    if "run_dir" not in flags:
        assert not (folder / "run").exists()
    return text


@pytest.mark.parametrize(
    ("script", "flags", "said"),
    [
        ("reinforce_lm", {"total_timesteps": 15}, "at least one batch, 16"),
        ("rloo", {"num_generations": 5}, "num_generations must divide 16"),
        ("grpo", {"num_generations": 3}, "num_generations and num_minibatches must divide 16"),
        ("grpo", {"num_generations": 32}, "num_generations and num_minibatches must divide 16"),
        ("grpo", {"num_generations": 1}, "num_generations must be int 2.."),
        ("grpo", {"num_minibatches": 3}, "num_generations and num_minibatches must divide 16"),
        ("grpo", {"num_minibatches": 32}, "num_minibatches must divide 16"),
        ("ppo_rlhf", {"num_minibatches": 3}, "num_minibatches must divide 16"),
        ("ppo_rlhf", {"preference_rounds": 4}, "number of iterations, 3"),
        ("ppo_rlhf", {"preference_rounds": 2, "num_preferences": 1}, "at most num_preferences"),
        ("ppo_rlhf", {"total_timesteps": 15}, "at least one batch, 16"),
        ("ppo_rlhf", {"batch_size": 1, "num_minibatches": 1}, "at least 2, a pair"),
        ("dpo", {"batch_size": 15}, "batch_size must be even, of pairs, not 15"),
        ("grpo", {"task": "subtraction"}, "No module named 'subtraction'"),
        ("grpo", {"task": "nowhere:make"}, "No module named 'nowhere'"),
        ("grpo", {"task": "math:nothing"}, "has no attribute 'nothing'"),
        ("grpo", {"task": ":make"}, "Empty module name"),
        ("grpo", {"task_kwargs": "{"}, "Expecting property name"),
        ("grpo", {"task_kwargs": "[]"}, "argument after ** must be a mapping"),
        ("grpo", {"task_kwargs": '{"careless": 1}'}, "unexpected keyword argument 'careless'"),
        ("grpo", {"max_completion_length": 27}, "6 tokens of text, not 1 to 5"),
    ],
    ids=str,
)  # fmt: skip
def test_flags_that_do_not_fit_together(script, flags, said, tmp_path):
    assert said in refused(script, tmp_path, **flags)


OUT_OF_RANGE = [
    {"temperature": 0.0}, {"temperature": math.nan}, {"kl_coef": -0.1}, {"clip_coef_low": 1.5},
    {"clip_coef_high": math.inf}, {"update_epochs": 0}, {"num_minibatches": 0},
    {"batch_size": 0}, {"batch_size": 1.5}, {"max_completion_length": 0},
    {"max_grad_norm": 0.0}, {"baseline_decay": 1.1}, {"total_timesteps": math.inf},
    {"eval_episodes": 0}, {"seed": -1},
    {"gamma": 1.1}, {"gae_lambda": -0.1}, {"num_preferences": 0}, {"preference_rounds": 0},
    {"rationality": -1.0}, {"reward_lr": -0.1}, {"nll_coef": -0.1}, {"clip_coef": math.nan},
]  # fmt: skip


@pytest.mark.parametrize("flags", OUT_OF_RANGE, ids=str)
def test_sizes_and_rates_out_of_range(flags, tmp_path):
    ((name, value),) = flags.items()
    script = next(s for s in ("grpo", "reinforce_lm", "ppo_rlhf", "dpo") if name in fields(s))
    line = refused(script, tmp_path, **flags)
    assert line.startswith(f"{name} must be ")
    assert line.endswith(f"not {value}")


@every
def test_every_number_is_checked(script, tmp_path):
    found = module(script)
    numbers = [n for n in fields(script) if type(getattr(found.Args, n)) in (int, float)]
    assert len(numbers) > 10
    for name in numbers:
        assert refused(script, tmp_path, **{name: math.nan}).startswith(f"{name} must")


def of_another_type(hint) -> list:
    """Values that a flag with this annotation does not take."""
    if hint is bool:
        return ["no", 1, 0.0, None]
    if hint is str:
        return [5, None, True]
    if hint in (int, float, int | float):
        return ["x", "1", None, True, [1]]
    if hint == Path | None:
        return [5, True, ["runs"]]
    return ["none of these", 1, None]  # a choice


@every
def test_flags_of_another_type(script, tmp_path):
    """As Python can give them, for every flag: one line that names it, and nothing is made."""
    found = module(script)
    for name, hint in found.Args.__annotations__.items():
        for value in of_another_type(hint):
            with pytest.raises(found.BadInput, match=f"^{name} must be .*not ") as refusal:
                found.train(found.Args(**{"run_dir": tmp_path / "run"} | {name: value}))
            assert "<class" not in str(refusal.value)
            assert "\n" not in str(refusal.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("reinforce_lm", {"baseline_decay": 0.0, "temperature": 1000.0, "batch_size": 1}),
        ("rloo", {"num_generations": 2, "batch_size": 2, "kl_coef": 0.0}),
        ("rloo", {"num_generations": 16, "learning_rate": 0.0}),
        ("grpo", {"num_generations": 2, "num_minibatches": 16, "max_grad_norm": math.inf}),
        ("grpo", {"clip_coef_low": 1.0, "clip_coef_high": 0.0, "update_epochs": 3}),
        ("grpo", {"max_completion_length": 26, "temperature": 1e-3}),
        ("grpo", {"max_draws": 1e15, "cispo": True, "sequence_ratio": True}),
        (
            "ppo_rlhf",
            {
                "batch_size": 2,
                "num_minibatches": 2,
                "gamma": 0,
                "gae_lambda": 0,
                "clip_coef": 0,
            },
        ),
        ("ppo_rlhf", {"num_preferences": 1, "rationality": 0.0, "max_completion_length": 26}),
        ("ppo_rlhf", {"num_minibatches": 16, "rationality": 1e15, "reward_lr": 0.0}),
        ("dpo", {"batch_size": 2, "kl_coef": 0.0, "nll_coef": 0.0, "rationality": 0.0}),
        ("dpo", {"online": True, "rationality": 1e15}),
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_work(script, flags, tmp_path):
    assert train(script, tmp_path, total_timesteps=16, **flags)["global_step"] == 16


@every
def test_an_existing_run_directory(script, tmp_path):
    """Refused before the base model is made, and left as it was."""
    path = tmp_path / "there"
    path.mkdir()
    (path / "mine").write_text("mine")
    line = refused(script, tmp_path, run_dir=path, base_model=str(tmp_path / "none.pt"))
    assert f"{path} exists" in line
    assert [p.name for p in path.iterdir()] == ["mine"]
    assert not (tmp_path / "none.pt").exists()
    assert "cannot resume" in refused(script, tmp_path, resume=path, run_dir=path)


@every
@pytest.mark.parametrize("damage", ["garbage", "empty", "half", "folder", "weights", "list"])
def test_a_damaged_base_model(script, damage, tmp_path):
    path = random_base(tmp_path / "base.pt")
    data = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "weights":
        torch.save({"reference": {"head.weight": torch.zeros(3)}}, path)
    elif damage == "list":
        torch.save([], path)
    else:
        half = data[: len(data) // 2]
        path.write_bytes({"garbage": b"garbage", "empty": b"", "half": half}[damage])
    assert str(path) in refused(script, tmp_path)


@every
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_not_finite(script, value, tmp_path, monkeypatch):
    """It ends the run at once, with the last checkpoint intact."""
    found, steps = module(script), []
    record = found.Run.record_step
    monkeypatch.setattr(
        found.Run, "record_step", lambda *args: steps.append(1) or record(*args)
    )
    with_reward(found, monkeypatch, lambda prompt, _: value if len(steps) == 2 else 0.5)
    with pytest.raises(FloatingPointError, match="a reward is not finite"):
        train(script, tmp_path, checkpoint_interval=0.0)
    assert step_of(tmp_path / "run") == 32
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_enough(value, tmp_path, monkeypatch):
    """An infinite one where no other is NaN, as of a KL divergence, too."""
    found, record = module("grpo"), module("grpo").Run.record_iteration

    def spoil(run, policy, task, losses):
        record(run, policy, task, losses | ({"kl": value} if run.global_step == 32 else {}))

    monkeypatch.setattr(found.Run, "record_iteration", spoil)
    with pytest.raises(FloatingPointError, match="step 32: a loss is not finite"):
        train("grpo", tmp_path, checkpoint_interval=0.0)
    assert step_of(tmp_path / "run") == 16


@every
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(script, value, tmp_path, monkeypatch):
    """Of the second iteration: not logged, not saved, not summed up."""
    found, calls = module(script), []
    name = {"grpo": "grpo_loss", "ppo_rlhf": "ppo_loss", "dpo": "dpo_loss"}
    name = name.get(script, "reinforce_loss")
    loss = getattr(found, name)

    def broken(*args):
        calls.append(1)
        factor = value if len(calls) > each else 1.0
        if script in ("reinforce_lm", "rloo"):
            return loss(*args) * factor
        result, stats = loss(*args)
        if script != "grpo":
            stats["policy_loss"] = stats["policy_loss"].detach() * factor
        return result * factor, stats

    each = 8 if script == "ppo_rlhf" else 1
    monkeypatch.setattr(found, name, broken)
    with pytest.raises(FloatingPointError, match="step 32: a loss is not finite"):
        train(script, tmp_path, checkpoint_interval=0.0)
    assert step_of(tmp_path / "run") == 16
    assert [e.step for e in scalars(tmp_path / "run")["losses/policy_loss"]] == [16]
    assert not (tmp_path / "run" / "summary.json").exists()


@every
def test_weights_that_overflow(script, tmp_path, monkeypatch):
    """FloatingPointError, and nothing that is not finite is saved or summed up."""
    with_reward(module(script), monkeypatch, some_reward)
    with pytest.raises(FloatingPointError):
        train(
            script, tmp_path, learning_rate=1e15, checkpoint_interval=0.0, total_timesteps=160
        )
    saved = checkpoint_of(tmp_path / "run")
    assert all(value.isfinite().all() for value in saved["policy"].values())
    assert not (tmp_path / "run" / "summary.json").exists()


@every
def test_an_evaluation_that_is_not_finite(script, tmp_path, monkeypatch):
    """A reward that fails on held-out prompts alone: no summary."""
    found = module(script)
    (held_out,) = task_of(script).held_out
    with_reward(found, monkeypatch, lambda prompt, _: math.nan if prompt in held_out else 0.5)
    with pytest.raises(FloatingPointError, match="a reward is not finite"):
        train(script, tmp_path)
    assert step_of(tmp_path / "run") == 48
    assert not (tmp_path / "run" / "summary.json").exists()
