"""The language models' scripts as programs and from Python: what they print, leave behind,
restore, refuse and survive."""

import hashlib
import json
import math
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from helpers import (
    ROOT,
    checkpoint_of,
    command,
    copied,
    environment,
    fields,
    interrupted,
    module,
    run,
    scalars,
    summary_of,
)
from lm_helpers import (
    EOS,
    chosen,
    digits_sum,
    doubles,
    every,
    flags_of,
    gpt_logits,
    log_pi_of,
    random_base,
    shorten,
    small,
    train,
    with_reward,
)

PATIENCE = 120  # seconds that a test waits for what must happen; the machine may be busy
SUMMARY = {
    "env_id": str, "script": str, "seed": int, "global_step": int, "wall_seconds": float,
    "sps": float, "train_episodes": int, "train_return_mean": float, "eval_return_mean": float,
    "eval_return_std": float, "eval_episodes": int, "base_return_mean": float, "kl": float,
    "base_exact_success": float, "exact_success": float,
}  # fmt: skip
SYMBOLS = "0123456789+=."


two = pytest.mark.parametrize("script", ["reinforce_lm", "grpo"])
states = pytest.mark.parametrize("script", ["reinforce_lm", "grpo", "ppo_rlhf"])


class Ended(Exception):
    pass


def some_reward(prompt: str, answer: str) -> float:
    """One that random answers earn in part."""
    return (len(answer) + 1) % 2 + (prompt[0] in answer) / 2


def same(a, b) -> bool:
    """Whether two state_dicts, or nests of them, are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


# ---- as programs ----
def test_a_run_from_the_outside(tmp_path):
    """Everything that the run directory promises, from a run of the file alone in an empty
    folder; and the same seed has the same bits in another process."""
    folder = tmp_path / "alone"
    folder.mkdir()
    alone = Path(shutil.copy(ROOT / "grpo.py", folder))
    base = random_base(tmp_path / "base.pt")
    flags = small("grpo") | {"base_model": base, "total_timesteps": 70, "seed": 3}
    result = run(alone, cwd=folder, **flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (run_dir,) = (folder / "runs").iterdir()
    assert run_dir.name.startswith("addition__grpo__3__")
    assert sorted(p.name for p in folder.iterdir()) == ["grpo.py", "runs"]
    names = {p.name for p in run_dir.iterdir()} - {"lock"}
    assert {n for n in names if not n.startswith("events.")} == {
        "args.json", "checkpoint.pt", "samples.txt", "summary.json",
    }  # fmt: skip

    args = json.loads((run_dir / "args.json").read_text())
    assert fields("grpo") <= set(args)
    assert args["seed"] == 3
    assert args["versions"]["torch"] == torch.__version__
    assert args["script_sha256"] == hashlib.sha256(alone.read_bytes()).hexdigest()
    summary = summary_of(run_dir)
    assert {name: type(value) for name, value in summary.items()} == SUMMARY
    assert summary["global_step"] == summary["train_episodes"] == 64
    assert summary["eval_episodes"] == 8
    samples = (run_dir / "samples.txt").read_text()
    assert samples in result.stdout
    assert len(samples.splitlines()) == 10

    events = scalars(run_dir)
    assert [e.step for e in events["charts/episodic_return"]] == list(range(8, 65, 8))
    assert [e.step for e in events["charts/SPS"]] == [16, 32, 48, 64]
    assert [e.step for e in events["eval/exact_success"]] == [16, 32, 48, 64]
    last = events["eval/exact_success"][-1].value
    assert last == pytest.approx(summary["exact_success"], rel=1e-4)
    evaluated = events["eval/episodic_return"][0].value
    assert evaluated == pytest.approx(summary["eval_return_mean"], rel=1e-5)

    here = {**flags, "base_model": str(base)}
    module("grpo").train(module("grpo").Args(run_dir=tmp_path / "here", **here))
    a, b = checkpoint_of(run_dir), checkpoint_of(tmp_path / "here")
    assert same(a["policy"], b["policy"])
    assert summary_of(tmp_path / "here")["kl"] == summary["kl"]


def start(folder: Path, *arguments, **flags) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    words = command("rloo", *arguments, **flags)
    return subprocess.Popen(words, cwd=folder, env=environment(), **pipes)


def wait_for(process: subprocess.Popen, run_dir: Path, beyond: int) -> None:
    """Until a checkpoint of a later step has been written."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        if (run_dir / "checkpoint.pt").exists() and step_of(run_dir) > beyond:
            return
        time.sleep(0.05)
    raise AssertionError("no progress")


