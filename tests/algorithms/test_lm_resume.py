"""What a language model's checkpoint restores, and how a resumed run continues."""

from pathlib import Path

import pytest
import torch
from helpers import Ended, changed, checkpoint_of, copied, module, same, step_of
from lm_helpers import every, some_reward, train, with_reward


@every
def test_everything_is_restored_to_the_bit(script, tmp_path, monkeypatch):
    found, restored = module(script), {}
    with_reward(found, monkeypatch, some_reward)
    train(script, tmp_path, total_timesteps=160, learning_rate=0.01)
    saved = checkpoint_of(tmp_path / "run")
    start = found.Run.start

    def note(run, state, total_steps):
        for name, part in state.items():
            known = same(copied(part.state_dict()), saved[name])
            assert known == (name == "reference")  # the base model is the checkpoint's
        start(run, state, total_steps)
        restored.update({name: copied(part.state_dict()) for name, part in state.items()})
        restored["counters"] = [run.global_step, saved["counters"][1], list(run.recent)]
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


@every
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


@every
def test_a_resumed_run_has_noise_of_its_own(script, tmp_path, monkeypatch):
    found, drawn = module(script), []
    draw = found.Task.draw
    monkeypatch.setattr(
        found.Task, "draw", lambda *args: drawn.append(draw(*args)) or drawn[-1]
    )
    train(script, tmp_path, total_timesteps=32)
    found.train(found.Args(resume=tmp_path / "run", total_timesteps=64))
    assert len({tuple(texts) for texts in drawn}) == len(drawn) >= 4


@every
def test_hyperparameters_cannot_change_on_the_way(script, tmp_path):
    """Every one of them, with the name of the flag; nor can there be fewer steps than are
    done."""
    train(script, tmp_path, seed=3, total_timesteps=32)
    found, path = module(script), tmp_path / "run"
    own = found.Args(**checkpoint_of(path)["args"] | {"run_dir": path, "resume": path})
    other = {"task": "x:y", "task_kwargs": '{"carelessness": 0.1}', "length_norm": "mean"}
    other |= {"reward": "true"}
    with pytest.raises(found.BadInput, match="has made 32 steps; total_timesteps must not be"):
        found.train(found.Args(resume=path, total_timesteps=31))
    for name, args in changed(own, other):
        with pytest.raises(found.BadInput, match=f"{name} must stay"):
            found.train(args)
    assert found.train(own)["global_step"] == 32


@every
def test_a_finished_run_can_be_evaluated_again_and_trained_on(script, tmp_path):
    train(script, tmp_path, total_timesteps=32)
    found, path = module(script), tmp_path / "run"
    before = checkpoint_of(path)
    assert found.train(found.Args(resume=path, eval_episodes=5))["eval_episodes"] == 5
    assert same(checkpoint_of(path)["policy"], before["policy"])
    assert found.train(found.Args(resume=path, total_timesteps=64))["global_step"] == 64
