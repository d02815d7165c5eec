"""The scripts as programs: what they print, leave behind and survive."""

import hashlib
import json
import os
import resource
import shlex
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
import tyro
from helpers import (
    EVERY,
    PATIENCE,
    ROOT,
    SUMMARY,
    benchmark_env,
    checkpoint_of,
    command,
    env_id,
    environment,
    fields,
    interrupted,
    module,
    one,
    pair,
    run,
    scalars,
    small,
    start,
    step_of,
    summary_of,
    train,
    two,
    wait_until_beyond,
)


def small_flags(script: str) -> dict:
    return small(script) | ({"num_steps": 32} if "num_steps" in fields(script) else {})


@pytest.mark.parametrize("script", ["reinforce", "trpo", "ppo_continuous", "a3c", "sac"])
def test_a_run_from_the_outside(script, tmp_path):
    """Everything that the run directory promises, from a run of the file alone in an empty
    folder, with no run directory named."""
    env, folder = benchmark_env(script), tmp_path / "alone"
    folder.mkdir()
    alone = Path(shutil.copy(ROOT / f"{script}.py", folder))
    flags = small_flags(script) | {"env_id": env, "total_timesteps": 1000, "seed": 3}
    if script == "a3c":
        flags |= {"num_workers": 2, "log_interval": 1}
    result = run(alone, cwd=folder, **flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "\nevaluation " in result.stdout
    (run_dir,) = (folder / "runs").iterdir()
    assert run_dir.name.startswith(f"{env}__{script}__3__")
    assert sorted(p.name for p in folder.iterdir()) == sorted([alone.name, "runs"])

    args = json.loads((run_dir / "args.json").read_text())
    assert fields(script) <= set(args)
    assert args["seed"] == 3
    assert args["versions"]["torch"] == torch.__version__
    assert {"python", "torch", "gymnasium", "numpy"} == set(args["versions"])
    assert args["script_sha256"] == hashlib.sha256(alone.read_bytes()).hexdigest()

    summary = summary_of(run_dir)
    assert {name: type(value) for name, value in summary.items()} == SUMMARY
    assert 936 <= summary["global_step"] <= 1000
    assert summary["eval_episodes"] == 2

    events = scalars(run_dir)
    returns, lengths = events["charts/episodic_return"], events["charts/episodic_length"]
    assert len(returns) == len(lengths) == summary["train_episodes"]
    recent = np.mean([e.value for e in returns[-100:]])
    assert recent == pytest.approx(summary["train_return_mean"], rel=1e-5)
    if env == "CartPole-v1":  # one point a step
        assert [e.value for e in returns] == [e.value for e in lengths]
    else:
        assert {e.value for e in lengths} == {200.0}
        assert {e.step for e in lengths} == {400, 800}
    evaluated = events["eval/episodic_return"][0].value
    assert evaluated == pytest.approx(summary["eval_return_mean"], rel=1e-5)
    assert "charts/SPS" in events
    assert sum(tag.startswith("losses/") for tag in events) >= 3
    checkpoint = checkpoint_of(run_dir)
    assert checkpoint["counters"][0] == summary["global_step"]
    if script == "a3c":  # what the workers share is what the checkpoint has
        assert summary["global_step"] == 992
        staleness = [event.value for event in events["losses/staleness"]]
        assert len(staleness) == 31
        assert 0 < max(staleness) < 31
        rates = [event.value for event in events["losses/learning_rate"]]
        assert sorted(rates) == pytest.approx([7e-4 * k / 31 for k in range(1, 32)])
        assert checkpoint["critic"]["value.4.bias"].item() != 0
        mean = checkpoint["optimizer"]["state"][0]["square_avg"]
        assert mean.count_nonzero() > len(mean) / 2


@pytest.mark.parametrize(
    "script",
    ["reinforce_baseline", "a2c", "a3c", "trpo", "ppo_continuous", "trpo_continuous", "sac"],
)
def test_same_seed_same_bits_other_seed_other_bits(script, tmp_path):
    """One of the two runs in a process of its own; A3C with its one worker in another."""
    flags = {"env_id": benchmark_env(script), "total_timesteps": 500} | small_flags(script)
    result = run(script, cwd=tmp_path, run_dir=tmp_path / "a", **flags)
    assert result.returncode == 0, result.stderr
    a = checkpoint_of(tmp_path / "a")
    _, b = train(script, tmp_path / "b", **flags)
    _, c = train(script, tmp_path / "c", seed=2, **flags)
    assert a["counters"][3] == b["counters"][3] != c["counters"][3]
    for key, value in a["actor"].items():
        assert torch.equal(value, b["actor"][key])
    assert any(not torch.equal(value, c["actor"][key]) for key, value in a["actor"].items())
    for key in ("eval_return_mean", "train_return_mean"):
        assert summary_of(tmp_path / "a")[key] == summary_of(tmp_path / "b")[key]


@two
def test_killed_anywhere_and_resumed_to_the_end(script, tmp_path):
    """While it runs, no other process can use its directory; when it has died, one can."""
    run_dir, env = tmp_path / "run", benchmark_env(script)
    flags = small_flags(script) | {
        "env_id": env,
        "run_dir": run_dir,
        "checkpoint_interval": 0.1,
    }
    process = start(script, tmp_path, total_timesteps=1_000_000, **flags)
    wait_until_beyond(1000, process, run_dir)
    step = step_of(run_dir)
    other = run(script, cwd=tmp_path, resume=run_dir)
    assert other.returncode == 2
    assert f"cannot use {run_dir}" in other.stderr
    assert len(other.stderr.strip().splitlines()) == 1
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert not (run_dir / "summary.json").exists()

    before = checkpoint_of(run_dir)
    reached = before["counters"][0]
    assert reached >= step
    total = reached + 1000
    result = run(script, cwd=tmp_path, resume=run_dir, total_timesteps=total)
    assert result.returncode == 0, result.stderr
    assert f"resuming at step {reached} with new noise" in result.stdout
    summary = summary_of(run_dir)
    assert total - 64 < summary["global_step"] <= total
    assert summary["wall_seconds"] > before["counters"][2]
    after = checkpoint_of(run_dir)
    assert any(
        not torch.equal(after["actor"][k], value) for k, value in before["actor"].items()
    )
    steps = [e.step for e in scalars(run_dir)["charts/episodic_return"]]
    assert steps == sorted(steps)
    assert len(steps) == summary["train_episodes"], "an episode is there twice, or lost"


@one
def test_an_interrupt_keeps_the_checkpoint_and_prints_a_hint_that_can_be_pasted(
    script, tmp_path
):
    """A script and a run directory whose names hold spaces and quotes. The hint, pasted,
    resumes to the end."""
    folder = tmp_path / "it's my folder"
    folder.mkdir()
    alone = Path(shutil.copy(ROOT / f"{script}.py", folder / f"{script} copy.py"))
    run_dir = folder / "run of mine"
    flags = small_flags(script) | {"env_id": benchmark_env(script), "run_dir": run_dir}
    process = start(alone, folder, total_timesteps=1_000_000, checkpoint_interval=0, **flags)
    wait_until_beyond(-1, process, run_dir)
    time.sleep(0.5)
    _, stderr = interrupted(process)
    assert process.returncode == 130
    error, hint = stderr.strip().splitlines()
    assert error == "stopped"
    reached = checkpoint_of(run_dir)["counters"][0]
    assert reached > 0
    assert not (run_dir / "summary.json").exists()
    prefix = "resume with: "
    assert hint.startswith(prefix)
    words = shlex.split(hint.removeprefix(prefix))
    assert words == ["python", str(alone), "--resume", str(run_dir)]
    pasted = f"{hint.removeprefix(prefix)} --total-timesteps {reached + 128}"
    path = environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    result = subprocess.run(
        pasted,
        shell=True,
        cwd=folder,
        env=path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr
    assert summary_of(run_dir)["global_step"] > reached


@pytest.mark.parametrize(
    ("script", "columns"),
    [*((script, "80") for script in EVERY), ("ppo", "60"), ("ppo_continuous", "120")],
)
def test_help_reads_like_documentation(script, columns, capsys, monkeypatch):
    """Every flag with its comment, and no word broken at a line's end."""
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as end:
        tyro.cli(module(script).Args, args=["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    source = (ROOT / f"{script}.py").read_text()
    for name in fields(script):
        assert f"--{name.replace('_', '-')}" in text
        lines = source.splitlines()
        line = next(line for line in lines if line.startswith(f"    {name}: "))
        assert " ".join(line.split("  # ")[1].split()) in text, f"the help of {name} is missing"


def test_help_as_a_program(tmp_path):
    result = run("ppo", "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "--total-timesteps" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_progress_bar_on_a_terminal(tmp_path):
    """With a terminal for standard error there is a bar with the recent return and the
    speed."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    flags = small_flags("ppo") | {"total_timesteps": 4000, "run_dir": tmp_path / "run"}
    words = command("ppo", **flags)
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=slave)
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


def test_plain_lines_without_a_terminal(tmp_path):
    """One for each checkpoint: the step, the recent return, the speed, and which run it is."""
    flags = small_flags("ppo") | {"total_timesteps": 256, "run_dir": tmp_path / "run"}
    result = run("ppo", cwd=tmp_path, checkpoint_interval=0, log_interval=1, **flags)
    lines = [line for line in result.stdout.splitlines() if line.startswith("step ")]
    assert [line.split(",")[0] for line in lines] == [f"step {n}" for n in (64, 128, 192, 256)]
    assert all(" steps/s, seed " in line and "return " in line for line in lines)


@two
def test_memory_does_not_grow_with_the_length_of_a_run(script, tmp_path):
    """The peak of a run five times as long is the same, up to a few pages."""
    peaks = []
    room = ROOT / "tests" / "algorithms"
    for name, steps in (("short", 2_000), ("long", 10_000)):
        code = (
            f"import pathlib, resource, sys; sys.path[:0] = [{str(ROOT)!r}, {str(room)!r}];"
            f"from helpers import train;"
            f"train({script!r}, pathlib.Path({str(tmp_path / name)!r}),"
            f"env_id={env_id(script, 'DictObs-v0')!r}, total_timesteps={steps});"
            f"print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        words = [sys.executable, "-c", code]
        result = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 4 * 1024, f"{peaks} KiB"


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@one
def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(script, tmp_path):
    """Files cannot grow beyond 20 kB, which a checkpoint needs: the write fails like one on a
    full disk."""
    run_dir = tmp_path / "run"
    train(script, run_dir, env_id=benchmark_env(script), total_timesteps=64)
    (run_dir / "summary.json").unlink()
    before = (run_dir / "checkpoint.pt").read_bytes()
    assert len(before) > 20_000
    words = command(script, resume=run_dir, total_timesteps=128)
    result = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit_file_size
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "fail" in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("resume with: ")
    assert (run_dir / "checkpoint.pt").read_bytes() == before
    assert not (run_dir / "summary.json").exists()


@pair
@pytest.mark.parametrize("what", ["checkpoint", "summary"])
def test_a_write_that_fails_half_way_leaves_the_old_file(script, what, tmp_path, monkeypatch):
    """Cut in the middle of the bytes: what stands under the name is the old file, whole."""
    run_dir, found, write, save = tmp_path / "run", module(script), Path.write_text, torch.save
    train(script, run_dir, env_id=benchmark_env(script), total_timesteps=64)
    before = (run_dir / "checkpoint.pt").read_bytes()

    def half_a_text(path, text):
        if "eval_return_mean" not in text:
            return write(path, text)
        write(path, text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    def half_a_checkpoint(checkpoint, path):
        save(checkpoint, path)
        os.truncate(path, path.stat().st_size // 2)
        raise OSError(28, "No space left on device")

    if what == "summary":
        monkeypatch.setattr(Path, "write_text", half_a_text)
    else:
        monkeypatch.setattr(torch, "save", half_a_checkpoint)
    with pytest.raises(OSError, match="No space"):
        found.train(found.Args(resume=run_dir, total_timesteps=128))
    assert not (run_dir / "summary.json").exists()
    if what == "checkpoint":
        assert (run_dir / "checkpoint.pt").read_bytes() == before
    assert checkpoint_of(run_dir)["counters"][0] in (64, 128)
