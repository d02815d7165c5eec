"""The peers' script, in this process where that is enough: its library takes seconds to
import."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from harness import PATIENCE, ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmark.peers import sb3
from benchmark.runs import find_runs
from ppo_images import Atari, Breakout, Trunk


def make_model(**flags: object):
    """The library's model for these flags."""
    args = sb3.Args(**{"num_envs": 2} | flags)
    envs = sb3.DummyVecEnv([lambda: sb3.make_env(args)] * args.num_envs)
    given = sb3.library_arguments(args)
    return sb3.ALGORITHMS[args.algo](sb3.POLICIES[args.policy], envs, **given)


def test_rmsprops_values_are_passed_on():
    optimizer = make_model(algo="a2c", rms_alpha=0.9).policy.optimizer
    assert type(optimizer) is torch.optim.RMSprop
    assert (optimizer.defaults["alpha"], optimizer.defaults["eps"]) == (0.9, 1e-5)


@pytest.mark.parametrize("algorithm", ["a2c", "ppo", "trpo"])
def test_the_exploration_at_the_start_is_the_one_asked_for(algorithm):
    model = make_model(algo=algorithm, env_id="Pendulum-v1", init_std=0.5)
    assert model.policy.log_std.exp().tolist() == pytest.approx([0.5])


def test_the_clip_range_is_annealed():
    clip_range = make_model(algo="ppo", clip_coef=0.2, anneal_clip=True).clip_range
    assert [clip_range(left) for left in (1.0, 0.5, 0.0)] == [0.2, 0.1, 0.0]


def test_sacs_flags_are_passed_on():
    flags = {
        "gamma": 0.9, "tau": 0.01, "batch_size": 32, "buffer_size": 500, "learning_starts": 7,
        "gradient_steps": 3,
    }  # fmt: skip
    options = {"train_freq": 2, "learning_rate": 0.001, "env_id": "Pendulum-v1"}
    model = make_model(algo="sac", **flags, **options)
    assert {name: getattr(model, name) for name in flags} == flags
    assert model.train_freq.frequency == 2
    optimizers = [model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer]
    assert [one.param_groups[0]["lr"] for one in optimizers] == [0.001] * 3
    fixed = make_model(algo="sac", env_id="Pendulum-v1", ent_coef=0.2)
    assert fixed.ent_coef_optimizer is None
    assert fixed.ent_coef_tensor.item() == pytest.approx(0.2)


BREAKOUT = "benchmark.peers.games:MinAtar/Breakout-v1"


def test_games_and_their_arguments_are_known():
    options = {"mlp": BREAKOUT, "cnn": "MinAtar/Breakout-v1"}
    games = [sb3.make_env(sb3.Args(policy=name, env_id=options[name])) for name in options]
    assert [type(game.unwrapped) for game in games] == [Breakout, Breakout]
    assert [game.observation_space.shape for game in games] == [(400,), (10, 10, 4)]
    lake = sb3.make_env(sb3.Args(env_id="FrozenLake-v1", env_kwargs='{"map_name": "8x8"}'))
    assert lake.observation_space.shape == (64,)


def test_the_network_for_ataris_images_is_that_of_ppo_images():
    """In the library's layout, which it makes from the protocol's images."""
    args = sb3.Args(policy="cnn", env_id="ale_py:ALE/Breakout-v5")
    env = sb3.make_env(args)
    assert isinstance(env, Atari)
    model = sb3.ALGORITHMS["ppo"]("CnnPolicy", sb3.DummyVecEnv([lambda: env]), n_steps=2,
                                  batch_size=2, **sb3.library_arguments(args))  # fmt: skip
    ours, theirs = Trunk(env.observation_space), model.policy.features_extractor
    layers = [[x for x in net.layers if list(x.parameters())] for net in (theirs, ours)]
    for layer, other in zip(*layers, strict=True):
        layer.load_state_dict(other.state_dict())
    seen = torch.as_tensor(model.env.reset())  # (1, 4, 84, 84)
    assert seen.shape == (1, 4, 84, 84)
    turned = seen.permute(0, 2, 3, 1)
    torch.testing.assert_close(model.policy.extract_features(seen.float()), ours(turned))


