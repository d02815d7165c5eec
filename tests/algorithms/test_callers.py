"""Callers with settings of their own, for both families: gradients switched off, two threads of
one process, a locale that knows only ASCII. What is tried elsewhere for control alone is tried
here for language models."""

import errno
import json
import os
import subprocess
import threading

import pytest
import torch
from helpers import (
    PATIENCE,
    benchmark_env,
    checkpoint_of,
    command,
    environment,
    module,
    run,
    same,
    scalars,
    summary_of,
)
from helpers import small as small_control
from lm_helpers import every, flags_of, some_reward, train, with_reward


@every
def test_gradients_that_the_caller_has_switched_off(
    script, tmp_path, monkeypatch, settings_of_torch
):
    """Or another default precision: the same bits, and the caller has its settings back."""
    with_reward(module(script), monkeypatch, some_reward)
    torch.set_grad_enabled(False)
    try:
        train(script, tmp_path, run_dir=tmp_path / "one")
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)
    train(script, tmp_path, run_dir=tmp_path / "two")
    one, two_ = (checkpoint_of(tmp_path / name) for name in ("one", "two"))
    assert same(one["policy"], two_["policy"])
    assert not same(one["policy"], one["reference"]), "nothing was learned"


@pytest.mark.parametrize("script", ["reinforce_lm", "grpo"])
def test_two_threads_of_one_process(script, tmp_path, monkeypatch):
    """One seed, default directories: each has its own, with a summary and all its events."""
    monkeypatch.chdir(tmp_path)
    found, summaries = module(script), []
    args = found.Args(**flags_of(script, tmp_path, run_dir=None, total_timesteps=160))
    target = lambda: summaries.append(found.train(args))  # noqa: E731
    threads = [threading.Thread(target=target) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folders = list((tmp_path / "runs").iterdir())
    assert len(summaries) == len(folders) == 2
    for folder in folders:
        assert summary_of(folder) in summaries
        steps = [event.step for event in scalars(folder)["charts/episodic_return"]]
        assert steps == list(range(8, 161, 8))


def flags_for(script: str, folder) -> dict:
    if script == "ppo":
        return small_control(script) | {"env_id": benchmark_env(script), "total_timesteps": 64}
    return flags_of(script, folder, total_timesteps=16)


@pytest.mark.parametrize("script", ["ppo", "grpo"])
def test_a_locale_of_ascii_and_a_directory_that_is_not(script, tmp_path, monkeypatch):
    """TensorBoard cannot write there: one line says so, and nothing is left behind."""
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    flags = flags_for(script, tmp_path) | {"run_dir": tmp_path / "läufe"}
    result = run(script, cwd=tmp_path, **flags)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: cannot use ")
    assert not (tmp_path / "läufe").exists()


@pytest.mark.parametrize("script", ["ppo", "grpo"])
def test_a_locale_of_utf_8_and_a_directory_of_any_script(script, tmp_path, monkeypatch):
    """Python takes UTF-8 by itself where the locale is C or POSIX and nothing forbids it."""
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.delenv("PYTHONUTF8", raising=False)
    folder = tmp_path / "läufe 日本"
    result = run(script, cwd=tmp_path, **flags_for(script, tmp_path) | {"run_dir": folder})
    assert result.returncode == 0, result.stderr
    assert str(folder) in result.stdout
    flags = json.loads((folder / "args.json").read_text())
    assert flags["run_dir"] == str(folder)
    again = run(script, cwd=tmp_path, resume=folder, eval_episodes=3)
    assert again.returncode == 0, again.stderr
    assert summary_of(folder)["eval_episodes"] == 3


TASK = """
from grpo import GPT

def task():
    prompts = [a + b for a in "äöü日本" for b in "äöü日本"]
    return GPT("äöü日本."), prompts, lambda prompts, completions, ended: [1.0] * len(prompts)
"""


def test_samples_of_any_script_in_a_locale_of_ascii(tmp_path):
    """Files are written in UTF-8, wherever."""
    (tmp_path / "words.py").write_text(TASK, encoding="utf-8")
    env = environment(LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="utf-8")
    env["PYTHONPATH"] = str(tmp_path)
    flags = flags_of("grpo", tmp_path, task="words:task", task_kwargs="{}", total_timesteps=16)
    words = command("grpo", **flags)
    result = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    assert "日" in (tmp_path / "run" / "samples.txt").read_text(encoding="utf-8")


def refuse_locks(monkeypatch, number: int) -> None:
    """Let the file system answer every request for a lock with an error."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("script", ["ppo", "grpo"])
def test_a_file_system_without_locks(script, number, tmp_path, monkeypatch, capsys):
    """The run warns in one line and goes on, and so does its resumption. For ENOSYS filelock
    has a lock of another kind."""
    refuse_locks(monkeypatch, number)
    found, run_dir = module(script), tmp_path / "run"
    flags = flags_for(script, tmp_path) | {"run_dir": run_dir}
    steps = flags["total_timesteps"]
    for resume, total in ((False, steps), (True, 2 * steps)):
        more = {"resume": run_dir} if resume else flags
        found.train(found.Args(**more | {"total_timesteps": total}))
        assert summary_of(run_dir)["global_step"] == total
        said = [line for line in capsys.readouterr().err.splitlines() if "lock" in line]
        expected = [] if number == errno.ENOSYS else [os.strerror(number)]
        assert [line.rpartition("] ")[2] for line in said] == expected
        assert all(str(run_dir) in line for line in said)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
@pytest.mark.parametrize("script", ["ppo", "grpo"])
def test_a_lock_that_another_holds(script, number, tmp_path, monkeypatch):
    """However the file system says so, the run is refused, and nothing changes."""
    found, run_dir = module(script), tmp_path / "run"
    flags = flags_for(script, tmp_path) | {"run_dir": run_dir}
    found.train(found.Args(**flags))
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    refuse_locks(monkeypatch, number)
    with pytest.raises(found.BadInput, match=r"cannot use .*run"):
        found.train(found.Args(resume=run_dir, total_timesteps=2 * flags["total_timesteps"]))
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


@pytest.mark.parametrize("script", ["ppo", "grpo"])
def test_a_lock_of_another_user(script, tmp_path, monkeypatch):
    """Its file cannot be opened, so it may be held: the run is refused."""
    found, run_dir = module(script), tmp_path / "run"
    flags = flags_for(script, tmp_path) | {"run_dir": run_dir}
    found.train(found.Args(**flags))
    plain = os.open

    def closed(path, *args, **kwargs):
        if str(path).endswith("lock"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return plain(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(found.BadInput, match=r"cannot use .*Permission denied"):
        found.train(found.Args(resume=run_dir, total_timesteps=2 * flags["total_timesteps"]))
