"""Environments of every kind that users bring: odd observations, infos, rewards and bounds, and
environments that break down."""

import json
import math
import re
import runpy
import sys
import traceback

import gymnasium as gym
import numpy as np
import pytest
import torch
from envs import Dial, Faulty
from helpers import (
    BOX,
    PIXELS,
    ROOT,
    SCRIPTS,
    checkpoint_of,
    command,
    env_id,
    loops,
    module,
    own_names,
    pair,
    run,
    small,
    train,
)


def finite(part) -> bool:
    """Whether all numbers in a nest of containers and tensors are finite."""
    if isinstance(part, dict):
        return all(map(finite, part.values()))
    if isinstance(part, list | tuple):
        return all(map(finite, part))
    if isinstance(part, torch.Tensor):
        return bool(torch.isfinite(part).all())
    return not isinstance(part, float) or math.isfinite(part)


@pytest.mark.parametrize("name", ["DictObs-v0", "Taxi-v4", "Blackjack-v1"])
@pytest.mark.parametrize("script", ["reinforce", "ppo"])
def test_observations_are_flattened(script, name, tmp_path):
    """Dict, Discrete and Tuple observations."""
    summary, checkpoint = train(script, tmp_path / "run", env_id=name, total_timesteps=600)
    assert summary["train_episodes"] > 0
    width = {"DictObs-v0": 7, "Taxi-v4": 500, "Blackjack-v1": 45}[name]
    assert checkpoint["actor"]["logits.0.weight"].shape == (64, width)


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name not in PIXELS])
def test_an_observation_may_be_one_number(script, tmp_path):
    """A Box of shape (), flattened to (1,)."""
    flags = {"env_id": env_id(script, "Scalar-v0"), "total_timesteps": 64}
    summary, checkpoint = train(script, tmp_path / "run", **flags)
    assert summary["train_episodes"] > 0
    (first,) = (key for key in checkpoint["actor"] if key.endswith("0.weight"))
    assert checkpoint["actor"][first].shape[1] == 1


@pytest.mark.parametrize("script", BOX)
def test_observations_are_flattened_for_continuous_actions(script, tmp_path):
    flags = {"env_id": "DictObsBox-v0", "total_timesteps": 200}
    _, checkpoint = train(script, tmp_path / "run", **flags)
    (first,) = (key for key in checkpoint["actor"] if key.endswith("0.weight"))
    assert checkpoint["actor"][first].shape == (256 if script == "sac" else 64, 7)


def test_infos_are_not_read(script, tmp_path):
    """Their types, shapes and keys change all the time, and one is called final_obs."""
    flags = {"env_id": env_id(script, "Gossip-v0"), "total_timesteps": 320, "num_envs": 3}
    summary, _ = train(script, tmp_path / "run", **flags)
    assert summary["train_episodes"] > 10
    assert 3 <= summary["train_return_mean"] <= 11


@loops
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["reward", "obs", "reset"])
def test_nothing_that_is_not_finite_gets_in(script, kind, value, tmp_path, monkeypatch):
    """The 42nd step, or the reset that follows step 50. The run stops at once and
    names the step; what was saved before is finite and can be resumed to the end.

    Two environments take turns, five steps an episode, so
    that the reset which is bad follows step 50, and the next step is the first to see it. A3C
    has one, and the reset follows step 45.
    """
    monkeypatch.setattr(Faulty, "steps", 0)
    found, name = module(script), env_id(script, "Faulty-v0")
    kwargs = json.dumps({"kind": kind, "at": 42, "value": value})
    flags = {"env_id": name, "env_kwargs": kwargs, "checkpoint_interval": 0.0}
    with pytest.raises(FloatingPointError, match=r"not finite") as failure:
        train(script, tmp_path / "run", total_timesteps=640, **flags)
    after_reset = 46 if script == "a3c" else 52
    step = after_reset if kind == "reset" else 42
    assert f"step {step}: reward or obs is not finite" in str(failure.value)
    assert not (tmp_path / "run" / "summary.json").exists()
    checkpoint = checkpoint_of(tmp_path / "run")
    assert finite(checkpoint)
    assert checkpoint["counters"][0] in (32, 40, 50)
    monkeypatch.setattr(Faulty, "steps", -(10**9))
    summary = found.train(found.Args(resume=tmp_path / "run"))
    assert summary["global_step"] in range(632, 641)
    assert finite(summary)
    assert finite(checkpoint_of(tmp_path / "run"))


