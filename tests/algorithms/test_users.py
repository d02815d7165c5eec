"""What users bring that is nobody's fault: simulators with habits of their own, numbers of any
size, programs with settings of their own; and what they mistype."""

import io
import json
import random
import re
import threading
import time
from contextlib import suppress
from pathlib import Path

import lm_helpers
import numpy as np
import pytest
import torch
from envs import Dial, Simulator, Tape
from helpers import (
    BOX,
    DISCRETE,
    EVERY,
    PIXELS,
    SCRIPTS,
    SOURCES,
    WITH_GAE,
    checkpoint_of,
    env_id,
    fields,
    loops,
    module,
    own_names,
    pair,
    run,
    same,
    scalars,
    small,
    train,
)
from test_environments import finite
from test_errors import refused, resume_refused
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@pytest.fixture
def stays(tmp_path, monkeypatch):
    """Comes back from where an environment went."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Simulator, "alive", 0)
    monkeypatch.setattr(Simulator, "seen", [])


def test_a_simulator_with_habits_of_its_own(script, tmp_path, stays, monkeypatch):
    """One at a time, through training, evaluation and a resume; what it returns is copied;
    relative paths stay where they were; seeds fit; and one seed has one sequence, whichever
    generator draws it, and a resumed run another."""
    found, runs = module(script), []
    flags = {"env_id": env_id(script, "Simulator-v0"), "total_timesteps": 64}
    flags |= small(script) | own_names(script, {"num_envs": 1})
    for name in ("run", "again"):
        monkeypatch.chdir(tmp_path)
        random.seed(name)
        np.random.seed(len(runs))  # noqa: NPY002
        Simulator.seen.clear()
        summary = found.train(found.Args(run_dir=name, **flags))
        actor = checkpoint_of(tmp_path / name)["actor"]
        runs.append((summary["eval_return_mean"], actor, list(Simulator.seen)))
        assert Simulator.alive == 0
    assert same(*runs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "run"]
    monkeypatch.chdir(tmp_path)
    Simulator.seen.clear()
    assert found.train(found.Args(resume="run", total_timesteps=128))["global_step"] > 64
    assert Simulator.seen[2:20] != runs[0][2][2:20]
    assert Simulator.alive == 0


def test_a_close_that_fails_is_told_and_no_more(script, tmp_path, stays, capfd):
    """The run is done, and its summary returned; what fails otherwise still raises."""
    flags = {"env_id": env_id(script, "Simulator-v0"), "env_kwargs": '{"fragile": true}'}
    flags |= {"num_envs": 1, "total_timesteps": 64}
    summary, _ = train(script, tmp_path / "run", **flags)
    assert summary["global_step"] > 30
    assert "the simulator does not answer" in capfd.readouterr().err
    with pytest.raises(module(script).BadInput, match="exists"):
        train(script, tmp_path / "run", **flags)
    assert Simulator.alive == 0


@pytest.mark.parametrize("script", [name for name in DISCRETE if name not in PIXELS])
def test_images_are_flattened_with_a_word(script):
    found = module(script)
    with pytest.warns(UserWarning, match="images .* are flattened"):
        env = found.make_env(found.Args(env_id="Images-v0"))
    assert env.observation_space.shape == (12**3,)


def test_seeds_fit_into_31_bits_and_differ(script, tmp_path, monkeypatch):
    """Also those of many environments and of the evaluation."""
    seeds, reset = [], Tape.reset

    def note(env, *, seed=None, options=None):
        seeds.append(seed)
        return reset(env, seed=seed)

    monkeypatch.setattr(Tape, "reset", note)
    flags = {"env_id": env_id(script, "Tape-v0"), "num_envs": 6, "eval_episodes": 30}
    train(script, tmp_path / "run", total_timesteps=96, **flags)
    given = [seed for seed in seeds if seed is not None]
    assert len(given) == len(set(given)) == 36
    assert all(0 <= seed < 2**31 for seed in given)
    assert max(given) > 2**30


# ---- Numbers of any size ----
@pytest.mark.parametrize("script", BOX)
def test_bounds_that_mean_none_are_none(script, tmp_path):
    """np.finfo(np.float32).max, as some environments write infinity."""
    huge = float(np.finfo(np.float32).max)
    kwargs = json.dumps({"low": [-huge], "high": [huge], "target": [0.5]})
    flags = {"env_id": "Dial-v0", "env_kwargs": kwargs, "total_timesteps": 64}
    if script == "sac":
        assert "tanh needs finite bounds" in refused(script, tmp_path / "run", **flags)
        return
    Dial.actions.clear()
    train(script, tmp_path / "run", **flags)
    drawn = np.abs(Dial.actions[:64])
    assert 0.1 < drawn.mean() < 2


@pytest.mark.parametrize("scale", [1e-5])
@pytest.mark.parametrize("script", [*WITH_GAE, "reinforce_baseline"])
def test_noise_is_not_explained_however_small(script, scale, tmp_path):
    """The share is of the variance of the returns, whose unit is the user's."""
    kwargs = json.dumps({"scale": scale})
    flags = {"env_id": env_id(script, "Noise-v0"), "env_kwargs": kwargs, "log_interval": 1}
    if "norm_reward" in fields(script):
        flags |= {"norm_reward": False, "norm_obs": False}
    train(script, tmp_path / "run", total_timesteps=320, gamma=0.0, **flags)
    shares = [event.value for event in scalars(tmp_path / "run")["losses/explained_variance"]]
    assert max(shares) < 0.5


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_statistics_have_the_unit_of_what_they_describe(scale):
    norm = module("ppo_continuous").RunningNorm(2)
    batch = scale * (5 + torch.randn(500, 2, generator=torch.Generator().manual_seed(0)))
    norm.update(batch)
    z = norm(batch)
    assert z.mean(0).abs().max() < 1e-3
    assert (z.std(0) - 1).abs().max() < 1e-2
    constant = module("ppo_continuous").RunningNorm(2)
    constant.update(scale * torch.full((7, 2), 0.1))
    assert constant(scale * torch.full((2,), 0.1)).abs().max() < 0.2  # only rounding


