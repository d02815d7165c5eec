"""Bad input: one line on standard error, exit status 2, no traceback, and no run directory left behind."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from helpers import SCRIPTS, fields, module, run, small, summary_of, train

ENV = {name: "Pendulum-v1" if name == "ppo_continuous" else "CartPole-v1" for name in SCRIPTS}


def needs_more():
    raise gym.error.DependencyNotInstalled("pip install more")


gym.register("NeedsMore-v0", needs_more)


def refused(script: str, capsys, run_dir: Path, **flags) -> str:
    """Run `script` with flags it must refuse; return its one line."""
    args = module(script).Args(run_dir=run_dir, **(small(script) | {"env_id": ENV[script]} | flags))
    with pytest.raises(SystemExit) as stop:
        module(script).train(args)
    assert stop.value.code == 2
    return one_line(capsys.readouterr().err)


def one_line(stderr: str) -> str:
    (line,) = stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("env_id", "near"), [("CartPol-v1", "CartPole-v1"), ("cartpole-v9", "CartPole-v1"), ("Pendulun-v1", "Pendulum-v1")]
)
def test_unknown_environment_with_near_matches(script, env_id, near, tmp_path, capsys):
    line = refused(script, capsys, tmp_path / "run", env_id=env_id)
    assert env_id in line
    assert near in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("env_id", ["Nothing/LikeThis-v7", "no name", "nosuchmodule:Env-v0"])
def test_unknown_environment_without_any(script, env_id, tmp_path, capsys):
    assert env_id in refused(script, capsys, tmp_path / "run", env_id=env_id)


def test_an_environment_whose_package_is_missing(script, tmp_path, capsys):
    assert "pip install more" in refused(script, capsys, tmp_path / "run", env_id="NeedsMore-v0")


def test_the_wrong_kind_of_actions(script, tmp_path, capsys):
    other = "CartPole-v1" if script == "ppo_continuous" else "Pendulum-v1"
    line = refused(script, capsys, tmp_path / "run", env_id=other)
    assert ("use ppo.py" if script == "ppo_continuous" else "use ppo_continuous.py") in line


@pytest.mark.parametrize("env_id", ["MultiDiscrete-v0", "Matrix-v0"])
def test_unsupported_actions(script, env_id, tmp_path, capsys):
    assert env_id in refused(script, capsys, tmp_path / "run", env_id=env_id)


def test_observations_that_cannot_be_flattened(script, tmp_path, capsys):
    env_id = "SequenceBox-v0" if script == "ppo_continuous" else "Sequence-v0"
    assert "Sequence" in refused(script, capsys, tmp_path / "run", env_id=env_id)


@pytest.mark.parametrize(
    "flags",
    [
        {"num_envs": 0}, {"num_envs": -1}, {"num_steps": 0}, {"total_timesteps": 0}, {"update_epochs": 0},
        {"num_minibatches": 0}, {"n_critic_updates": 0}, {"cg_max_steps": 0}, {"line_search_max_iter": -3},
        {"eval_episodes": 0}, {"torch_threads": 0}, {"seed": -1}, {"seed": 2**64},
        {"learning_rate": -1.0}, {"learning_rate": float("nan")}, {"clip_coef": float("inf")}, {"gamma": 1.5},
        {"gae_lambda": 1.01}, {"gamma": -0.1},
        {"rms_alpha": 1.5}, {"line_search_shrinking_factor": 2.0},
        {"target_kl": -1.0}, {"cg_damping": -0.1}, {"checkpoint_interval": -1.0},
    ],
)  # fmt: skip
def test_sizes_and_rates_out_of_range(script, flags, tmp_path, capsys):
    (name,) = flags
    if name not in fields(script):
        pytest.skip("has no such flag")
    assert f"--{name.replace('_', '-')}" in refused(script, capsys, tmp_path / "run", **flags)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_whole_run(script, tmp_path, capsys):
    flags = {"num_envs": 4, "total_timesteps": 3}
    assert "--total-timesteps 3" in refused(script, capsys, tmp_path / "run", **flags)


@pytest.mark.parametrize("num_minibatches", [3, 32, 64])
@pytest.mark.parametrize("script", ["trpo", "ppo", "ppo_continuous"])
def test_indivisible_batches_and_minibatches_of_one(script, num_minibatches, tmp_path, capsys):
    """A batch of 32."""
    assert "32" in refused(script, capsys, tmp_path / "run", num_minibatches=num_minibatches)


def test_normalized_returns_of_a_single_episode(tmp_path, capsys):
    """It is its own mean: nothing could be learned."""
    line = refused("reinforce", capsys, tmp_path / "run", norm_returns=True, num_envs=1)
    assert "--norm-returns" in line
    assert "--num-envs" in line


def test_normalized_advantages_of_a_single_step(tmp_path, capsys):
    line = refused("a2c", capsys, tmp_path / "run", norm_adv=True, num_envs=1, num_steps=1)
    assert "--norm-adv" in line


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(script, device, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert f"--device {device}" in refused(script, capsys, tmp_path / "run", device=device)


def test_auto_takes_what_there_is(script, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    train(script, tmp_path / "run", env_id=ENV[script], total_timesteps=64, device="auto")
    assert json.loads((tmp_path / "run" / "args.json").read_text())["device"] == "cpu"


def test_an_existing_run_directory(script, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    line = refused(script, capsys, tmp_path / "run")
    assert "--resume" in line
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_a_directory_that_cannot_be_made(script, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert "cannot create" in refused(script, capsys, tmp_path / "file" / "run")


def test_video_without_its_package(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module(script), "find_spec", lambda _: None)
    line = refused(script, capsys, tmp_path / "run", capture_video=True)
    assert "pip install moviepy" in line


def test_video_without_the_renderer(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    assert "pip install" in refused(script, capsys, tmp_path / "run", capture_video=True)


def test_video_of_an_environment_that_renders_nothing(script, tmp_path, capsys):
    env_id = "DictObsBox-v0" if script == "ppo_continuous" else "DictObs-v0"
    assert env_id in refused(script, capsys, tmp_path / "run", env_id=env_id, capture_video=True)


class Malice:
    """Unpickling this writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def resume_refused(script: str, capsys, run_dir: Path, monkeypatch, *more: str) -> str:
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--resume", str(run_dir), *more])
    with pytest.raises(SystemExit) as stop:
        module(script).train(*module(script).parse_args())
    assert stop.value.code == 2
    return one_line(capsys.readouterr().err)