@loops
def test_numbers_that_are_large_but_finite_pass(script, tmp_path):
    """An observation of 1e6 and rewards of 1e4 are nobody's fault."""
    kwargs = json.dumps({"shift": 1e6, "reward_scale": 1e4})
    flags = {"env_id": env_id(script, "Tape-v0"), "env_kwargs": kwargs, "total_timesteps": 160}
    summary, checkpoint = train(script, tmp_path / "run", **flags)
    assert finite(summary)
    assert finite(checkpoint)


@loops
@pytest.mark.parametrize(("kind", "value"), [("reward", math.nan), ("reward", math.inf)])
def test_an_evaluation_that_is_not_finite_is_a_failure(
    script, kind, value, tmp_path, monkeypatch
):
    """64 steps of training, then the evaluation."""
    monkeypatch.setattr(Faulty, "steps", 0)
    name = env_id(script, "Faulty-v0")
    kwargs = json.dumps({"kind": kind, "at": 68, "value": value})
    with pytest.raises(FloatingPointError, match=r"evaluation.*finite"):
        train(script, tmp_path / "run", env_id=name, env_kwargs=kwargs, total_timesteps=64)
    assert not (tmp_path / "run" / "summary.json").exists()
    checkpoint = checkpoint_of(tmp_path / "run")
    assert finite(checkpoint)
    assert checkpoint["counters"][0] == 64


@loops
@pytest.mark.parametrize("kind", ["obs", "reset"])
def test_an_observation_in_the_evaluation_that_is_not_finite_is_a_failure(
    script, kind, tmp_path, monkeypatch
):
    """The policy's answer to it means nothing, even where the rewards are finite."""
    monkeypatch.setattr(Faulty, "steps", 0)
    name = env_id(script, "Faulty-v0")
    kwargs = json.dumps({"kind": kind, "at": 68, "value": math.nan})
    with pytest.raises(FloatingPointError, match=r"evaluation.*finite"):
        train(script, tmp_path / "run", env_id=name, env_kwargs=kwargs, total_timesteps=64)
    assert not (tmp_path / "run" / "summary.json").exists()


def mapped(actions, low, high, dtype="float32") -> np.ndarray:
    """What the environment gets where the policy draws `actions`."""
    found = module("ppo_continuous")
    kwargs = json.dumps({"low": low, "high": high, "target": [0.0] * len(low), "dtype": dtype})
    env = found.make_env(found.Args(env_id="Dial-v0", env_kwargs=kwargs))
    env.reset(seed=0)
    Dial.actions.clear()
    for action in actions:
        env.step(np.array(action, np.float32))
    got = np.array(Dial.actions)
    assert got.dtype == dtype
    return got


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_finite_bounds_are_rescaled_each_on_its_own(dtype):
    """Bounded above and below: -1, 0 and 1 are the lower bound, the middle and the upper bound,
    and beyond is clipped. With one infinite bound or two the unit stays, and the finite one
    clips."""
    inf = math.inf
    low, high = [-inf, 0.0, -2.0, -inf, 100.0, 3.0], [inf, 10.0, 2.0, 5.0, 300.0, inf]
    actions = [[-1.0] * 6, [0.0] * 6, [1.0] * 6, [0.25] * 6, [7.0] * 6, [-7.0] * 6]
    expected = [
        [-1.0, 0.0, -2.0, -1.0, 100.0, 3.0],
        [0.0, 5.0, 0.0, 0.0, 200.0, 3.0],
        [1.0, 10.0, 2.0, 1.0, 300.0, 3.0],
        [0.25, 6.25, 0.5, 0.25, 225.0, 3.0],
        [7.0, 10.0, 2.0, 5.0, 300.0, 7.0],
        [-7.0, 0.0, -2.0, -7.0, 100.0, 3.0],
    ]
    np.testing.assert_array_equal(mapped(actions, low, high, dtype), expected)


def test_bounds_of_1_change_nothing():
    """MuJoCo's: not a bit, within the bounds."""
    actions = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    got = mapped(actions, [-1.0, -1.0], [1.0, 1.0])
    np.testing.assert_array_equal(got, actions.clip(-1, 1))