def step_of(run_dir: Path) -> int:
    return checkpoint_of(run_dir)["counters"][0]


def test_killed_interrupted_and_resumed_to_the_end(tmp_path):
    """While it runs nobody else can use its directory. Killed, it resumes from its checkpoint,
    which holds the base model too; interrupted, it says how to go on."""
    run_dir, found = tmp_path / "run of mine", module("rloo")
    flags = flags_of(
        "rloo", tmp_path, run_dir=run_dir, checkpoint_interval=0.1, log_interval=2000
    )
    process = start(tmp_path, **flags | {"total_timesteps": 10**7})
    wait_for(process, run_dir, 100)
    with pytest.raises(found.BadInput, match=r"cannot use .*run of mine"):
        found.train(found.Args(resume=run_dir))
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert not (run_dir / "summary.json").exists()

    reached, before = step_of(run_dir), checkpoint_of(run_dir)
    Path(flags["base_model"]).unlink()
    process = start(tmp_path, resume=run_dir)
    wait_for(process, run_dir, reached)
    stdout, stderr = interrupted(process)
    assert process.returncode == 130
    assert f"resuming at step {reached:,} with new noise; changed: nothing" in stdout
    error, hint = stderr.strip().splitlines()
    assert error == "stopped"
    words = shlex.split(hint.removeprefix("resume with: "))
    assert words == ["python", str(ROOT / "rloo.py"), "--resume", str(run_dir)]

    total = step_of(run_dir) + 64
    summary = found.train(found.Args(resume=run_dir, total_timesteps=total))
    assert summary["global_step"] == total > reached
    assert summary["wall_seconds"] > before["counters"][1]
    assert same(checkpoint_of(run_dir)["reference"], before["reference"])
    steps = [e.step for e in scalars(run_dir)["charts/episodic_return"]]
    assert steps == list(range(8, total + 1, 8)), "eight completions are there twice, or lost"


