"""The scripts for language models as programs: what they print, leave behind and survive."""

import hashlib
import json
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import (
    PATIENCE,
    ROOT,
    SUMMARY,
    checkpoint_of,
    fields,
    interrupted,
    module,
    run,
    same,
    scalars,
    start,
    step_of,
    summary_of,
    wait_until_beyond,
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
    real_tokens,
    small,
    some_reward,
    task_of,
    train,
    with_kwargs,
    with_reward,
)
from lm_recorded import SYMBOLS

OWN = dict.fromkeys(("base_return_mean", "base_exact_success", "exact_success", "kl"), float)


# ---- as programs ----
def test_a_run_from_the_outside(tmp_path):
    """Everything that the run directory promises, from a run of the file alone in an empty
    folder; and the same seed has the same bits in another process."""
    folder = tmp_path / "alone"
    folder.mkdir()
    alone = Path(shutil.copy(ROOT / "grpo.py", folder))
    base = random_base(tmp_path / "base.pt")
    flags = small("grpo") | {"base_model": str(base), "total_timesteps": 70, "seed": 3}
    flags = with_kwargs(flags)
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
    assert {name: type(value) for name, value in summary.items()} == SUMMARY | OWN
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

    module("grpo").train(module("grpo").Args(run_dir=tmp_path / "here", **flags))
    a, b = checkpoint_of(run_dir), checkpoint_of(tmp_path / "here")
    assert same(a["policy"], b["policy"])
    assert summary_of(tmp_path / "here")["kl"] == summary["kl"]


def test_killed_interrupted_and_resumed_to_the_end(tmp_path):
    """While it runs nobody else can use its directory. Killed, it resumes from its checkpoint,
    which holds the base model too; interrupted, it says how to go on."""
    run_dir, found = tmp_path / "run of mine", module("rloo")
    flags = flags_of(
        "rloo", tmp_path, run_dir=run_dir, checkpoint_interval=0.1, log_interval=2000
    )
    process = start("rloo", tmp_path, **flags | {"total_timesteps": 10**7})
    wait_until_beyond(100, process, run_dir)
    with pytest.raises(found.BadInput, match=r"cannot use .*run of mine"):
        found.train(found.Args(resume=run_dir))
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert not (run_dir / "summary.json").exists()

    reached, before = step_of(run_dir), checkpoint_of(run_dir)
    Path(json.loads(flags["task_kwargs"])["base_model"]).unlink()
    process = start("rloo", tmp_path, resume=run_dir)
    wait_until_beyond(reached, process, run_dir)
    stdout, stderr = interrupted(process)
    assert process.returncode == 130
    assert f"resuming at step {reached} with new noise" in stdout
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


# ---- what is left behind ----
@every
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
    (held_out,) = task_of(script, eval_episodes=15).held_out
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
    assert completions[:, -2].eq(EOS).any(), "none ended early, no test of it"
    divergences = []
    for prompt, row in zip(prompts, completions.tolist(), strict=True):
        row = real_tokens(row)
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
    assert lines[11].startswith(
        "evaluation {eval_return_mean:.3f}, before training {base_return_mean:.3f}; sampled "
        "{exact_success:.3f}, before {base_exact_success:.3f}".format(**summary)
    )
    assert lines[11].endswith("; answers begin with their last digit")


@every
def test_returns_and_lengths_are_logged_eight_at_a_time(script, tmp_path, monkeypatch):
    """The reward without any KL, and how many tokens were sampled, ends included; in a batch of
    12 an eight and a four."""
    found, batches = module(script), []
    given = found.Task.rewards

    def note(task, texts, completions):
        rewards = given(task, texts, completions)
        if len(texts) == 12:  # not the evaluation's eight, nor the preferences' eight pairs
            lengths = [len(real_tokens(row)) for row in completions.tolist()]
            batches.append((rewards.tolist(), lengths))
        return rewards

    monkeypatch.setattr(found.Task, "rewards", note)
    with_reward(found, monkeypatch, some_reward)
    flags = {"batch_size": 12, "total_timesteps": 132, "learning_rate": 0.01}
    flags |= {"num_preferences": 4} if script == "ppo_rlhf" else {}
    summary = train(script, tmp_path, **flags)
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


@every
def test_losses_are_logged_at_the_interval(script, tmp_path):
    """So many completions apart: three batches of 16."""
    train(script, tmp_path, log_interval=48, total_timesteps=160)
    events = scalars(tmp_path / "run")
    for tag in ("losses/policy_loss", "losses/grad_norm", "eval/exact_success", "charts/SPS"):
        assert [e.step for e in events[tag]] == [16, 64, 112, 160]


