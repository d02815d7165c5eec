"""Bad input: BadInput with one line of text from train(), one line on standard error and exit
status 2 from the program, and no run directory left behind."""

import math
import os
import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import (
    benchmark_env,
    changed,
    checkpoint_of,
    env_id,
    fields,
    loops,
    module,
    own_names,
    pair,
    run,
    small,
    summary_of,
    train,
)


def needs_more():
    raise gym.error.DependencyNotInstalled("pip install more")


gym.register("NeedsMore-v0", needs_more)


def refused(script: str, run_dir: Path, **flags) -> str:
    """Run `script` with flags it must refuse; return its one line."""
    found = module(script)
    usual = {"env_id": benchmark_env(script), "total_timesteps": 5000}  # soon over, if it runs
    flags = small(script) | usual | own_names(script, flags)
    with pytest.raises(found.BadInput) as refusal:
        found.train(found.Args(run_dir=run_dir, **flags))
    assert isinstance(refusal.value, ValueError)
    text = str(refusal.value)
    assert "\n" not in text.strip()
    return text


def one_line(stderr: str) -> str:
    (line,) = stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pair
@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        ("CartPol-v1", "CartPole"),  # Gymnasium's own messages name near matches
        ("CartPole-v9", "`v1`"),
        ("Nothing/LikeThis-v7", "Nothing"),
        ("no name", "no name"),
        ("nosuchmodule:Env-v0", "nosuchmodule"),
        ("NeedsMore-v0", "pip install more"),
    ],
)
def test_environments_that_cannot_be_made(script, env_id, said, tmp_path):
    line = refused(script, tmp_path / "run", env_id=env_id)
    assert env_id in line
    assert said in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("ppo", "Pendulum-v1"),
        ("ppo", "MultiDiscrete-v0"),
        ("ppo", "StartAtFive-v0"),
        ("ppo_continuous", "CartPole-v1"),
        ("ppo_continuous", "Matrix-v0"),
        ("ppo_continuous", "Number-v0"),
        ("trpo_continuous", "Number-v0"),
        ("sac", "Number-v0"),
        ("ppo_continuous", "Nothing-v0"),
        ("ppo_continuous", "Integer-v0"),
        ("ppo_continuous", "Byte-v0"),
    ],
)
def test_actions_of_the_wrong_kind(script, name, tmp_path):
    line = refused(script, tmp_path / "run", env_id=name)
    assert name in line
    assert ("not Discrete(n)" if script == "ppo" else "not a vector of floats") in line
    assert not (tmp_path / "run").exists()


@pair
@pytest.mark.parametrize(
    "name", ["Sequence", "NestedSequence", "Prose", "NestedProse", "Blind"]
)
def test_observations_that_cannot_be_flattened(script, name, tmp_path):
    """Of Gymnasium's spaces and of the user's own, nested or not; and observations of no
    size."""
    name = env_id(script, f"{name}-v0")
    line = refused(script, tmp_path / "run", env_id=name)
    assert name in line
    assert "flatten" in line
    assert not (tmp_path / "run").exists()


