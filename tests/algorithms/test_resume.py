"""What a checkpoint restores, and how a resumed run continues."""

import json
import random

import numpy as np
import pytest
import torch
from helpers import (
    GAUSSIAN,
    PIXELS,
    ROOT,
    Ended,
    benchmark_env,
    checkpoint_of,
    copied,
    env_id,
    loops,
    module,
    pair,
    run,
    same,
    scalars,
    small,
    summary_of,
    train,
)
from torch import nn


def test_everything_is_restored_to_the_bit(script, tmp_path, monkeypatch):
    """Networks with their statistics, optimisers with their moments, counters and the last
    hundred returns, as they were when the checkpoint was written."""
    run_dir, found = tmp_path / "run", module(script)
    summary, saved = train(
        script, run_dir, env_id=env_id(script, "Tape-v0"), total_timesteps=960, log_interval=77
    )
    restored = {}
    start = found.Run.start

    def note(run, state, total_steps):
        for name, part in state.items():
            restored[f"{name} before"] = copied(part.state_dict())
        start(run, state, total_steps)
        restored.update({name: copied(part.state_dict()) for name, part in state.items()})
        recent = list(run.recent)
        restored["counters"] = [run.global_step, run.episodes, run.seconds, recent]
        restored["args"] = run.args
        raise Ended

    monkeypatch.setattr(found.Run, "start", note)
    with pytest.raises(Ended):
        found.train(found.Args(resume=run_dir, total_timesteps=1920))
    names = set(saved) - {"about", "args", "counters"}
    expected = {"actor", "optimizer"}
    if script != "reinforce":
        expected.add("critic")
    if script == "reinforce_baseline":
        expected.add("critic_optimizer")
    if script in PIXELS:
        expected.add("trunk")
    if script in GAUSSIAN:
        expected.add("reward_norm")
    if script == "sac":
        expected |= {"target", "temperature", "buffer"}
        expected |= {"policy_optimizer", "critic_optimizer"}
        expected -= {"optimizer"}
    assert names == expected
    for name in names:
        assert same(restored[name], saved[name])
        assert not same(restored[f"{name} before"], saved[name])
    for name in names & {"optimizer", "critic_optimizer", "policy_optimizer"}:
        for moments in saved[name]["state"].values():
            moment = moments["square_avg" if script in ("a2c", "a3c") else "exp_avg_sq"]
            assert moment.count_nonzero() > len(moment.flatten()) / 2
            assert moments["step"] > 3
    for k in (0, 1, 3):
        assert same(restored["counters"][k], saved["counters"][k])
    assert 0 <= restored["counters"][2] - saved["counters"][2] < 5  # the clock goes on
    assert saved["counters"][0] == summary["global_step"]
    assert saved["counters"][1] == summary["train_episodes"] > 100
    assert saved["counters"][2] > 0
    assert len(saved["counters"][3]) == 100
    events = [event.value for event in scalars(run_dir)["charts/episodic_return"]]
    assert saved["counters"][3] == pytest.approx(events[-100:], abs=1e-5)
    assert restored["args"].log_interval == 77
    assert restored["args"].total_timesteps == 1920