@every
def test_plain_lines_without_a_terminal(script, tmp_path, capsys):
    """One for each checkpoint."""
    train(script, tmp_path, checkpoint_interval=0.0, total_timesteps=48, seed=4)
    *lines, last = capsys.readouterr().out.splitlines()
    assert last.endswith(f"; seed 4, {tmp_path / 'run'}")
    lines = [line for line in lines if line.startswith("step ")]
    assert [line.split(",")[0] for line in lines] == ["step 16", "step 32", "step 48"]
    for line in lines:
        assert re.search(r", return 0\.\d+, held-out 0\.\d+, \d+ steps/s, seed 4, ", line)
        assert line.endswith(f", {tmp_path / 'run'}")


@every
@pytest.mark.parametrize(("save_takes", "gap"), [(0.5, 10), (30, 270)])
def test_checkpoints_are_at_the_interval(script, save_takes, gap, tmp_path, monkeypatch):
    """On a clock of its own: between two saves are 10 seconds, or nine times what a save takes,
    from the end of one to the beginning of the next, and what the iteration then takes."""
    found, clock, saves = module(script), [0.0], []
    save, record = torch.save, found.Run.record_step

    def slow(*args):
        save(*args)
        saves.append((clock[0], clock[0] + save_takes))
        clock[0] += save_takes

    def step(run, *args):
        clock[0] += 0.3 * gap
        record(run, *args)

    random_base(tmp_path / "base.pt")
    monkeypatch.setattr(found, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(torch, "save", slow)
    monkeypatch.setattr(found.Run, "record_step", step)
    flags = {"num_generations": 2, "batch_size": 2, "num_minibatches": 1, "eval_episodes": 2}
    flags = {name: value for name, value in flags.items() if name in fields(script)}
    train(script, tmp_path, total_timesteps=40, **flags | {"log_interval": 10_000})
    gaps = [begin - end for (_, end), (begin, _) in pairwise(saves)]
    assert len(gaps) > 4
    assert all(gap < found_gap <= 1.3 * gap for found_gap in gaps[:-1])
    inside = sum(end - begin for begin, end in saves[1:-1])
    assert inside <= 0.1 * (saves[-1][0] - saves[0][1])


@every
def test_events_are_flushed_before_the_checkpoint_that_follows(script, tmp_path, monkeypatch):
    """They may wait in a queue: a kill between the two must lose no event of a step that the
    checkpoint counts."""
    found, save, waiting, saved = module(script), torch.save, [], []

    class Queued(found.SummaryWriter):
        def add_scalar(self, tag, value, step):
            waiting.append(step)
            super().add_scalar(tag, value, step)

        def flush(self):
            super().flush()
            waiting.clear()

    def look(checkpoint, path):
        assert waiting == []
        saved.append(checkpoint["counters"][0])
        save(checkpoint, path)

    random_base(tmp_path / "base.pt")
    monkeypatch.setattr(found, "SummaryWriter", Queued)
    monkeypatch.setattr(torch, "save", look)
    train(script, tmp_path, checkpoint_interval=0.0, total_timesteps=48)
    assert saved == [0, 16, 32, 48, 48]


@every
def test_the_bar_of_a_resumed_run(script, tmp_path, monkeypatch):
    """It begins at what was done, and ends at all of it."""
    found, bars = module(script), []
    train(script, tmp_path, total_timesteps=32)

    class Bar(SimpleNamespace):
        def __enter__(bar):
            return bar

        def __exit__(bar, *raised):
            pass

        def update(bar, steps):
            bar.n += steps

        def close(bar):
            bars.append((bar.total, bar.initial, bar.n))

        def set_postfix_str(bar, text, refresh):
            pass

    def make(total, initial, unit, disable):
        return Bar(total=total, initial=initial, n=initial, disable=True)

    monkeypatch.setattr(found, "tqdm", make)
    found.train(found.Args(resume=tmp_path / "run", total_timesteps=80))
    assert bars == [(80, 32, 80)]


@every
def test_the_evaluation_is_in_batches_as_training_is(script, tmp_path, monkeypatch):
    """No pass over completions is of more rows than in training, and no prompt is left out."""
    found, rows, sampled = module(script), [], []
    log_policy, sample = found.log_policy, found.sample

    def note(policy, prompts, *rest):
        rows.append(len(prompts))
        return log_policy(policy, prompts, *rest)

    def note_sample(policy, prompts, *rest):
        sampled.append(len(prompts))
        return sample(policy, prompts, *rest)

    train(script, tmp_path, total_timesteps=16)
    monkeypatch.setattr(found, "log_policy", note)
    monkeypatch.setattr(found, "sample", note_sample)
    summary = found.train(found.Args(resume=tmp_path / "run", eval_episodes=37))
    assert max(rows) == max(sampled) == 16
    assert sum(sampled) == 3 * 37
    assert summary["eval_episodes"] == 37