def test_the_policy_sees_no_bounds():
    """Its actions are stored as they were drawn, so the space must not ask for less."""
    found = module("ppo_continuous")
    space = found.make_env(found.Args(env_id="Dial-v0")).action_space
    assert space.shape == (1,)
    assert (space.low == -np.inf).all()
    assert (space.high == np.inf).all()


@pytest.mark.parametrize(
    ("low", "high", "target"),
    [([900.0], [940.0], [931.0]), ([-0.02, 5.0], [0.0, 5000.0], [-0.003, 900.0])],
)
def test_ranges_far_off_wide_or_narrow_are_solved(low, high, target, tmp_path):
    kwargs = json.dumps({"low": low, "high": high, "target": target})
    flags = {"env_id": "Dial-v0", "env_kwargs": kwargs, "total_timesteps": 8_000}
    flags |= {"num_envs": 4, "num_steps": 32, "num_minibatches": 2, "learning_rate": 3e-3}
    summary, _ = train("ppo_continuous", tmp_path / "run", gamma=0.0, **flags)
    assert summary["eval_return_mean"] > 0.9


@pytest.mark.parametrize("kind", ["type", "import", "file"])
@pytest.mark.parametrize("script", ["ppo", "ppo_continuous"])
def test_a_bug_in_the_users_constructor_keeps_its_traceback(script, kind, tmp_path):
    """It is not ours to put into a line: the exception itself comes out of train()."""
    kwargs = json.dumps({"kind": kind})
    kinds = {"type": TypeError, "import": ImportError, "file": FileNotFoundError}
    flags = {"env_id": env_id(script, "BrokenConstructor-v0"), "env_kwargs": kwargs}
    with pytest.raises(kinds[kind]) as broken:
        train(script, tmp_path / "run", **flags)
    assert not isinstance(broken.value, module(script).BadInput)
    assert "envs.py" in "".join(traceback.format_exception(broken.value))
    assert not (tmp_path / "run").exists()


def test_a_bug_in_the_users_constructor_as_a_program(tmp_path):
    name = "envs:BrokenConstructor-v0"
    result = run("ppo", "--env-kwargs", '{"kind": "type"}', cwd=tmp_path, env_id=name)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert re.search(r'envs\.py", line \d+, in __init__', result.stderr)
    assert "resume with" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "kind", "name"),
    [
        ("ppo", "step", "ValueError: the simulator is lost"),
        ("ppo_continuous", "file", "FileNotFoundError"),
        ("reinforce", "step", "ValueError: the simulator is lost"),
        ("a3c", "step", "ValueError: the simulator is lost"),
    ],
)
def test_an_exception_of_the_environment_keeps_its_traceback_and_adds_the_hint(
    script, kind, name, tmp_path
):
    kwargs = json.dumps({"kind": kind, "at": 300})
    flags = {"env_id": env_id(script, "envs:Faulty-v0"), "run_dir": tmp_path / "run"}
    flags |= own_names(script, {"num_envs": 2})
    result = run(script, "--env-kwargs", kwargs, cwd=tmp_path, **flags)
    assert result.returncode == 1
    assert re.search(r'envs\.py", line \d+, in step', result.stderr)
    assert name in result.stderr
    assert "error: " not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("resume with: python ")
    assert last.endswith(f'{script}.py" --resume "{tmp_path / "run"}"')
    made = 600 if script == "a3c" else 300  # each worker counts for itself
    assert checkpoint_of(tmp_path / "run")["counters"][0] < made


@pytest.mark.parametrize("script", ["ppo", "ppo_continuous", "a3c"])
def test_a_value_that_is_not_finite_as_a_program(script, tmp_path):
    """One line with the step and the hint, status 1. A3C has one worker."""
    kwargs = json.dumps({"kind": "obs", "at": 100, "value": math.inf})
    flags = {"env_id": env_id(script, "envs:Faulty-v0"), "run_dir": tmp_path / "run"}
    flags |= {"num_workers": 1} if script == "a3c" else {"num_envs": 2}
    result = run(script, "--env-kwargs", kwargs, cwd=tmp_path, **flags)
    assert result.returncode == 1
    error, hint = result.stderr.strip().splitlines()
    assert error == "error: step 100: reward or obs is not finite"
    assert hint.startswith("resume with: ")