def test_checkpoints_that_are_none(script, tmp_path, capsys, monkeypatch):
    run_dir, marker = tmp_path / "run", tmp_path / "marker"
    assert "no checkpoint" in resume_refused(script, capsys, tmp_path / "nowhere", monkeypatch)
    train(script, run_dir, env_id=ENV[script], total_timesteps=64)
    capsys.readouterr()
    path, whole = run_dir / "checkpoint.pt", (run_dir / "checkpoint.pt").read_bytes()
    bad = {
        "empty": b"",
        "text": b"not a checkpoint",
        "truncated": whole[: len(whole) // 2],
        "a plain pickle": pickle.dumps({"script": f"{script}.py", "args": Malice(marker)}),
    }
    for data in bad.values():
        path.write_bytes(data)
        assert str(path) in resume_refused(script, capsys, run_dir, monkeypatch)
    torch.save({"script": f"{script}.py", "args": Malice(marker)}, path)
    assert str(path) in resume_refused(script, capsys, run_dir, monkeypatch)
    torch.save(torch.nn.Linear(1, 1).state_dict(), path)
    assert str(path) in resume_refused(script, capsys, run_dir, monkeypatch)
    checkpoint = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    assert not marker.exists()
    path.write_bytes(whole)
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"args": checkpoint["args"] | {"unknown_flag": 1}}, path)
    assert str(path) in resume_refused(script, capsys, run_dir, monkeypatch)
    del checkpoint["rng_state"]
    torch.save(checkpoint, path)
    assert "does not fit" in resume_refused(script, capsys, run_dir, monkeypatch)


def test_resuming_the_run_of_another_script(tmp_path, capsys, monkeypatch):
    train("a2c", tmp_path / "run", env_id="CartPole-v1", total_timesteps=64)
    capsys.readouterr()
    line = resume_refused("ppo", capsys, tmp_path / "run", monkeypatch)
    assert f"python a2c.py --resume {tmp_path / 'run'}" in line


def test_hyperparameters_cannot_change_on_the_way(script, tmp_path, capsys, monkeypatch):
    run_dir = tmp_path / "run"
    train(script, run_dir, env_id=ENV[script], total_timesteps=64)
    capsys.readouterr()
    assert "--gamma" in resume_refused(script, capsys, run_dir, monkeypatch, "--gamma", "0.5")
    assert "--seed" in resume_refused(script, capsys, run_dir, monkeypatch, "--seed", "9")
    assert "--run-dir" in resume_refused(script, capsys, run_dir, monkeypatch, "--run-dir", "other")
    assert "--total-timesteps" in resume_refused(script, capsys, run_dir, monkeypatch, "--total-timesteps", "32")
    assert summary_of(run_dir)["global_step"] == 64


def test_trpo_without_a_trust_region(tmp_path, capsys):
    assert "--target-kl" in refused("trpo", capsys, tmp_path / "run", target_kl=0.0)
    assert "--init-std" in refused("ppo_continuous", capsys, tmp_path / "run", init_std=0.0)


def test_an_unfinished_continuation_has_no_summary(script, tmp_path, monkeypatch):
    """Trained on and stopped before the end, a finished run must not pass for one that succeeded."""
    run_dir = tmp_path / "run"
    train(script, run_dir, env_id=ENV[script], total_timesteps=64)
    monkeypatch.setattr(sys, "argv", [script, "--resume", str(run_dir), "--total-timesteps", "640"])
    args, checkpoint = module(script).parse_args()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module(script).Run, "record_step", stop)
    with pytest.raises(KeyboardInterrupt):
        module(script).train(args, checkpoint)
    assert not (run_dir / "summary.json").exists()


def test_as_a_program(script, tmp_path):
    """The same from the outside: exit status 2, nothing on standard output, no traceback, nothing left behind."""
    result = run(script, cwd=tmp_path, env_id="CartPol-v1")
    assert result.returncode == 2
    assert "CartPole-v1" in one_line(result.stderr)
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_flag_that_does_not_exist(tmp_path):
    result = run("ppo", "--num-stepz", "3", cwd=tmp_path)
    assert result.returncode == 2
    assert "--num-steps" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unwritable_directory_as_a_program(tmp_path):
    """/proc takes no directories, not even from root."""
    if not Path("/proc").is_dir():
        pytest.skip("there is no /proc here")
    result = subprocess.run(
        [sys.executable, module("ppo").__file__, "--run-dir", "/proc/run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "cannot create /proc/run" in one_line(result.stderr)
