"""The scripts as programs, each copied alone into an empty folder: what they print, leave behind and survive."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from envs import Poison
from helpers import ROOT, command, env_id, fields, module, run, summary_of, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SUMMARY = {
    "env_id": str, "script": str, "seed": int, "global_step": int, "wall_seconds": float, "sps": float,
    "train_return_mean": float, "train_episodes": int, "eval_return_mean": float, "eval_return_std": float,
    "eval_episodes": int,
}  # fmt: skip


@pytest.fixture
def alone(script, tmp_path) -> Path:
    """The script in a folder that holds nothing else."""
    folder = tmp_path / "alone"
    folder.mkdir()
    return Path(shutil.copy(ROOT / f"{script}.py", folder))


def scalars(run_dir: Path) -> dict[str, list]:
    """All scalar events of a run by tag, in the order of their steps."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def small_flags(script: str) -> dict:
    flags = {"num_envs": 2, "num_steps": 32, "num_minibatches": 2, "eval_episodes": 3}
    return {name: value for name, value in flags.items() if name in fields(script)}


def benchmark_env(script: str) -> str:
    return "Pendulum-v1" if script == "ppo_continuous" else "CartPole-v1"


def test_a_run_from_the_outside(script, alone):
    """Everything that the run directory promises, from a run in an empty folder with no run directory named."""
    env = benchmark_env(script)
    result = run(alone, cwd=alone.parent, env_id=env, total_timesteps=1000, seed=3, **small_flags(script))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "evaluation: return" in result.stdout
    (run_dir,) = (alone.parent / "runs").iterdir()
    assert run_dir.name.startswith(f"{env}__{script}__3__")
    assert sorted(p.name for p in alone.parent.iterdir()) == sorted([alone.name, "runs"])

    args = json.loads((run_dir / "args.json").read_text())
    assert fields(script) <= set(args)
    assert args["seed"] == 3
    assert args["versions"]["torch"] == torch.__version__
    assert {"python", "torch", "gymnasium", "numpy"} == set(args["versions"])
    assert args["script_sha256"] == hashlib.sha256(alone.read_bytes()).hexdigest()

    summary = summary_of(run_dir)
    assert {name: type(value) for name, value in summary.items()} == SUMMARY
    assert 936 <= summary["global_step"] <= 1000
    assert summary["eval_episodes"] == 3

    events = scalars(run_dir)
    returns, lengths = events["charts/episodic_return"], events["charts/episodic_length"]
    assert len(returns) == len(lengths) == summary["train_episodes"]
    assert np.mean([e.value for e in returns[-100:]]) == pytest.approx(summary["train_return_mean"], rel=1e-5)
    if env == "CartPole-v1":  # one point a step
        assert [e.value for e in returns] == [e.value for e in lengths]
    else:
        assert {e.value for e in lengths} == {200.0}
        assert {e.step for e in lengths} == {400, 800}
    assert events["eval/episodic_return"][0].value == pytest.approx(summary["eval_return_mean"], rel=1e-5)
    assert "charts/SPS" in events
    assert sum(tag.startswith("losses/") for tag in events) >= 3

    checkpoint = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    assert checkpoint["global_step"] == summary["global_step"]


@pytest.mark.parametrize("name", ["DictObs-v0", "StartAtFive-v0", "Taxi-v4", "Blackjack-v1"])
def test_observations_are_flattened_and_actions_shifted(script, name, tmp_path):
    """Dict, Discrete and Tuple observations; actions that do not count from 0 (the environment checks them)."""
    if script == "ppo_continuous":
        if name != "DictObs-v0":
            pytest.skip("has no version with Box actions")
        name = "DictObsBox-v0"
    summary, checkpoint = train(script, tmp_path / "run", env_id=name, total_timesteps=600)
    assert summary["train_episodes"] > 0
    width = {"DictObs-v0": 7, "DictObsBox-v0": 7, "StartAtFive-v0": 7, "Taxi-v4": 500, "Blackjack-v1": 45}[name]
    first = next(value for key, value in checkpoint["actor"].items() if key.endswith("0.weight"))
    assert first.shape == (64, width)