@pytest.mark.parametrize("scale", [1e-9, 1.0])
def test_advantages_are_normalised_in_any_unit(scale, tmp_path, monkeypatch):
    """What the loss of PPO gets has std 1."""
    ppo, stds = module("ppo"), []
    loss = ppo.ppo_loss

    def note(*args):
        stds.append(args[4].std().item())
        return loss(*args)

    monkeypatch.setattr(ppo, "ppo_loss", note)
    monkeypatch.setattr(
        ppo.Critic, "forward", lambda critic, obs: 0 * critic.value(obs)[..., 0]
    )
    kwargs = json.dumps({"scale": scale})
    train("ppo", tmp_path / "run", env_id="Noise-v0", env_kwargs=kwargs, total_timesteps=32)
    assert stds == pytest.approx([1.0] * len(stds), rel=1e-3)


def test_returns_are_normalised_in_any_unit():
    found = module("reinforce").normalize_returns(
        1e-9 * torch.tensor([[1.0, 3.0, 5.0]]), torch.ones(1, 3, dtype=torch.bool)
    )
    assert found.std(correction=0).item() == pytest.approx(1, rel=1e-3)


@loops
def test_finite_observations_are_not_called_otherwise(script, tmp_path):
    """Their squares overflow, they do not: whatever ends the run, it is not they."""
    kwargs = json.dumps({"shift": 1e20})
    flags = {"env_id": env_id(script, "Tape-v0"), "env_kwargs": kwargs, "total_timesteps": 64}
    if "norm_obs" in fields(script):
        flags["norm_obs"] = False
    said = ""
    try:
        train(script, tmp_path / "run", **flags)
    except FloatingPointError as end:
        said = str(end)
    assert "obs" not in said