def test_given_the_same_noise_a_resumed_run_continues_to_the_bit(script, tmp_path, monkeypatch):
    """Where every segment begins with fresh episodes, nothing but the noise is lost: set to
    what it was, the rest of an interrupted run is the rest of one that was not. SAC has learned
    from its buffer by then. A step of TRPO leaves the actor's weights side by side in memory,
    on which the last bits of a matrix product can depend, so here they are put there."""
    found, name, noise = module(script), env_id(script, "TwoStates-v0"), []
    record, interrupted_at = found.Run.record_iteration, 20 if script == "sac" else 2
    flags = {"env_id": name, "total_timesteps": 160}

    with monkeypatch.context() as patch:

        def note_noise(run, losses):
            record(run, losses)
            noise.append(torch.get_rng_state())

        patch.setattr(found.Run, "record_iteration", note_noise)
        _, whole = train(script, tmp_path / "whole", **flags)

    with monkeypatch.context() as patch:
        calls = []

        def interrupt(run, losses):
            calls.append(1)
            record(run, losses)
            if len(calls) == interrupted_at:
                run.save()
                raise KeyboardInterrupt

        patch.setattr(found.Run, "record_iteration", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(script, tmp_path / "run", **flags)

    def same_noise(_):
        torch.set_rng_state(noise[interrupted_at - 1])

    start = found.Run.start

    def side_by_side(run, state, total_steps):
        start(run, state, total_steps)
        if "trpo" in script:
            weights = list(state["actor"].parameters())
            vector = nn.utils.parameters_to_vector(weights).detach()
            nn.utils.vector_to_parameters(vector, weights)

    monkeypatch.setattr(found.Run, "start", side_by_side)
    monkeypatch.setattr(torch, "manual_seed", same_noise)
    assert 0 < checkpoint_of(tmp_path / "run")["counters"][0] < 160
    found.train(found.Args(resume=tmp_path / "run"))
    resumed = checkpoint_of(tmp_path / "run")
    for key in set(whole) - {"about", "args", "counters"}:
        assert same(resumed[key], whole[key])
    for k in (0, 1, 3):
        assert same(resumed["counters"][k], whole["counters"][k])


def test_a_resumed_run_has_noise_and_episodes_of_its_own(script, tmp_path, monkeypatch):
    """It replays neither its beginning nor an earlier resume: not the random numbers, whichever
    generator draws them, nor the resets' seeds."""
    found, name, drawn, firsts = module(script), env_id(script, "Tape-v0"), [], []
    owner, function = (
        (found.Actor, "sample") if script != "sac" else (found.ReplayBuffer, "add")
    )
    usual = getattr(owner, function)

    def note(self, obs, *rest):
        numpy_state = np.random.get_state()[1]  # noqa: NPY002
        states = torch.as_tensor(obs), torch.get_rng_state(), numpy_state
        drawn.append((*(str(state.tolist()) for state in states), random.getstate()))
        return usual(self, obs, *rest)

    monkeypatch.setattr(owner, function, note)
    train(script, tmp_path / "run", env_id=name, total_timesteps=128)
    firsts.append(drawn[0])
    for total in (256, 384):
        drawn.clear()
        found.train(found.Args(resume=tmp_path / "run", total_timesteps=total))
        firsts.append(drawn[0])
    for states in zip(*firsts, strict=True):
        assert len(set(states)) == 3


@loops
def test_an_episode_at_the_checkpointed_step_is_kept_and_later_ones_are_disowned(
    script, tmp_path, monkeypatch
):
    """Episodes of 16 steps end with every segment of two environments. Saved after 64 steps,
    killed after 128, resumed: TensorBoard must show each of ten episodes once."""
    found, run_dir, calls = module(script), tmp_path / "run", []
    record = found.Run.record_iteration

    def kill(run, losses):
        record(run, losses)
        calls.append(run.global_step)
        if run.global_step == 64:
            run.save()
        if run.global_step == 128:
            raise Ended

    with monkeypatch.context() as patch:
        patch.setattr(found.Run, "record_iteration", kill)
        kwargs = '{"length": 16}'
        flags = {"env_kwargs": kwargs, "total_timesteps": 160, "checkpoint_interval": 1e9}
        with pytest.raises(Ended):
            train(script, run_dir, env_id=env_id(script, "TwoStates-v0"), **flags)
    assert {64, 96, 128} <= set(calls)
    assert checkpoint_of(run_dir)["counters"][0] == 64
    before = [event.step for event in scalars(run_dir)["charts/episodic_return"]]
    ends = [32, 32, 64, 64, 96, 96, 128, 128, 160, 160]
    if script == "a3c":  # one worker
        ends = list(range(16, 176, 16))
    assert before == ends[:8]
    summary = found.train(found.Args(resume=run_dir))
    for tag in ("charts/episodic_return", "charts/episodic_length"):
        steps = [event.step for event in scalars(run_dir)[tag]]
        assert steps == ends
    assert summary["train_episodes"] == 10


@pair
def test_an_unfinished_continuation_has_no_summary(script, tmp_path, monkeypatch):
    """Trained on and stopped before the end, a finished run must not pass for a success."""
    run_dir, found = tmp_path / "run", module(script)
    train(script, run_dir, env_id=benchmark_env(script), total_timesteps=64)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(found.Run, "record_step", stop)
    with pytest.raises(KeyboardInterrupt):
        found.train(found.Args(resume=run_dir, total_timesteps=640))
    assert not (run_dir / "summary.json").exists()


@loops
def test_a_finished_run_can_be_evaluated_again_and_trained_on(script, tmp_path):
    run_dir, found = tmp_path / "run", module(script)
    name = env_id(script, "TwoStates-v0")
    train(script, run_dir, env_id=name, total_timesteps=640)
    first, weights = summary_of(run_dir), checkpoint_of(run_dir)["actor"]
    found.train(found.Args(resume=run_dir, eval_episodes=5))
    assert summary_of(run_dir)["eval_episodes"] == 5
    assert summary_of(run_dir)["global_step"] == first["global_step"] == 640
    assert same(checkpoint_of(run_dir)["actor"], weights)
    found.train(found.Args(resume=run_dir, total_timesteps=1280))
    assert summary_of(run_dir)["global_step"] == 1280
    assert summary_of(run_dir)["train_episodes"] == 640
    assert len(scalars(run_dir)["charts/episodic_return"]) == 640


@pair
def test_a_changed_script_is_recorded_beside_the_old_record(script, tmp_path, monkeypatch):
    run_dir, found = tmp_path / "run", module(script)
    train(script, run_dir, env_id=env_id(script, "Tape-v0"), total_timesteps=64)
    old = (run_dir / "args.json").read_bytes()
    found.train(found.Args(resume=run_dir))
    monkeypatch.setitem(found.ABOUT, "script_sha256", "0" * 64)
    monkeypatch.setitem(found.ABOUT, "versions", found.VERSIONS | {"torch": "1.0"})
    found.train(found.Args(resume=run_dir, total_timesteps=128))
    assert (run_dir / "args.json").read_bytes() == old
    first, second = (json.loads(p.read_text()) for p in sorted(run_dir.glob("args-*.json")))
    assert first["script_sha256"] == found.SHA256
    assert second["script_sha256"] == "0" * 64
    assert second["versions"]["torch"] == "1.0"
    assert (first["total_timesteps"], second["total_timesteps"]) == (64, 128)


def test_the_record_of_a_run_tells_a_changed_script_from_the_one_that_began(tmp_path):
    """An edit of the file itself, as a program."""
    script = tmp_path / "mine.py"
    script.write_text((ROOT / "ppo.py").read_text())
    flags = {"env_id": "CartPole-v1", "run_dir": tmp_path / "run"} | small("ppo")
    assert run(script, cwd=tmp_path, total_timesteps=64, **flags).returncode == 0
    script.write_text(script.read_text() + "# an edit\n")
    result = run(script, cwd=tmp_path, resume=tmp_path / "run", total_timesteps=128)
    assert result.returncode == 0, result.stderr
    old, new = (
        json.loads(p.read_text()) for p in sorted((tmp_path / "run").glob("args*.json"))
    )
    assert "script_sha256" in old
    assert old["script_sha256"] != new["script_sha256"]
    assert old["versions"] == new["versions"]


def test_the_checkpoint_may_be_named_and_given_flags_win_even_at_their_defaults(tmp_path):
    """--log-interval 500 is the default; the run has 100, and so has a resume that does not
    name it."""
    run_dir = tmp_path / "run"
    flags = small("ppo") | {"env_id": "CartPole-v1", "run_dir": run_dir, "log_interval": 100}
    assert run("ppo", cwd=tmp_path, total_timesteps=64, **flags).returncode == 0
    path = run_dir / "checkpoint.pt"
    for words, expected in (([], 100), (["--log-interval", "500"], 500)):
        before = set(run_dir.glob("args-*.json"))
        result = run("ppo", *words, cwd=tmp_path, resume=path, total_timesteps=128)
        assert result.returncode == 0, result.stderr
        (record,) = set(run_dir.glob("args-*.json")) - before
        found = json.loads(record.read_text())
        assert found["log_interval"] == expected
        assert found["total_timesteps"] == 128
        assert found["num_envs"] == 2
    assert not (path / "checkpoint.pt").exists()
    result = run("ppo", "--gamma", "0.99", "--seed", "2", cwd=tmp_path, resume=run_dir)
    assert result.returncode == 2
    assert "seed must stay 1" in result.stderr


def test_seconds_add_up_and_speed_is_of_all_of_them(tmp_path):
    run_dir, found = tmp_path / "run", module("ppo")
    train("ppo", run_dir, env_id="CartPole-v1", total_timesteps=640)
    first = checkpoint_of(run_dir)["counters"][2]
    found.train(found.Args(resume=run_dir, total_timesteps=1280))
    summary = summary_of(run_dir)
    assert summary["wall_seconds"] > first > 0
    assert summary["sps"] == pytest.approx(1280 / summary["wall_seconds"])
    assert np.isfinite(summary["sps"])