def test_bad_input_as_a_program(tmp_path):
    """Exit status 2, one line, nothing on standard output and nothing left behind."""
    result = run("grpo", cwd=tmp_path, task="subtraction")
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@every
def test_help_reads_like_documentation(script, capsys, monkeypatch):
    """Every flag with its comment, and no word broken at a line's end."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        tyro.cli(module(script).Args, args=["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    lines = (ROOT / f"{script}.py").read_text().splitlines()
    for name in fields(script):
        assert f"--{name.replace('_', '-')}" in text
        line = next(line for line in lines if line.startswith(f"    {name}: "))
        assert " ".join(line.split("  # ")[1].split()) in text, f"the help of {name}"


# ---- what is left behind ----
@two
def test_the_summary_and_the_samples(script, tmp_path, monkeypatch):
    """Recomputed: the modes of the base model and of the policy, their rewards, the KL
    divergence of sampled completions, the successes."""
    found, sampled = module(script), []
    sample = found.sample

    def note(policy, prompts, temperature, *limits):
        sampled.append(
            (prompts.tolist(), temperature, sample(policy, prompts, temperature, *limits))
        )
        return sampled[-1][2]

    monkeypatch.setattr(found, "sample", note)
    with_reward(found, monkeypatch, some_reward)
    returned = train(
        script, tmp_path, learning_rate=0.002, temperature=0.7, eval_episodes=15,
        total_timesteps=48,
    )  # fmt: skip
    summary, state = summary_of(tmp_path / "run"), checkpoint_of(tmp_path / "run")
    assert summary == returned
    models = {name: doubles(state[name]) for name in ("reference", "policy")}
    task = found.Task(found.Args(eval_episodes=15), found.Characters())
    (held_out,) = task.held_out
    answers, rewards, successes = {}, {}, {}
    for name, weights in models.items():
        answers[name], successes[name] = [], []
        for text in held_out:
            prompt, row = [SYMBOLS.index(c) for c in text], []
            while len(row) < 5 and EOS not in row:
                row.append(gpt_logits(weights, prompt + row)[-1].argmax().item())
            answers[name].append("".join(SYMBOLS[t] for t in row if t != EOS))
            right = [SYMBOLS.index(c) for c in digits_sum(text) + "."]
            log_probs = chosen(log_pi_of(weights, prompt, right, 0.7), right)
            successes[name].append(log_probs.sum().exp().item())
        pairs = zip(held_out, answers[name], strict=True)
        rewards[name] = [some_reward(*pair) for pair in pairs]
    assert answers["policy"] != answers["reference"]
    prompts, temperature, completions = sampled[-1]
    assert temperature == 0.7
    assert [SYMBOLS[t] for t in prompts[3]] == list(held_out[3])
    assert completions.eq(-1).any(), "no padding, no test of it"
    divergences = []
    for prompt, row in zip(prompts, completions.tolist(), strict=True):
        row = [t for t in row if t >= 0]
        p, q = (log_pi_of(models[m], prompt, row, 0.7) for m in ("policy", "reference"))
        divergences.append((p.exp() * (p - q)).sum().item())
    expected = {
        "env_id": "addition", "script": f"{script}.py", "seed": 1, "global_step": 48,
        "train_episodes": 48, "eval_episodes": 15,
        "eval_return_mean": np.mean(rewards["policy"]),
        "eval_return_std": np.std(rewards["policy"]),
        "base_return_mean": np.mean(rewards["reference"]), "kl": np.mean(divergences),
        "base_exact_success": np.mean(successes["reference"]),
        "exact_success": np.mean(successes["policy"]),
        "sps": 48 / summary["wall_seconds"],
    }  # fmt: skip
    for name, value in expected.items():
        if isinstance(value, float):
            value = pytest.approx(value, rel=1e-3)
        assert summary[name] == value, name
    lines = (tmp_path / "run" / "samples.txt").read_text().splitlines()
    assert len(lines) == 12
    for k, line in enumerate(lines[1:11]):
        assert line.startswith(held_out[k])
        before, after = answers["reference"][k], answers["policy"][k]
        assert f"{before!r} -> {after!r}" in line
        assert f"({rewards['reference'][k]:g} -> {rewards['policy'][k]:g})" in line
    assert f"evaluation {summary['eval_return_mean']:.3f}" in lines[11]


def test_returns_and_lengths_are_logged_eight_at_a_time(tmp_path, monkeypatch):
    """The reward without any KL; in a batch of 12 an eight and a four."""
    found, batches = module("rloo"), []
    record = found.Run.record_step

    def note(run, rewards, lengths):
        batches.append((rewards.tolist(), lengths.tolist()))
        record(run, rewards, lengths)

    monkeypatch.setattr(found.Run, "record_step", note)
    with_reward(found, monkeypatch, some_reward)
    summary = train("rloo", tmp_path, batch_size=12, total_timesteps=132, learning_rate=0.01)
    rewards = [r for batch in batches for r in batch[0]]
    assert len(rewards) == 132
    assert {r * 2 % 1 for r in rewards} == {0.0}, "the task's reward, and nothing else"
    assert summary["train_return_mean"] == pytest.approx(np.mean(rewards[-100:]))
    events = scalars(tmp_path / "run")
    for tag, column in (("charts/episodic_return", 0), ("charts/episodic_length", 1)):
        expected = [np.mean(x) for b in batches for x in (b[column][:8], b[column][8:])]
        assert [e.value for e in events[tag]] == pytest.approx(expected)
        steps = [12 * k + n for k in range(11) for n in (8, 12)]
        assert [e.step for e in events[tag]] == steps


def test_losses_are_logged_at_the_interval(tmp_path):
    """At least so many completions apart; a plain line for each checkpoint."""
    train("rloo", tmp_path, log_interval=40, total_timesteps=160)
    events = scalars(tmp_path / "run")
    for tag in ("losses/policy_loss", "losses/kl", "eval/exact_success", "charts/SPS"):
        assert [e.step for e in events[tag]] == [16, 64, 112, 160]


def test_plain_lines_without_a_terminal(tmp_path, capsys):
    train("grpo", tmp_path, checkpoint_interval=0.0, total_timesteps=48)
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("step ")]
    assert [line.split(",")[0] for line in lines] == ["step 16", "step 32", "step 48"]
    for line in lines:
        assert "return " in line
        assert "held-out success 0." in line
        assert line.endswith(" steps/s")


# ---- resumed ----
@states
def test_everything_is_restored_to_the_bit(script, tmp_path, monkeypatch):
    found, restored = module(script), {}
    with_reward(found, monkeypatch, some_reward)
    train(script, tmp_path, total_timesteps=160, learning_rate=0.01)
    saved = checkpoint_of(tmp_path / "run")
    start = found.Run.start

    def note(run, state, total_steps):
        for name, part in state.items():
            assert not same(copied(part.state_dict()), saved[name])
        start(run, state, total_steps)
        restored.update({name: copied(part.state_dict()) for name, part in state.items()})
        restored["counters"] = [run.global_step, saved["counters"][1], list(run.recent_returns)]
        assert run.seconds == pytest.approx(saved["counters"][1], abs=0.1)
        raise Ended

    monkeypatch.setattr(found.Run, "start", note)
    Path(tmp_path / "base.pt").unlink()
    monkeypatch.setattr(torch.optim, "AdamW", None)  # a base model must not be trained again
    with pytest.raises(Ended):
        found.train(found.Args(resume=tmp_path / "run", total_timesteps=320))
    names = {"policy", "reference", "optimizer"}
    names |= {"baseline"} if script == "reinforce_lm" else set()
    if script == "ppo_rlhf":
        names |= {"critic", "reward_model", "reward_optimizer"}
    assert set(restored) == names | {"counters"} == set(saved) - {"about", "args"}
    for name in restored:
        assert same(restored[name], saved[name])
    assert not same(saved["policy"], saved["reference"])
    assert saved["counters"][0] == 160
    assert len(saved["counters"][2]) == 100


@states
def test_given_the_same_noise_a_resumed_run_continues_to_the_bit(script, tmp_path, monkeypatch):
    """Step sizes, moments and b included, and the rounds of preferences."""
    found, noise = module(script), []
    with_reward(found, monkeypatch, some_reward)
    start, record = found.Run.start, found.Run.record_iteration
    flags = {"total_timesteps": 64, "learning_rate": 0.01}
    flags |= {"preference_rounds": 2} if script == "ppo_rlhf" else {}

    def note(run, *args):
        record(run, *args)
        noise.append(torch.get_rng_state())
        if run.args.run_dir.name == "stopped" and len(noise) == 6:
            run.save()
            raise Ended

    monkeypatch.setattr(found.Run, "record_iteration", note)
    train(script, tmp_path, run_dir=tmp_path / "whole", **flags)
    with pytest.raises(Ended):
        train(script, tmp_path, run_dir=tmp_path / "stopped", **flags)
    assert len(noise) == 6

    def same_noise(run, *args):
        start(run, *args)
        assert not torch.equal(torch.get_rng_state(), noise[1])
        torch.set_rng_state(noise[1])

    monkeypatch.setattr(found.Run, "start", same_noise)
    assert step_of(tmp_path / "stopped") == 32
    found.train(found.Args(resume=tmp_path / "stopped"))
    whole, resumed = (checkpoint_of(tmp_path / name) for name in ("whole", "stopped"))
    for key in set(whole) - {"about", "args", "counters"}:
        assert same(resumed[key], whole[key])
    for k in (0, 2):
        assert resumed["counters"][k] == whole["counters"][k]


def test_a_resumed_run_has_noise_of_its_own(tmp_path, monkeypatch):
    found, drawn = module("grpo"), []
    draw = found.Task.draw
    monkeypatch.setattr(
        found.Task, "draw", lambda *args: drawn.append(draw(*args)) or drawn[-1]
    )
    train("grpo", tmp_path, total_timesteps=32)
    found.train(found.Args(resume=tmp_path / "run", total_timesteps=64))
    assert len({tuple(texts) for texts in drawn}) == 4


def test_hyperparameters_cannot_change_on_the_way(tmp_path):
    """Every one of them, with the name of the flag."""
    train("grpo", tmp_path, seed=3, total_timesteps=32)
    found, path = module("grpo"), tmp_path / "run"
    own = found.Args(**checkpoint_of(path)["args"] | {"run_dir": path, "resume": path})
    free = {"total_timesteps", "device", "torch_threads", "log_interval", "checkpoint_interval"}
    free |= {"eval_episodes", "resume", "run_dir"}
    other = {"task": "x:y", "base_model": "other.pt", "model": "folder", "dtype": "bfloat16"}
    for name in fields("grpo") - free:
        value, new = getattr(own, name), other.get(name)
        if isinstance(value, bool):
            new = not value
        elif isinstance(value, int | float):
            new = value + 1 if isinstance(value, int) else value / 2 + 0.07
        with pytest.raises(found.BadInput, match=f"{name} must stay"):
            found.train(replace(own, **{name: new}))
    assert found.train(own)["global_step"] == 32


def test_a_finished_run_can_be_evaluated_again_and_trained_on(tmp_path):
    train("rloo", tmp_path, total_timesteps=32)
    found, path = module("rloo"), tmp_path / "run"
    before = checkpoint_of(path)
    assert found.train(found.Args(resume=path, eval_episodes=5))["eval_episodes"] == 5
    assert same(checkpoint_of(path)["policy"], before["policy"])
    assert found.train(found.Args(resume=path, total_timesteps=64))["global_step"] == 64


# ---- refused ----
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
        ("reinforce_lm", {"gradient_accumulation_steps": 3}, "must divide 16"),
        ("rloo", {"gradient_accumulation_steps": 5}, "accumulation_steps must divide 16"),
        ("rloo", {"num_generations": 5}, "num_generations must divide 16"),
        ("grpo", {"num_generations": 3}, "num_generations must divide 16"),
        ("grpo", {"num_generations": 32}, "num_generations must divide 16"),
        ("grpo", {"num_generations": 1}, "num_generations must be int, 2 to"),
        ("grpo", {"num_minibatches": 3}, "num_minibatches"),
        ("grpo", {"num_minibatches": 4, "gradient_accumulation_steps": 8}, "num_minibatches"),
        ("ppo_rlhf", {"num_minibatches": 3}, "num_minibatches and their parts must divide 16"),
        ("ppo_rlhf", {"gradient_accumulation_steps": 8}, "must divide 16"),
        ("ppo_rlhf", {"preference_rounds": 4}, "number of iterations, 3"),
        ("ppo_rlhf", {"preference_rounds": 2, "num_preferences": 1}, "at most num_preferences"),
        ("ppo_rlhf", {"total_timesteps": 15}, "at least one batch, 16"),
        ("ppo_rlhf", {"batch_size": 1, "num_minibatches": 1}, "at least 2, a pair"),
        ("dpo", {"batch_size": 15}, "2 * gradient_accumulation_steps must divide 15"),
        ("dpo", {"gradient_accumulation_steps": 3}, "must divide 16"),
        ("grpo", {"task": "subtraction"}, "task addition"),
        ("grpo", {"task": "module:function"}, "without --model"),
        ("grpo", {"lora_rank": 8}, "no LoRA"),
        ("grpo", {"max_completion_length": 3}, "4 to 26 tokens"),
        ("grpo", {"max_completion_length": 27}, "4 to 26 tokens"),
    ],
    ids=str,
)  # fmt: skip
def test_flags_that_do_not_fit_together(script, flags, said, tmp_path):
    assert said in refused(script, tmp_path, **flags)


OUT_OF_RANGE = [
    {"temperature": 0.0}, {"temperature": math.nan}, {"carelessness": 1.1},
    {"carelessness": -0.1}, {"kl_coef": -0.1}, {"clip_coef_low": 1.5},
    {"clip_coef_high": math.inf}, {"update_epochs": 0}, {"num_minibatches": 0},
    {"batch_size": 0}, {"batch_size": 1.5}, {"max_completion_length": 0}, {"lora_rank": -1},
    {"max_grad_norm": 0.0}, {"baseline_decay": 1.1}, {"total_timesteps": math.inf},
    {"gradient_accumulation_steps": 0}, {"eval_episodes": 0}, {"seed": -1},
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


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("reinforce_lm", {"baseline_decay": 0.0, "temperature": 1000.0, "batch_size": 1}),
        ("rloo", {"num_generations": 2, "batch_size": 2, "kl_coef": 0.0}),
        ("rloo", {"num_generations": 16, "learning_rate": 0.0}),
        ("grpo", {"num_generations": 2, "num_minibatches": 16, "max_grad_norm": math.inf}),
        ("grpo", {"clip_coef_low": 1.0, "clip_coef_high": 0.0, "update_epochs": 3}),
        ("grpo", {"max_completion_length": 26, "temperature": 1e-3}),
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
        ("dpo", {"online": True, "rationality": 1e15, "gradient_accumulation_steps": 8}),
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_work(script, flags, tmp_path):
    assert train(script, tmp_path, total_timesteps=16, **flags)["global_step"] == 16


def test_an_existing_run_directory(tmp_path):
    """Refused before the base model is made, and left as it was."""
    path = tmp_path / "there"
    path.mkdir()
    (path / "mine").write_text("mine")
    line = refused("rloo", tmp_path, run_dir=path, base_model=str(tmp_path / "none.pt"))
    assert f"{path} exists" in line
    assert [p.name for p in path.iterdir()] == ["mine"]
    assert not (tmp_path / "none.pt").exists()
    assert "cannot resume" in refused("rloo", tmp_path, resume=path, run_dir=path)


@pytest.mark.parametrize("damage", ["garbage", "empty", "half", "folder", "weights", "list"])
def test_a_damaged_base_model(damage, tmp_path):
    path = random_base(tmp_path / "base.pt")
    data = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "weights":
        torch.save([0.5, False, {"head.weight": torch.zeros(3)}], path)
    elif damage == "list":
        torch.save([], path)
    else:
        half = data[: len(data) // 2]
        path.write_bytes({"garbage": b"garbage", "empty": b"", "half": half}[damage])
    assert f"cannot use base_model {path}" in refused("rloo", tmp_path)


@pytest.mark.parametrize("flags", [{"carelessness": 0.25}, {"coherent": True}], ids=str)
def test_a_base_model_of_another_teacher(flags, tmp_path):
    line = refused("grpo", tmp_path, **flags)
    assert str(tmp_path / "base.pt") in line
    assert "[0.5, False]" in line


def test_a_base_model_that_cannot_be_written(tmp_path, monkeypatch):
    """Said before it is made."""
    shorten(module("grpo"), monkeypatch, 0)  # and not after the training
    path = tmp_path / "no" / "such" / "folder" / "base.pt"
    assert str(path) in refused("grpo", tmp_path, base_model=str(path))


@two
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_not_finite(script, value, tmp_path, monkeypatch):
    """It ends the run at once, with the last checkpoint intact and the step in the message."""
    found, calls = module(script), []

    def reward(prompt, answer):
        calls.append(1)
        return value if len(calls) == 40 else 0.5

    with_reward(found, monkeypatch, reward)
    with pytest.raises(FloatingPointError, match="step 32: a reward is not finite"):
        train(script, tmp_path, checkpoint_interval=0.0)
    assert step_of(tmp_path / "run") == 32
    assert not (tmp_path / "run" / "summary.json").exists()


@two
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


def test_an_evaluation_that_is_not_finite(tmp_path, monkeypatch):
    """A reward that fails on held-out prompts alone: no summary."""
    found = module("grpo")
    (held_out,) = found.Task(found.Args(), found.Characters()).held_out
    with_reward(found, monkeypatch, lambda prompt, _: math.nan if prompt in held_out else 0.5)
    with pytest.raises(FloatingPointError, match=r"evaluation.*finite"):
        train("grpo", tmp_path)
    assert step_of(tmp_path / "run") == 48
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("missing", ["transformers", "peft"])
def test_a_missing_package_is_named_with_its_command(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    line = refused("grpo", tmp_path, model=str(tmp_path))
    assert "pip install transformers peft" in line


# ---- from Python ----
@two
def test_the_default_run_directory(script, tmp_path, monkeypatch):
    """Two runs that begin within one second have one each; what train() returns is the
    summary, and the caller's flags stay as they were."""
    monkeypatch.chdir(tmp_path)
    found = module(script)
    args = found.Args(**flags_of(script, tmp_path, run_dir=None, seed=3, total_timesteps=16))
    before = asdict(args)
    summaries = [found.train(args) for _ in range(2)]
    assert asdict(args) == before
    folders = sorted((tmp_path / "runs").iterdir())
    for folder, summary in zip(folders, summaries, strict=True):
        assert folder.name.startswith(f"addition__{script}__3__")
        assert summary_of(folder) == summary