def test_what_blows_up_is_saved_nowhere(script, tmp_path):
    """With steps of 1e15, whichever number it is that overflows, if any does."""
    flags = {"env_id": env_id(script, "Tape-v0"), "learning_rate": 1e15}
    flags |= {"max_grad_norm": float("inf")} if "max_grad_norm" in fields(script) else {}
    flags |= {"env_kwargs": '{"reward_scale": 1e10}', "checkpoint_interval": 0.0}
    with suppress(FloatingPointError):
        assert finite(train(script, tmp_path / "run", total_timesteps=640, **flags)[0])
    assert finite(checkpoint_of(tmp_path / "run") | {"args": {}})


@pytest.mark.parametrize("part", ["actor", "optimizer"])
def test_weights_that_are_not_finite_are_not_saved(script, part, tmp_path, monkeypatch):
    """Though no loss has told: they come from the last update, or are Adam's moments."""
    found, record = module(script), module(script).Run.record_iteration
    part = "policy_optimizer" if script == "sac" and part == "optimizer" else part

    def spoil(run, losses):
        if run.global_step >= 40:
            state = run.state[part].state_dict()
            state = state if part == "actor" else state["state"][0]
            name = "exp_avg_sq" if "exp_avg_sq" in state else list(state)[-1]
            state[name].view(-1)[0] = float("inf")
        record(run, losses)

    monkeypatch.setattr(found.Run, "record_iteration", spoil)
    flags = {
        "env_id": env_id(script, "Tape-v0"),
        "total_timesteps": 160,
        "checkpoint_interval": 0,
    }
    with pytest.raises(FloatingPointError, match="a weight is not finite"):
        train(script, tmp_path / "run", **flags)
    assert finite(checkpoint_of(tmp_path / "run"))
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_loss_that_is_not_finite_ends_the_run(script, value, tmp_path, monkeypatch):
    found, record = module(script), module(script).Run.record_iteration

    def spoil(run, losses):
        record(run, losses | ({"policy_loss": value} if run.global_step >= 64 else {}))

    monkeypatch.setattr(found.Run, "record_iteration", spoil)
    name = env_id(script, "Tape-v0")
    with pytest.raises(FloatingPointError, match="loss is not finite"):
        train(script, tmp_path / "run", env_id=name, total_timesteps=128)
    assert not (tmp_path / "run" / "summary.json").exists()
    assert checkpoint_of(tmp_path / "run")["counters"][0] < 64


@pytest.mark.parametrize("script", ["reinforce", "reinforce_baseline"])
def test_an_episode_without_end_is_one_line(script, tmp_path):
    """Nothing was learned: status 1, and no summary says otherwise."""
    flags = {"env_id": "envs:Endless-v0", "run_dir": tmp_path / "run", "total_timesteps": 300}
    result = run(script, cwd=tmp_path, **flags)
    assert result.returncode == 1
    assert result.stderr.startswith("error: step 29")
    assert "an episode has not ended" in result.stderr.splitlines()[0]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "summary.json").exists()


# ---- Flags from Python ----
def test_values_of_other_types_are_refused(script, tmp_path, monkeypatch):
    """As YAML gives them, or a habit from elsewhere; nothing is made."""
    monkeypatch.chdir(tmp_path)
    wrong = {
        "learning_rate": ["1e-3", None, [1e-3], True], "total_timesteps": ["100", None],
        "anneal_lr": ["false", 1, None], "norm_adv": ["no"], "env_id": [None, 3, Path("x")],
        "env_kwargs": [None, ["a"], {"length": 3}], "seed": ["1", None, True, np.zeros(3)],
        "device": [torch.device("cpu"), "tpu", None], "run_dir": [3, ["run"]], "resume": [7],
        "gamma": [np.ones(2), torch.ones(2)], "target_kl": ["0.1"], "alpha": ["auto"],
    }  # fmt: skip
    found = module(script)
    for name in wrong.keys() & fields(script):
        for value in wrong[name]:
            with pytest.raises(found.BadInput) as refusal:
                found.train(found.Args(**{name: value}))
            assert str(refusal.value).startswith(f"{name} must be "), (name, value)
            assert "<class" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@loops