def test_same_seed_same_bits_other_seed_other_bits(script, tmp_path):
    """One of the two runs in a process of its own."""
    env = benchmark_env(script)
    flags = {"env_id": env, "total_timesteps": 500}
    result = run(script, cwd=tmp_path, run_dir=tmp_path / "a", **flags, **small_flags(script))
    assert result.returncode == 0, result.stderr
    a = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)
    _, b = train(script, tmp_path / "b", **flags, **small_flags(script))
    _, c = train(script, tmp_path / "c", seed=2, **flags, **small_flags(script))
    assert a["recent_returns"] == b["recent_returns"] != c["recent_returns"]
    for key, value in a["actor"].items():
        assert torch.equal(value, b["actor"][key])
    assert any(not torch.equal(value, c["actor"][key]) for key, value in a["actor"].items())
    for key in ("eval_return_mean", "train_return_mean"):
        assert summary_of(tmp_path / "a")[key] == summary_of(tmp_path / "b")[key]


def start(script, cwd: Path, **flags) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(script, **flags), cwd=cwd, env=environment, **pipes)


def wait_for_progress(process: subprocess.Popen, run_dir: Path) -> int:
    """Wait until a checkpoint beyond the first has been written; return its step."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        try:
            step = torch.load(run_dir / "checkpoint.pt", weights_only=True)["global_step"]
        except FileNotFoundError:
            step = 0
        if step > 2000:
            return step
        time.sleep(0.05)
    raise AssertionError("no progress")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_interrupted_and_resumed_to_the_end(script, sent, tmp_path):
    run_dir, env = tmp_path / "run", benchmark_env(script)
    flags = small_flags(script) | {"env_id": env, "run_dir": run_dir, "checkpoint_interval": 0.1}
    process = start(script, tmp_path, total_timesteps=1_000_000, **flags)
    step = wait_for_progress(process, run_dir)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=30)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert stderr.strip() == f"stopped; go on with: python {script}.py --resume {run_dir}"
    else:
        assert process.returncode == -signal.SIGKILL
    assert not (run_dir / "summary.json").exists()

    before = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    assert before["global_step"] >= step
    total = before["global_step"] + 2000
    result = run(script, cwd=tmp_path, resume=run_dir, total_timesteps=total)
    assert result.returncode == 0, result.stderr
    assert f"resumed at step {before['global_step']:,} with fresh episodes" in result.stdout
    summary = summary_of(run_dir)
    assert total - 64 < summary["global_step"] <= total
    assert summary["wall_seconds"] > before["seconds"]
    after = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    assert after["iteration"] > before["iteration"]
    assert any(not torch.equal(after["actor"][name], value) for name, value in before["actor"].items())

    returns = scalars(run_dir)["charts/episodic_return"]
    steps = [e.step for e in returns]
    assert steps == sorted(steps)
    assert len(returns) == summary["train_episodes"], "the event files hold an episode twice, or lost one"


def test_a_finished_run_can_be_evaluated_again_and_trained_on(tmp_path):
    run_dir = tmp_path / "run"
    flags = small_flags("ppo") | {"env_id": "CartPole-v1", "run_dir": run_dir, "total_timesteps": 640}
    assert run("ppo", cwd=tmp_path, **flags).returncode == 0
    first = summary_of(run_dir)
    result = run("ppo", cwd=tmp_path, resume=run_dir, eval_episodes=5)
    assert result.returncode == 0, result.stderr
    assert summary_of(run_dir)["eval_episodes"] == 5
    assert summary_of(run_dir)["global_step"] == first["global_step"] == 640
    assert run("ppo", cwd=tmp_path, resume=run_dir, total_timesteps=1280).returncode == 0
    assert summary_of(run_dir)["global_step"] == 1280


def test_help_reads_like_documentation(script, tmp_path):
    result = run(script, "--help", cwd=tmp_path)
    assert result.returncode == 0
    text = " ".join(result.stdout.replace("│", " ").split())
    assert " ".join(module(script).__doc__.split("\n\n")[0].split()) in text
    for name in fields(script):
        assert f"--{name.replace('_', '-')}" in text
    source = (ROOT / f"{script}.py").read_text()
    for name in fields(script):
        line = next(line for line in source.splitlines() if line.startswith(f"    {name}: "))
        assert " ".join(line.split("  # ")[1].split()) in text, f"the help of {name} is missing"


def test_video_of_the_evaluation(script, tmp_path):
    """Not of the training environments; three episodes at most."""
    summary, _ = train(
        script, tmp_path / "run", env_id=benchmark_env(script), total_timesteps=64, eval_episodes=1, capture_video=True
    )
    assert summary["eval_episodes"] == 1
    videos = list((tmp_path / "run" / "videos").glob("*.mp4"))
    assert len(videos) == 1
    assert videos[0].stat().st_size > 1000


def test_progress_bar_on_a_terminal(tmp_path):
    """With a terminal for standard error there is a bar with the recent return and the speed."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    flags = small_flags("ppo") | {"total_timesteps": 4000, "run_dir": tmp_path / "run"}
    process = subprocess.Popen(command("ppo", **flags), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the other side has gone
            break
        shown += chunk
    os.close(master)
    assert process.wait() == 0
    assert b"return " in shown
    assert b"steps/s" in shown
    assert b"4000/" in shown or b"3968/" in shown


def test_memory_does_not_grow_with_the_length_of_a_run(script, tmp_path):
    """The peak of a run five times as long is the same, up to a few pages."""
    peaks = []
    for name, steps in (("short", 2_000), ("long", 10_000)):
        code = (
            "import pathlib, resource, sys; sys.path[:0] = [{root!r}, {tests!r}]; from helpers import train;"
            "train({script!r}, pathlib.Path({run_dir!r}), env_id={env!r}, total_timesteps={steps});"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        ).format(
            root=str(ROOT), tests=str(ROOT / "tests"), script=script, run_dir=str(tmp_path / name),
            env=env_id(script, "DictObs-v0"), steps=steps,
        )  # fmt: skip
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 4 * 1024, f"{peaks} KiB"


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(script, tmp_path):
    """Files cannot grow beyond 20 kB, which a checkpoint needs: the write fails like one on a full disk."""
    run_dir = tmp_path / "run"
    train(script, run_dir, env_id=benchmark_env(script), total_timesteps=64)
    (run_dir / "summary.json").unlink()
    before = (run_dir / "checkpoint.pt").read_bytes()
    assert len(before) > 20_000
    words = command(script, resume=run_dir, total_timesteps=128)
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit_file_size)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "File too large" in line
    assert (run_dir / "checkpoint.pt").read_bytes() == before
    assert not (run_dir / "summary.json").exists()