def with_a_vector(script: str, monkeypatch, folder, kind: str = "reward") -> dict:
    """Flags of a run whose 42nd step gives two rewards."""
    monkeypatch.setattr(Faulty, "steps", 0)
    kwargs = json.dumps({"kind": kind, "at": 42, "value": [1.0, 2.0]})
    flags = {"env_id": env_id(script, "Faulty-v0"), "env_kwargs": kwargs}
    return flags | {"total_timesteps": 64, "run_dir": folder} | small(script)


def as_program(script: str, monkeypatch, capsys, flags: dict) -> tuple[int, list[str]]:
    """The script as a program, though within this process: its status, and what it says."""
    monkeypatch.setattr(sys, "argv", command(script, **flags)[1:])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    return end.value.code, capsys.readouterr().err.strip().splitlines()


NOT_ONE = "a reward, terminated or truncated is not one value"


def test_a_vector_for_a_reward_is_refused(script, tmp_path, monkeypatch):
    """From Python, with NumPy's error as the cause."""
    found, flags = module(script), with_a_vector(script, monkeypatch, tmp_path / "run")
    with pytest.raises(found.BadInput, match=f"^{NOT_ONE}$") as refusal:
        found.train(found.Args(**flags))
    assert "array element" in str(refusal.value.__cause__)


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "a3c"])
def test_a_vector_for_a_reward_is_one_line(script, tmp_path, monkeypatch, capsys):
    flags = with_a_vector(script, monkeypatch, tmp_path / "run")
    status, said = as_program(script, monkeypatch, capsys, flags)
    assert (status, said[-1]) == (2, f"error: {NOT_ONE}")
    assert not any("Traceback" in line for line in said)


def test_a_vector_for_a_reward_is_one_line_of_a3c(tmp_path):
    """Whose environments are in processes of their own."""
    kwargs = '{"kind": "reward", "at": 30, "value": [1.0, 2.0]}'
    flags = {"env_id": "envs:Faulty-v0", "env_kwargs": kwargs, "run_dir": tmp_path / "run"}
    result = run("a3c", cwd=tmp_path, total_timesteps=640, num_workers=1, **flags)
    assert result.returncode == 2
    assert f"error: {NOT_ONE}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("script", ["ppo", "ppo_images", "sac"])
def test_the_same_words_from_the_environments_own_code_keep_the_traceback(
    script, tmp_path, monkeypatch, capsys
):
    """NumPy says them wherever a vector is stored as a number."""
    flags = with_a_vector(script, monkeypatch, tmp_path / "run", kind="store")
    status, said = as_program(script, monkeypatch, capsys, flags)
    assert status == 1
    assert any("Traceback" in line for line in said)
    assert not any(NOT_ONE in line for line in said)


@pair
def test_numpy_scalars_are_rewards(script, tmp_path):
    flags = {"env_id": env_id(script, "Odd-v0"), "env_kwargs": '{"reward": 2.5}'}
    summary, _ = train(script, tmp_path / "run", total_timesteps=64, **flags)
    assert summary["eval_return_mean"] % 2.5 == 0


def test_env_kwargs_go_to_the_environment(tmp_path):
    """FrozenLake without slipping: the way down and right always leads to the goal."""
    found = module("ppo")
    env = found.make_env(
        found.Args(env_id="FrozenLake-v1", env_kwargs='{"is_slippery": false}')
    )
    for seed in range(5):
        env.reset(seed=seed)
        for action in (1, 1, 2, 1, 2, 2):
            _, reward, terminated, *_ = env.step(action)
        assert (reward, terminated) == (1, True)
    result = run(
        "ppo",
        "--env-kwargs",
        '{"is_slippery": false}',
        "--max-grad-norm",
        "inf",
        "--total-timesteps",
        "2e3",
        cwd=tmp_path,
        env_id="FrozenLake-v1",
        run_dir=tmp_path / "run",
    )
    assert result.returncode == 0, result.stderr
    args = json.loads((tmp_path / "run" / "args.json").read_text())
    assert json.loads(args["env_kwargs"]) == {"is_slippery": False}
    assert args["total_timesteps"] == 2000
    assert args["max_grad_norm"] == math.inf
    assert isinstance(gym.spec("FrozenLake-v1").kwargs, dict)