OUT_OF_RANGE = [
    {"num_envs": 0},
    {"num_envs": -1},
    {"num_steps": 0},
    {"total_timesteps": 0},
    {"update_epochs": 0},
    {"num_minibatches": 0},
    {"n_critic_updates": 0},
    {"cg_max_steps": 0},
    {"line_search_max_iter": -3},
    {"eval_episodes": 0},
    {"torch_threads": 0},
    {"seed": -1},
    {"seed": 2**64},
    {"log_interval": 0},
    {"num_envs": 1.5},
    {"total_timesteps": 1000.5},
    {"total_timesteps": math.inf},
    {"total_timesteps": math.nan},
    {"learning_rate": -1.0},
    {"learning_rate": math.nan},
    {"clip_coef": math.inf},
    {"gamma": 1.5},
    {"gamma": -0.1},
    {"gae_lambda": 1.01},
    {"rms_alpha": 1.5},
    {"line_search_shrinking_factor": 2.0},
    {"target_kl": -1.0},
    {"target_kl": 0.0},
    {"target_kl": math.nan},
    {"cg_damping": -0.1},
    {"checkpoint_interval": -1.0},
    {"checkpoint_interval": math.inf},
    {"max_grad_norm": 0.0},
    {"max_grad_norm": math.nan},
    {"reward_scale": 0.0},
    {"init_std": 0.0},
    {"init_std": math.inf},
    {"rms_eps": -1e-5},
    {"rms_eps": 0.0},
    {"ent_coef": -0.1},
    {"vf_coef": math.nan},
    {"num_workers": 0},
    {"gradient_steps": 0},
    {"buffer_size": 0},
    {"learning_starts": 0},
    {"batch_size": 0},
    {"tau": 1.01},
    {"tau": -0.1},
    {"alpha": 0.0},
    {"alpha": math.nan},
]


@pytest.mark.parametrize("flags", OUT_OF_RANGE, ids=str)
def test_sizes_and_rates_out_of_range(flags, tmp_path):
    """In the first script that has the flag: the check is the scaffold's. The line names the
    flag and the value."""
    ((name, value),) = flags.items()
    order = ("ppo", "ppo_continuous", "a2c", "trpo", "reinforce_baseline", "a3c", "sac")
    script = next(script for script in order if name in fields(script))
    line = refused(script, tmp_path / "run", **flags)
    assert line.startswith(f"{name} must be ")
    assert line.endswith(f"not {value}")
    assert not (tmp_path / "run").exists()


def test_every_number_is_checked(script, tmp_path):
    """No numeric flag of any script takes a nan."""
    found = module(script)
    numbers = [n for n in fields(script) if type(getattr(found.Args, n)) in (int, float)]
    assert len(numbers) > 7
    for name in numbers:
        assert refused(script, tmp_path / "run", **{name: math.nan}).startswith(f"{name} must")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("ppo", {"max_grad_norm": math.inf}),
        ("ppo", {"target_kl": None}),
        ("ppo", {"gamma": 0, "gae_lambda": 1, "learning_rate": 1}),
        ("ppo_continuous", {"seed": 0, "ent_coef": 0}),
        ("a2c", {"rms_alpha": 0.0}),
        ("a2c", {"num_envs": 1, "num_steps": 1}),
        ("trpo", {"cg_damping": 0.0, "line_search_shrinking_factor": 1.0}),
        ("trpo_continuous", {"cg_damping": 0.0, "line_search_shrinking_factor": 1.0}),
        ("a3c", {"num_workers": 3, "num_steps": 1}),
        ("sac", {"tau": 0.0, "gamma": 0, "learning_rate": 0}),
        ("sac", {"tau": 1.0, "alpha": 0.5, "gamma": 1}),
        ("sac", {"buffer_size": 2, "batch_size": 1, "learning_starts": 1}),
        ("reinforce", {"num_envs": 1}),
        ("reinforce_baseline", {"num_envs": 1}),
    ],
)
def test_the_ends_of_the_ranges_work(script, flags, tmp_path):
    name = env_id(script, "Tape-v0")
    summary, _ = train(script, tmp_path / "run", env_id=name, total_timesteps=64, **flags)
    assert summary["global_step"] > 0


def test_episodes_of_one_step_in_a_single_environment(script, tmp_path):
    """Batches of one step, in REINFORCE: nothing to compare it with, but nothing wrong
    either."""
    kwargs, name = '{"length": 1}', env_id(script, "TwoStates-v0")
    flags = {"env_kwargs": kwargs, "total_timesteps": 64, "num_envs": 1}
    summary, _ = train(script, tmp_path / "run", env_id=name, **flags)
    assert summary["train_episodes"] == summary["global_step"] == 64


@loops
def test_a_run_too_short_for_one_batch(script, tmp_path):
    line = refused(script, tmp_path / "run", num_envs=4, total_timesteps=3)
    assert "total_timesteps must be at least" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("num_minibatches", [3, 32, 64])