def test_settings_of_the_callers_do_not_matter(script, tmp_path, settings_of_torch):
    """Gradients switched off, float64 by default: the same bits, and all given back."""
    flags = {"env_id": env_id(script, "Tape-v0"), "total_timesteps": 64}
    torch.set_grad_enabled(False)
    try:
        _, one = train(script, tmp_path / "one", **flags)
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)
    _, two = train(script, tmp_path / "two", **flags)
    assert same(one["actor"], two["actor"])


@pair
def test_two_threads_of_one_process(script, tmp_path, monkeypatch):
    """One seed, default directories: each has its own."""
    monkeypatch.chdir(tmp_path)
    found, summaries = module(script), []
    args = found.Args(env_id=env_id(script, "Tape-v0"), total_timesteps=320, **small(script))
    target = lambda: summaries.append(found.train(args))  # noqa: E731
    threads = [threading.Thread(target=target) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(summaries) == 4
    assert len(list((tmp_path / "runs").iterdir())) == 4


# ---- What is said ----
@pytest.mark.parametrize("name", ["ALE/Pong-v5", "MiniGrid-Empty-5x5-v0"])
def test_environments_of_other_packages_are_named_with_them(name, tmp_path):
    line = refused("ppo", tmp_path / "run", env_id=name)
    assert line.endswith(f"Or package:{name}?")
    assert "package:" not in refused("ppo", tmp_path / "run", env_kwargs="[")


@pytest.mark.parametrize("script", DISCRETE)
def test_the_help_shows_how_a_package_is_named(script):
    """The line of --env-id has one that every reader can try."""
    (line,) = re.findall(r"(?m)^    env_id: .*$", SOURCES[script])
    assert line.endswith(" ale_py:ALE/Pong-v5")


@pytest.mark.parametrize("script", DISCRETE)
def test_box_actions_have_scripts_of_their_own(script, tmp_path):
    line = refused(script, tmp_path / "run", env_id="Pendulum-v1")
    assert "ppo_continuous.py" in line
    assert "sac.py" in line


@pytest.mark.parametrize("script", BOX)
def test_discrete_actions_have_scripts_of_their_own(script, tmp_path):
    assert "ppo.py" in refused(script, tmp_path / "run", env_id="CartPole-v1").split()


@loops
def test_fewer_steps_than_are_done_are_refused(script, tmp_path):
    flags = {"env_id": env_id(script, "TwoStates-v0"), "total_timesteps": 640}
    train(script, tmp_path / "run", **flags)
    line = resume_refused(script, tmp_path / "run", total_timesteps=320)
    assert "640 steps" in line
    assert (tmp_path / "run" / "summary.json").exists()


def test_an_existing_directory_is_said_as_it_is(tmp_path):
    (tmp_path / "run").mkdir()
    line = refused("ppo", tmp_path / "run")
    assert line == f"{tmp_path / 'run'} exists; name another --run-dir, or --resume it"


def test_lines_tell_runs_apart(tmp_path):
    """Progress and the end carry the seed and the directory; before an episode has ended, no
    return is told."""
    flags = {"env_id": "envs:Endless-v0", "total_timesteps": 96, "run_dir": tmp_path / "run"}
    flags |= small("ppo") | {"checkpoint_interval": 0, "log_interval": 1, "seed": 7}
    result = run("ppo", "--env-kwargs", '{"length": 30}', cwd=tmp_path, **flags)
    first, *lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert all(f"seed 7, {tmp_path / 'run'}" in line for line in (first, *lines))
    assert lines[0].startswith("step 32, no episode yet, ")
    assert lines[1].startswith("step 64, return 30.0, ")
    assert lines[3].startswith("evaluation 30.0 +- 0.0")
    assert "nan" not in result.stdout


@pytest.mark.parametrize("script", ["a3c", "sac"])
def test_help_begins_with_what_the_script_is(script, tmp_path):
    result = run(script, "--help", cwd=tmp_path)
    text = " ".join(result.stdout.split())
    sentence = module(script).__doc__.splitlines()[0]
    assert 0 < text.index(sentence) < text.index("--env-id")


# ---- Checkpoints ----
def test_saving_takes_a_tenth_of_the_time_at_most(tmp_path, monkeypatch):
    """A clock that the test moves: a save takes 30 s, an iteration 40 s. Counted from the end
    of each, nine times the seconds of the save."""
    ppo, clock, saves, save = module("ppo"), [0.0], [], torch.save
    record = ppo.Run.record_iteration

    def slow(checkpoint, path):
        save(checkpoint, path)
        clock[0] += 30
        saves.append(clock[0])

    def iteration(run, losses):
        clock[0] += 40
        record(run, losses)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch, "save", slow)
    monkeypatch.setattr(ppo.Run, "record_iteration", iteration)
    train("ppo", tmp_path / "run", env_id="Tape-v0", total_timesteps=32 * 20)
    assert saves == [30, 30 + 7 * 40 + 30, 340 + 7 * 40 + 30, 650 + 6 * 40 + 30]