def test_a_write_that_fails_half_way_leaves_the_old_file(script, tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    path.write_bytes(b"old")

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        module(script).write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_non_finite_loss_stops_the_run(script, tmp_path, monkeypatch):
    monkeypatch.setattr(Poison, "steps", 0)
    run_dir, good = tmp_path / "run", []
    save = module(script).Run.save
    monkeypatch.setattr(module(script).Run, "save", lambda run: (save(run), good.append(run.iteration)))
    with pytest.raises(SystemExit) as stop:
        train(script, run_dir, env_id=env_id(script, "Poison-v0"), total_timesteps=4000, checkpoint_interval=0.0)
    assert str(stop.value.code).startswith("error: ")
    assert f"in iteration {good[-1] + 1};" in stop.value.code
    checkpoint = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    assert checkpoint["iteration"] == good[-1] > 0
    for name in ("actor", "critic"):
        assert all(torch.isfinite(value).all() for value in checkpoint.get(name, {}).values())
    assert not (run_dir / "summary.json").exists()


def test_a_budget_spent_before_any_episode_ends_is_said(tmp_path):
    result = run("reinforce", cwd=tmp_path, env_id="Acrobot-v1", total_timesteps=400)
    assert result.returncode == 0, result.stderr
    assert "no episode has ended" in result.stdout