@pytest.mark.parametrize("script", ["trpo", "trpo_continuous", "ppo", "ppo_continuous"])
def test_indivisible_batches_and_minibatches_of_one(script, num_minibatches, tmp_path):
    """A batch of 32."""
    line = refused(script, tmp_path / "run", num_minibatches=num_minibatches)
    assert "num_minibatches must split 32 steps" in line


def test_normalized_returns_of_a_single_episode(tmp_path):
    """It is its own mean: nothing could be learned."""
    line = refused("reinforce", tmp_path / "run", norm_returns=True, num_envs=1)
    assert "norm_returns" in line
    assert "num_envs" in line


@pytest.mark.parametrize(("script", "num_envs"), [("a2c", 1), ("a3c", 1), ("a3c", 4)])
def test_normalized_advantages_of_a_single_step(script, num_envs, tmp_path):
    flags = {"norm_adv": True, "num_envs": num_envs, "num_steps": 1}
    assert "norm_adv" in refused(script, tmp_path / "run", **flags)


def test_a_buffer_smaller_than_one_step_of_all_environments(tmp_path):
    line = refused("sac", tmp_path / "run", num_envs=4, buffer_size=3)
    assert line == "buffer_size must be at least num_envs, 4"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("starts", [64, 65])
def test_a_run_that_would_never_begin_to_learn(starts, tmp_path):
    line = refused("sac", tmp_path / "run", total_timesteps=64, learning_starts=starts)
    assert line == "learning_starts must be less than the run's 64 steps"


def test_a_buffer_larger_than_the_memory(tmp_path):
    assert "buffer_size" in refused("sac", tmp_path / "run", buffer_size=10**14)
    assert not (tmp_path / "run").exists()


@pair
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(script, device, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    assert f"no device {device}" in refused(script, tmp_path / "run", device=device)


@pair
@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", '"a"', "{'a': 1}"])
def test_env_kwargs_that_are_no_json_object(script, text, tmp_path):
    assert f" with {text}: " in refused(script, tmp_path / "run", env_kwargs=text)


@pair
@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("Tape", '{"colour": 1}', "colour"),
        ("BrokenConstructor", "{}", "kind"),
        ("BrokenConstructor", '{"kind": "value"}', "value"),
    ],
)
def test_env_kwargs_that_the_environment_does_not_take(script, name, kwargs, said, tmp_path):
    """One too many, one missing, and one that the environment itself refuses."""
    flags = {"env_id": env_id(script, f"{name}-v0"), "env_kwargs": kwargs}
    assert said in refused(script, tmp_path / "run", **flags)
    assert not (tmp_path / "run").exists()