def test_the_network_for_images_is_that_of_ppo_images():
    """The same weights give the same features, and nothing but two linear layers follows."""
    large = Box(0, 255, (84, 84, 4), np.uint8)
    for space, turned in [(Breakout.observation_space, None), (large, (2, 0, 1))]:
        ours, images = Trunk(space), torch.as_tensor(np.array([space.sample(), space.sample()]))
        if turned:
            theirs = sb3.Trunk(Box(0, 255, (4, 84, 84), np.uint8))
            seen = images.permute(0, 3, 1, 2) / 255
        else:
            policy = make_model(policy="cnn", env_id=BREAKOUT).policy
            theirs, seen = policy.features_extractor, images.float()
            assert (len(policy.mlp_extractor.policy_net), policy.share_features_extractor) == (
                0,
                1,
            )
        layers = [x for x in theirs.layers if list(x.parameters())]
        for layer, other in zip(
            layers, [x for x in ours.layers if list(x.parameters())], strict=True
        ):
            layer.load_state_dict(other.state_dict())
        torch.testing.assert_close(theirs(seen), ours(images))


@pytest.mark.parametrize(
    ("algorithm", "env_id", "flags", "steps", "logged"),
    [
        # after the first batch of 4 * 64 steps, then every 500 or more, then at the end
        ("a2c", "CartPole-v1", {"num_steps": 64}, 1024, [256, 768, 1024]),
        ("ppo", "CartPole-v1", {"num_steps": 64}, 1024, [256, 768, 1024]),
        ("trpo", "Pendulum-v1", {"num_steps": 64}, 1024, [256, 768, 1024]),
        ("a2c", "FrozenLake-v1", {"num_steps": 64}, 1024, [256, 768, 1024]),
        # batches of 4 * 2 steps; nothing is learned before 960, so there is no loss to log
        ("sac", "Pendulum-v1", {"learning_starts": 960, "train_freq": 2}, 1096, [1016, 1096]),
    ],
)
def test_the_contract_is_kept(tmp_path, algorithm, env_id, flags, steps, logged):
    args = sb3.Args(algo=algorithm, env_id=env_id, total_timesteps=1103, **flags)
    args.eval_episodes, args.seed, args.run_dir = 2, 3, tmp_path / "run"
    sb3.train(args)
    ((run,), problems) = find_runs(tmp_path)
    assert problems == []
    assert (run.status, run.env_id, run.seed) == ("done", env_id, 3)
    assert run.summary["global_step"] == steps
    assert len(run.points["steps"][1]) == run.summary["train_episodes"] > 0
    recent = run.points["steps"][1][-100:].mean()
    assert run.summary["train_return_mean"] == pytest.approx(recent, rel=1e-4)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0})
    events.Reload()
    tags = {"episodic_return", "episodic_length", "SPS"}
    tags = {f"charts/{tag}" for tag in tags} | {"eval/episodic_return", "losses/policy_loss"}
    assert tags <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("losses/value_loss")] == logged


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"algo": "a2c", "clip_coef": 0.2}, "--clip-coef has no effect on a2c; leave it out"),
        ({"algo": "sac", "num_steps": 8}, "--num-steps has no effect on sac; leave it out"),
        ({"algo": "sac", "init_std": 1.0}, "--init-std has no effect on sac; leave it out"),
        ({"algo": "ppo", "tau": 0.1}, "--tau has no effect on ppo; leave it out"),
        ({"algo": "a2c", "anneal_clip": True}, "--anneal-clip has no effect on a2c;"),
        ({"algo": "trpo", "anneal_clip": True}, "--anneal-clip has no effect on trpo;"),
        ({"algo": "ppo", "anneal_clip": True}, "--anneal-clip needs --clip-coef"),
        ({"init_std": 0}, "--init-std must be a positive number, not 0"),
        ({"total_timesteps": 8}, "--total-timesteps 8 is less than one batch of 8192 steps"),
        ({"algo": "sac", "env_id": "CartPole-v1"}, "sac refuses: "),
        ({"algo": "sac", "policy": "cnn"}, "--policy cnn has no effect on sac; leave it out"),
        ({"env_kwargs": '{"x": 1}'}, 'CartPole-v1 with {"x": 1} cannot be made: '),
        ({"policy": "cnn"}, "CartPole-v1 has observations (4,), not images"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags, says, capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_info:
        sb3.train(sb3.Args(**flags, run_dir=tmp_path / "run"))
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert error.startswith(f"error: {says}")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_program_refuses_an_unknown_environment():
    result = subprocess.run(
        [sys.executable, "benchmark/peers/sb3.py", "--env-id", "CartPol-v1"],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert result.returncode == 2
    assert re.fullmatch("error: CartPol-v1 with {} cannot be made.*\n", result.stderr)