def test_a_checkpoint_every_interval(script, tmp_path, monkeypatch):
    """Of 10 s, where an iteration takes 4: not after each iteration from then on. The first is
    there before the first iteration, the last at the end."""
    found, clock, saves, save = module(script), [0.0], [], torch.save
    record = found.Run.record_iteration

    def iteration(run, losses):
        clock[0] += 4
        record(run, losses)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch, "save", lambda c, path: (save(c, path), saves.append(clock[0])))
    monkeypatch.setattr(found.Run, "record_iteration", iteration)
    train(script, tmp_path / "run", env_id=env_id(script, "Tape-v0"), total_timesteps=240)
    iterations = int(clock[0]) // 4
    assert iterations > 5
    assert saves == [*range(0, 4 * iterations + 1, 12), 4 * iterations]


@pytest.mark.parametrize("script", EVERY)
def test_events_are_on_disk_before_the_checkpoint_that_follows(script, tmp_path, monkeypatch):
    """Else a kill between the two would lose episodes for ever: a resume purges none. Whenever
    a checkpoint is written, all events are flushed, and the last is of its step: in control an
    episode of two steps has ended there, in a language model completions."""
    save, seen, pending = torch.save, [], []
    add, flush = SummaryWriter.add_scalar, SummaryWriter.flush

    def look(checkpoint, path):
        if "counters" in checkpoint:
            assert not pending, "the thread that writes them may be slower than this one"
            events = scalars(path.parent).get("charts/episodic_return", [])
            seen.append((events[-1].step if events else 0, checkpoint["counters"][0]))
        save(checkpoint, path)

    def note(writer, *event):
        pending.append(event)
        add(writer, *event)

    def done(writer):
        flush(writer)
        pending.clear()

    monkeypatch.setattr(torch, "save", look)
    monkeypatch.setattr(SummaryWriter, "add_scalar", note)
    monkeypatch.setattr(SummaryWriter, "flush", done)
    if script in SCRIPTS:
        flags = {"env_id": env_id(script, "TwoStates-v0"), "num_envs": 1}
        train(script, tmp_path / "run", total_timesteps=96, checkpoint_interval=0.0, **flags)
        seen = [steps for steps in seen if steps[1] % 2 == 0]
    else:
        lm_helpers.train(script, tmp_path, checkpoint_interval=0.0)
    assert len(seen) > 3
    assert all(last == step for last, step in seen)
    assert seen[-1][1] == (96 if script in SCRIPTS else 48)


def test_the_bar_of_a_resumed_run_goes_on(script, tmp_path, monkeypatch):
    """From the steps that are done to those of the whole run."""
    found, bars = module(script), []

    def shown(**kwargs):
        bars.append(tqdm(**kwargs | {"disable": False, "file": io.StringIO()}))
        return bars[-1]

    monkeypatch.setattr(found, "tqdm", shown)
    flags = {"env_id": env_id(script, "TwoStates-v0"), "total_timesteps": 640}
    train(script, tmp_path / "run", **flags)
    found.train(found.Args(resume=tmp_path / "run", total_timesteps=960))
    assert [(bar.initial, bar.total, bar.n) for bar in bars] == [(0, 640, 640), (640, 960, 960)]