def test_other_seeds_have_other_bits(tmp_path, monkeypatch):
    with_reward(module("reinforce_lm"), monkeypatch, some_reward)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train("reinforce_lm", tmp_path, run_dir=tmp_path / name, seed=seed)
    a, b, c = (checkpoint_of(tmp_path / name) for name in "abc")
    assert same(a["policy"], b["policy"])
    assert not same(a["policy"], c["policy"])
    assert same(a["reference"], c["reference"])


def test_numbers_may_be_of_numpy_and_paths_strings(tmp_path):
    train(
        "rloo", tmp_path, run_dir=f"{tmp_path}/run", total_timesteps=np.float64(3.2e1),
        seed=np.int64(5), kl_coef=np.float32(0.5), learning_rate=0,
    )  # fmt: skip
    found = module("rloo")
    summary = found.train(found.Args(resume=f"{tmp_path}/run", total_timesteps=64.0))
    assert (summary["global_step"], summary["seed"]) == (64, 5)


@pytest.mark.parametrize("fate", ["success", "failure", "interrupt"])
def test_the_callers_settings_are_given_back(fate, tmp_path, monkeypatch):
    threads, dtype, inside = torch.get_num_threads(), torch.get_default_dtype(), []

    def reward(prompt, answer):
        inside.append((torch.get_num_threads(), torch.get_default_dtype()))
        if fate == "interrupt":
            raise KeyboardInterrupt
        return math.nan if fate == "failure" else 0.0

    with_reward(module("grpo"), monkeypatch, reward)
    base = random_base(tmp_path / "base.pt")
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float64)
    try:
        errors = {"failure": FloatingPointError, "interrupt": KeyboardInterrupt}
        if fate == "success":
            train("grpo", tmp_path, base_model=str(base))
            weights = checkpoint_of(tmp_path / "run")["policy"].values()
            assert {v.dtype for v in weights} == {torch.float32}
        else:
            with pytest.raises(errors[fate]):
                train("grpo", tmp_path, base_model=str(base))
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (3, torch.float64)
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
    assert inside[0] == (1, torch.float32)


def test_a_run_in_a_thread(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(train("grpo", tmp_path)))
    thread.start()
    thread.join()
    assert results[0]["global_step"] == 48


@two
def test_pasted_into_a_notebook_it_only_defines(script, tmp_path, monkeypatch, capsys):
    """A cell's namespace is __main__'s but has no __file__. Its train() works, and can
    resume."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    names = {"__name__": "__main__"}
    exec(compile((ROOT / f"{script}.py").read_text(), "<cell>", "exec"), names)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    flags = flags_of(script, tmp_path, run_dir=None, total_timesteps=32)
    summary = names["train"](names["Args"](**flags))
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert summary_of(run_dir) == summary
    again = names["train"](names["Args"](resume=run_dir, eval_episodes=3))
    assert again["eval_episodes"] == 3
    assert json.loads((run_dir / "args.json").read_text())["script_sha256"] is None


@every
def test_only_the_program_exits(script):
    above, below = (ROOT / f"{script}.py").read_text().split('if __name__ == "__main__"')
    assert "sys.exit" not in above
    assert "sys.exit" in below