@pair
def test_an_existing_run_directory(script, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    assert "--resume" in refused(script, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]


@pair
def test_a_directory_that_cannot_be_made(script, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot use" in refused(script, tmp_path / "file" / "run")


class Malice:
    """Unpickling this writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def resume_refused(script: str, path: Path, **flags) -> str:
    found = module(script)
    with pytest.raises(found.BadInput) as refusal:
        found.train(found.Args(resume=path, **flags))
    return str(refusal.value)


@pair
def test_checkpoints_that_are_none(script, tmp_path):
    """Each refusal names the directory, runs no code from the file, and changes nothing."""
    run_dir, marker = tmp_path / "run", tmp_path / "marker"
    assert str(tmp_path / "nowhere") in resume_refused(script, tmp_path / "nowhere")
    train(script, run_dir, env_id=benchmark_env(script), total_timesteps=64)
    path, whole = run_dir / "checkpoint.pt", (run_dir / "checkpoint.pt").read_bytes()
    bad = {
        "empty": b"",
        "text": b"not a checkpoint",
        "truncated": whole[: len(whole) // 2],
        "a plain pickle": pickle.dumps({"about": {}, "args": Malice(marker)}),
    }
    files = sorted(p.name for p in run_dir.iterdir())
    for content in bad.values():
        path.write_bytes(content)
        assert f"cannot resume {run_dir}" in resume_refused(script, run_dir)
        assert path.read_bytes() == content
    torch.save({"about": Malice(marker)}, path)
    assert f"cannot resume {run_dir}" in resume_refused(script, run_dir)
    assert not marker.exists()
    path.write_bytes(whole)
    checkpoint = checkpoint_of(run_dir)
    torch.save(checkpoint | {"args": checkpoint["args"] | {"unknown_flag": 1}}, path)
    assert "unknown_flag" in resume_refused(script, run_dir)
    for key in ("counters", "actor", "optimizer"):
        torch.save({k: v for k, v in checkpoint.items() if k != key}, path)
        assert str(run_dir) in resume_refused(script, run_dir)
    other = checkpoint | {"actor": dict(list(checkpoint["actor"].items())[1:])}
    torch.save(other, path)
    assert str(run_dir) in resume_refused(script, run_dir)
    assert sorted(p.name for p in run_dir.iterdir()) == files
    assert (run_dir / "summary.json").exists()


def test_resuming_the_run_of_another_script(tmp_path):
    train("a2c", tmp_path / "run", env_id="CartPole-v1", total_timesteps=64)
    assert "ppo.py cannot resume" in resume_refused("ppo", tmp_path / "run")


@loops
def test_hyperparameters_cannot_change_on_the_way(script, tmp_path):
    """Every one of them, with the name of the flag; and the run's own flags still resume it."""
    run_dir, found = tmp_path / "run", module(script)
    train(script, run_dir, env_id=benchmark_env(script), total_timesteps=64, seed=3)
    own = found.Args(**checkpoint_of(run_dir)["args"] | {"run_dir": run_dir, "resume": run_dir})
    other = {"env_id": "Acrobot-v1", "env_kwargs": '{"max_episode_steps": 7}', "target_kl": 0.5}
    other["alpha"] = 0.5
    for name, args in changed(own, other):
        with pytest.raises(found.BadInput, match=f"{name} must stay"):
            found.train(args)
    assert "run_dir must stay" in resume_refused(script, run_dir, run_dir=tmp_path / "other")
    assert found.train(own)["global_step"] == summary_of(run_dir)["global_step"]


@pair
def test_as_a_program(script, tmp_path):
    """The same from the outside: exit status 2, nothing on standard output, no traceback,
    nothing left behind."""
    result = run(script, cwd=tmp_path, env_id="CartPol-v1")
    assert result.returncode == 2
    assert "CartPole" in one_line(result.stderr)
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_flags_that_do_not_exist_or_make_no_sense(tmp_path):
    for words in (["--num-stepz", "3"], ["--num-envs", "two"], ["--device", "tpu"]):
        result = run("ppo", *words, cwd=tmp_path)
        assert result.returncode == 2
        assert words[0][:10] in result.stderr
        assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_directory_as_a_program(tmp_path):
    """/proc takes no directories, not even from root."""
    if not Path("/proc").is_dir():
        pytest.skip("there is no /proc here")
    result = run("ppo", cwd=tmp_path, run_dir="/proc/run")
    assert result.returncode == 2
    assert "cannot use /proc/run" in one_line(result.stderr)


def test_numbers_of_numpy_are_numbers():
    found = module("ppo")
    args = found.Args(
        num_envs=np.int64(4), learning_rate=np.float32(0.5), total_timesteps=np.float64(1e5),
        seed=np.uint8(7), target_kl=np.float64(0.02),
    )  # fmt: skip
    checked = found.check_args(args)
    kinds = [
        type(getattr(checked, name)) for name in ("num_envs", "learning_rate", "target_kl")
    ]
    assert kinds == [int, float, float]
    assert (checked.total_timesteps, checked.seed) == (100_000, 7)
    assert type(checked.total_timesteps) is type(checked.seed) is int
