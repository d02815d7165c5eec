"""What only ppo_images.py has: convolutions, images as they come, its game, Atari's protocol,
clipped rewards, and an update through one trunk."""

import importlib
import json
import math
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from envs import Tape
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env
from helpers import Recorder, gae_by_definition, scalars, train, transitions
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from test_errors import refused
from torch import nn

import ppo_images
from ppo_images import Actor, Args, Breakout, Critic, Trunk, layout, make_env

NUM_ENVS, NUM_STEPS, GAMMA, GAE_LAMBDA = 3, 16, 0.9, 0.8
SEGMENT = {"num_envs": NUM_ENVS, "num_steps": NUM_STEPS, "gamma": GAMMA}
SEGMENT |= {"gae_lambda": GAE_LAMBDA, "anneal_lr": False, "eval_episodes": 1}


# ---- Networks ----
@pytest.mark.parametrize(
    ("shape", "channels_last", "channels", "height", "width"),
    [
        ((10, 10, 4), True, 4, 10, 10),
        ((10, 10, 10), True, 10, 10, 10),
        ((7, 7, 20), True, 20, 7, 7),
        ((20, 7, 7), False, 20, 7, 7),
        ((4, 84, 84), False, 4, 84, 84),
        ((210, 160, 3), True, 3, 210, 160),
        ((3, 210, 160), False, 3, 210, 160),
        ((1, 48, 64), False, 1, 48, 64),
    ],
)
def test_where_the_channels_are(shape, channels_last, channels, height, width):
    assert layout(shape) == (channels_last, channels, height, width)


def convolve(images: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int):
    """(batch, channels, height, width), pixel by pixel."""
    k = weight.shape[2]
    rows, columns = ((n - k) // stride + 1 for n in images.shape[2:])
    out = np.zeros((len(images), len(weight), rows, columns))
    for i in range(rows):
        for j in range(columns):
            patch = images[:, :, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, :, i, j] = np.einsum("bchw,ochw->bo", patch, weight) + bias
    return out


def forward(state: dict, images: np.ndarray, scale: float, channels_last: bool) -> np.ndarray:
    """The trunk's features in double precision, from its state_dict."""
    x = images.astype(np.float64) / scale
    x = x.transpose(0, 3, 1, 2) if channels_last else x
    weights = [value.double().numpy() for value in state.values()]
    strides = [1] if len(weights) == 4 else [4, 2, 1]
    for k, stride in enumerate(strides):
        x = convolve(x, *weights[2 * k : 2 * k + 2], stride).clip(0)
    return (x.reshape(len(x), -1) @ weights[-2].T + weights[-1]).clip(0)


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32])
@pytest.mark.parametrize("shape", [(10, 10, 4), (5, 9, 8), (36, 40, 2), (3, 40, 36)])
def test_the_trunk_is_these_convolutions(shape, dtype):
    torch.manual_seed(0)
    high = 255 if dtype is np.uint8 else 1
    trunk = Trunk(Box(0, high, shape, dtype))
    with torch.no_grad():
        for p in trunk.parameters():
            p.add_(0.05 * torch.randn_like(p))
    images = np.random.default_rng(0).random((2, *shape)) * (high + 0.99)
    images = (images > 1 if dtype is bool else images).astype(dtype)
    channels_last = shape[2] < shape[0]
    expected = forward(trunk.state_dict(), images, high, channels_last)
    with torch.no_grad():
        seen = trunk(torch.as_tensor(images))
        one = trunk(torch.as_tensor(images[0].astype(np.float32)))  # as evaluate() gives it
    assert trunk.num_features == expected.shape[1] == (512 if 36 in shape else 128)
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one, expected[0], rtol=1e-4, atol=1e-5)
    assert (expected > 0.01).mean() > 0.1


def test_what_has_no_bounds_is_not_scaled():
    for high in (np.inf, 0):
        assert Trunk(Box(-1 if high else -2, high, (5, 5, 1), np.float32)).scale == 1
    assert Trunk(Box(0, 20, (5, 5, 1), np.float32)).scale == 1 / 20


@pytest.mark.parametrize(("shape", "layers"), [((10, 10, 4), 2), ((84, 84, 4), 4)])
def test_fresh_networks_are_orthogonal(shape, layers):
    """W W^T or W^T W is gain^2 times the identity: gain sqrt(2) in the trunk, 0.01 in the
    policy's layer and 1 in the critic's. No biases."""
    trunk = Trunk(Box(0, 255, shape, np.uint8))
    found = [layer for layer in trunk.layers if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(found) == layers
    gains = [math.sqrt(2)] * layers + [0.01, 1.0]
    found += [Actor(trunk.num_features, 3).logits, Critic(trunk.num_features).value]
    for layer, gain in zip(found, gains, strict=True):
        w = layer.weight.detach().double().flatten(1)
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        expected = gain**2 * torch.eye(len(gram), dtype=torch.float64)
        torch.testing.assert_close(gram, expected, rtol=1e-5, atol=2e-6 * gain**2)
        assert not layer.bias.any()


def test_an_edit_of_the_network_reaches_the_training(tmp_path, monkeypatch):
    usual = ppo_images.convolutions
    _, before = train("ppo_images", tmp_path / "usual", total_timesteps=64)

    def edited(channels, height, width):
        net = usual(channels, height, width)
        net[1] = nn.Tanh()
        return net

    monkeypatch.setattr(ppo_images, "convolutions", edited)
    _, after = train("ppo_images", tmp_path / "other", total_timesteps=64)
    key = "layers.0.weight"
    assert not torch.equal(before["trunk"][key], after["trunk"][key])


# ---- Images as they come ----
@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32"])
@pytest.mark.parametrize("shape", [(10, 10, 2), (3, 36, 40)])
def test_images_are_stored_as_they_come(dtype, shape, tmp_path, monkeypatch, capsys):
    """What the trunk is given, when acting and when learning, is to the bit what the
    environment showed, in the environment's own type."""
    seen, forward = [], Trunk.forward
    monkeypatch.setattr(
        Trunk, "forward", lambda trunk, obs: (seen.append(obs.clone()), forward(trunk, obs))[1]
    )
    Tape.episodes.clear()
    kwargs = json.dumps({"shape": shape, "dtype": dtype})
    flags = {"total_timesteps": 48, "num_minibatches": 1, "update_epochs": 1} | SEGMENT
    flags |= {"env_id": "Camera-v0", "env_kwargs": kwargs}
    train("ppo_images", tmp_path / "run", **flags)
    tapes = transitions(NUM_ENVS, NUM_STEPS)
    obs = np.array([[step[0] for step in tape] for tape in tapes]).swapaxes(0, 1)
    learning = [x for x in seen if len(x) == NUM_ENVS * NUM_STEPS]
    acting = [x for x in seen if x.ndim == 4 and len(x) == NUM_ENVS]
    assert len(learning) == 1
    assert {str(x.dtype) for x in (*learning, *acting)} == {f"torch.{dtype}"}
    rows = {row.tobytes() for row in obs.reshape(-1, *shape)}
    assert {row.numpy().tobytes() for row in learning[0]} == rows
    assert len(rows) == NUM_ENVS * NUM_STEPS
    order = "last" if shape[2] == 2 else "first"
    size = "10 x 10, 2" if shape[2] == 2 else "36 x 40, 3"
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"images {size} channels ({order}), {dtype}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CartPole-v1", "(4,), not images (height, width, channels)"),
        ("Matrix-v0", "ppo_continuous.py"),
        ("Tape-v0", "FrameStackObservation"),
        ("DictObs-v0", "Dict, not images"),
        ("TapeBox-v0", "sac.py"),
        ("ALE/Pong-v5", "Or ale_py:ALE/Pong-v5?"),
    ],
)
def test_other_observations_are_refused_in_one_line(name, said, tmp_path):
    assert said in refused("ppo_images", tmp_path / "run", env_id=name)


def test_tiny_images_are_refused(tmp_path):
    flags = {"env_id": "Camera-v0", "env_kwargs": json.dumps({"shape": (2, 9, 9)})}
    make_env(Args(**flags))
    flags["env_kwargs"] = json.dumps({"shape": (2, 9, 1)})
    assert "under 3 x 3" in refused("ppo_images", tmp_path / "run", **flags)


# ---- An iteration ----
def large_outputs(monkeypatch):
    """Outputs of the usual start are so small that few mistakes would show in them."""
    orthogonal = ppo_images.orthogonal
    monkeypatch.setattr(ppo_images, "orthogonal", lambda layer, gain: orthogonal(layer, 1.0))


@pytest.mark.parametrize("reward_clip", [0.3, math.inf])
@pytest.mark.parametrize("shape", [(5, 5, 3), (2, 36, 36)])
def test_two_iterations_recomputed_in_double_precision(
    shape, reward_clip, tmp_path, monkeypatch
):
    """Networks, densities, advantages, losses and steps are written out here, from what the
    environments saw, with ends of both kinds. Rewards are learned from clipped, and logged in
    full."""
    large_outputs(monkeypatch)
    sgd = torch.optim.SGD  # a step of plain gradient descent shows its gradient
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, lr, **_: sgd(parameters, lr))
    recorder, iterations, rate, clip = Recorder(), 2, 0.05, 0.1
    recorder.watch(ppo_images, monkeypatch)
    Tape.episodes.clear()
    flags = SEGMENT | {"env_id": "Camera-v0", "env_kwargs": json.dumps({"shape": shape})}
    flags |= {"total_timesteps": iterations * NUM_ENVS * NUM_STEPS, "learning_rate": rate}
    flags |= {"num_minibatches": 2, "update_epochs": 2, "max_grad_norm": 0.4, "ent_coef": 0.03}
    flags |= {"vf_coef": 0.3, "clip_coef": clip, "reward_clip": reward_clip, "log_interval": 1}
    train("ppo_images", tmp_path / "run", **flags)
    tapes = transitions(NUM_ENVS, iterations * NUM_STEPS)
    columns = zip(*(zip(*tape, strict=True) for tape in tapes), strict=True)
    arrays = [np.array(column).swapaxes(0, 1) for column in columns]
    assert arrays[4].sum() > 3
    assert (arrays[5] & ~arrays[4]).sum() > 3
    orders = iter(recorder.orders)
    for k in range(iterations):
        segment = (x[k * NUM_STEPS : (k + 1) * NUM_STEPS] for x in arrays)
        obs, actions, rewards, next_obs, terminated, truncated = segment
        space = Box(0, 255, shape, np.uint8)
        trunk = Trunk(space).double()  # its convolutions: test_the_trunk_is_these_convolutions
        actor, critic = Actor(trunk.num_features, 3).double(), Critic(trunk.num_features)
        critic = critic.double()
        parts = {"trunk": trunk, "actor": actor, "critic": critic}
        for name, part in parts.items():
            part.load_state_dict(recorder.states[k][name])
        parameters = [p for part in parts.values() for p in part.parameters()]

        def features(images, trunk=trunk):
            x = torch.as_tensor(images.reshape(-1, *images.shape[-3:]).astype(np.float64))
            x = x / 255
            return trunk.layers(x.movedim(-1, 1) if images.shape[-1] == 3 else x)

        with torch.no_grad():
            value = lambda x: critic.value(features(x)).numpy().reshape(rewards.shape)  # noqa: E731, B023
            values, next_values = value(obs), value(next_obs)
            log_pi = actor.logits(features(obs)).log_softmax(-1)
            b_actions = torch.as_tensor(actions.reshape(-1))
            old = log_pi.gather(1, b_actions[:, None])[:, 0]
        clipped = np.clip(rewards, -reward_clip, reward_clip)
        assert (clipped != rewards).any() == (reward_clip < 1)
        advantages = gae_by_definition(
            clipped, values, next_values, terminated, truncated, GAMMA, GAE_LAMBDA
        )
        returns = torch.as_tensor((advantages + values).reshape(-1))
        advantages = torch.as_tensor(advantages.reshape(-1))
        for _ in range(2):
            order = next(orders)
            for indices in order.split(len(order) // 2):
                x = features(obs.reshape(-1, *shape)[indices.numpy()])
                log_pi = actor.logits(x).log_softmax(-1)
                ratio = (log_pi.gather(1, b_actions[indices, None])[:, 0] - old[indices]).exp()
                a = advantages[indices]
                a = (a - a.mean()) / a.std()
                gain = torch.where(
                    a > 0, ratio.clamp(max=1 + clip) * a, ratio.clamp(min=1 - clip) * a
                )
                entropy = -(log_pi.exp() * log_pi).sum(-1).mean()
                error = (critic.value(x)[:, 0] - returns[indices]).square().mean()
                loss = -gain.mean() + 0.3 * error - 0.03 * entropy
                gradients = torch.autograd.grad(loss, parameters)
                norm = torch.cat([g.flatten() for g in gradients]).norm()
                with torch.no_grad():
                    for p, g in zip(parameters, gradients, strict=True):
                        p -= rate * min(1, 0.4 / norm) * g
        for name, part in parts.items():
            for key, expected in part.state_dict().items():
                start = recorder.states[k][name][key].double()
                moved = (expected - start).abs().max().item()
                assert moved > 1e-5, f"{name} {key} did not move"
                torch.testing.assert_close(
                    recorder.states[k + 1][name][key].double() - start, expected - start,
                    rtol=1e-3, atol=2e-3 * moved,
                )  # fmt: skip
    full = [sum(step[2] for step in e) for e in Tape.episodes if e and (e[-1][4] or e[-1][5])]
    logged = [event.value for event in scalars(tmp_path / "run")["charts/episodic_return"]]
    assert len(logged) > 6
    assert all(np.isclose(value, full, rtol=0, atol=1e-5).any() for value in logged)


def test_the_evaluation_counts_rewards_in_full(tmp_path):
    """Five steps of reward 1, 0, 1, 0, 1, where learning sees 0.1."""
    flags = {"env_id": "TwoStatesPixels-v0", "env_kwargs": '{"length": 5}', "reward_clip": 0.1}
    summary, _ = train("ppo_images", tmp_path / "run", total_timesteps=64, **flags)
    assert summary["eval_return_mean"] == summary["train_return_mean"] == 3.0


# ---- Stable-Baselines3 ----
def library(space_shape, **settings) -> PPO:
    """Their PPO with a CnnPolicy, on the same environment."""
    env = partial(gym.make, "Camera-v0", shape=space_shape)
    settings = {
        "n_steps": NUM_STEPS,
        "batch_size": NUM_ENVS * NUM_STEPS,
        "n_epochs": 3,
    } | settings
    model = PPO(
        "CnnPolicy", DummyVecEnv([env] * NUM_ENVS), gamma=GAMMA, gae_lambda=GAE_LAMBDA,
        learning_rate=1e-3, device="cpu", **settings,
    )  # fmt: skip
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def under_their_names(state: dict) -> dict:
    """Our networks as the state of their CnnPolicy."""
    pairs = {"features_extractor.cnn.0": "layers.0", "features_extractor.cnn.2": "layers.2"}
    pairs |= {"features_extractor.cnn.4": "layers.4", "features_extractor.linear.0": "layers.7"}
    theirs = {}
    for kind in ("weight", "bias"):
        for their, our in pairs.items():
            for prefix in ("", "pi_", "vf_"):  # one network under three names
                theirs[f"{prefix}{their}.{kind}"] = state["trunk"][f"{our}.{kind}"]
        theirs[f"action_net.{kind}"] = state["actor"][f"logits.{kind}"]
        theirs[f"value_net.{kind}"] = state["critic"][f"value.{kind}"]
    return theirs


def test_stable_baselines3s_cnn_policy_is_the_same(tmp_path, monkeypatch):
    """The same weights give the same logits and values, and three epochs of one minibatch the
    same weights."""
    large_outputs(monkeypatch)
    shape, recorder = (3, 36, 36), Recorder()
    recorder.watch(ppo_images, monkeypatch)
    Tape.episodes.clear()
    flags = SEGMENT | {"env_id": "Camera-v0", "env_kwargs": json.dumps({"shape": shape})}
    flags |= {"total_timesteps": NUM_ENVS * NUM_STEPS, "num_minibatches": 1}
    flags |= {"update_epochs": 3, "learning_rate": 1e-3, "reward_clip": math.inf}
    flags |= {"ent_coef": 0.02, "vf_coef": 0.4}
    train("ppo_images", tmp_path / "run", **flags)
    tapes = transitions(NUM_ENVS, NUM_STEPS)
    model = library(shape, ent_coef=0.02, vf_coef=0.4)
    before, after = recorder.states[0], recorder.states[-1]
    model.policy.load_state_dict(under_their_names(before), strict=True)

    trunk, actor, critic = Trunk(Box(0, 255, shape, np.uint8)), Actor(512, 3), Critic(512)
    for name, part in {"trunk": trunk, "actor": actor, "critic": critic}.items():
        part.load_state_dict(before[name])
    images = torch.as_tensor(np.array([step[0] for step in tapes[0]]))
    with torch.no_grad():
        logits = model.policy.get_distribution(images).distribution.logits
        torch.testing.assert_close(actor(trunk(images)).logits, logits, rtol=1e-4, atol=1e-5)
        values = model.policy.predict_values(images)[:, 0]
        torch.testing.assert_close(critic(trunk(images)), values, rtol=1e-4, atol=1e-5)

    buffer, starts = model.rollout_buffer, np.ones(NUM_ENVS)
    buffer.reset()
    with torch.no_grad():
        for t in range(NUM_STEPS):
            steps = zip(*(tape[t] for tape in tapes), strict=True)
            obs, actions, rewards, next_obs, terminated, truncated = map(np.array, steps)
            evaluated = model.policy.evaluate_actions(*map(torch.as_tensor, (obs, actions)))
            next_values = model.policy.predict_values(torch.as_tensor(next_obs))[:, 0].numpy()
            rewards = rewards + GAMMA * next_values * (truncated & ~terminated)
            values, log_probs, _ = evaluated
            buffer.add(obs, actions[:, None], rewards, starts, values[:, 0], log_probs)
            starts = terminated | truncated
    buffer.compute_returns_and_advantage(torch.as_tensor(next_values), starts)
    model.train()
    theirs, ours = model.policy.state_dict(), under_their_names(after)
    start = under_their_names(before)
    for key, value in ours.items():
        moved = (theirs[key] - start[key]).abs().max().item()
        assert moved > 1e-5
        torch.testing.assert_close(
            value - start[key], theirs[key] - start[key], rtol=1e-2, atol=1e-2 * moved
        )


def test_an_agent_is_loaded_and_exported(tmp_path, monkeypatch):
    """It acts on an image as trunk and actor of the run do."""
    large_outputs(monkeypatch)
    _, checkpoint = train("ppo_images", tmp_path / "run", total_timesteps=64)
    env, policy = importlib.import_module("examples.watch").load(tmp_path / "run")
    importlib.import_module("examples.export").main(tmp_path / "run")
    exported = torch.jit.load(tmp_path / "run" / "policy.pt")
    trunk, actor = Trunk(env.observation_space), Actor(128, 3)
    trunk.load_state_dict(checkpoint["trunk"])
    actor.load_state_dict(checkpoint["actor"])
    obs, actions = env.reset(seed=1)[0], set()
    for _ in range(30):
        seen = torch.as_tensor(obs, dtype=torch.float32)
        action = actor.logits(trunk(seen)).argmax().item()
        assert policy(seen).mode.item() == exported(seen).item() == action
        actions.add(action)
        obs, _, terminated, *_ = env.step(action)
        obs = env.reset()[0] if terminated else obs
    assert len(actions) > 1


# ---- Breakout ----
class Draws:
    """The random numbers that our game takes, for MinAtar's."""

    def __init__(self, seed: int):
        self.rng, _ = gym.utils.seeding.np_random(seed)

    def rand(self) -> float:
        return self.rng.random()

    def randint(self, n: int) -> int:
        return self.rng.integers(n)


def test_the_game_is_minatars():
    """Step by step, by a player that loses seldom, so that all bricks go and come back."""
    minatar = pytest.importorskip("minatar")
    ours, play, cleared, steps = Breakout(), np.random.default_rng(0), 0, 0
    for seed in range(60):
        theirs = minatar.Environment("breakout")
        theirs.random = theirs.env.random = Draws(seed)
        theirs.reset()
        obs, _ = ours.reset(seed=seed)
        done, total = False, 0
        while not done and total < 100:
            np.testing.assert_array_equal(obs, theirs.state())
            side = np.sign(ours.x + ours.dx - ours.paddle)
            action = play.integers(3) if play.random() < 0.02 else (0, 2, 1)[side]
            obs, reward, done, truncated, _ = ours.step(action)
            assert theirs.act([0, 1, 3][action]) == (reward, done)
            assert not truncated
            total, steps = total + reward, steps + 1
        cleared += total > 30
        np.testing.assert_array_equal(obs, theirs.state())
    assert cleared >= 3
    assert steps > 5_000


def test_the_game_is_a_gymnasium_environment():
    env = gym.make(ppo_images.GAMES["MinAtar/Breakout-v1"], render_mode="rgb_array")
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=1)
    picture = env.render()
    assert picture.shape == (160, 160, 3)
    assert picture.dtype == np.uint8
    shown = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert shown == {(0, 0, 0), *map(tuple, Breakout.colours[[0, 1, 3]])}


# ---- Atari ----
def gymnasiums(name: str, stack: int = 4, **kwargs) -> gym.Env:
    """Gymnasium's wrappers around the game."""
    pytest.importorskip("cv2")
    env = gym.make(name, frameskip=1, **kwargs)
    env = gym.wrappers.AtariPreprocessing(env, noop_max=30, frame_skip=4)
    return gym.wrappers.FrameStackObservation(env, stack)


@pytest.mark.parametrize(
    ("name", "sticky"),
    [
        ("ale_py:ALE/Breakout-v5", 0.25),
        ("ale_py:ALE/Pong-v5", 0.25),
        ("ale_py:SpaceInvadersNoFrameskip-v4", 0.0),
    ],
)
def test_ataris_frames_are_gymnasiums(name, sticky):
    """Frame by frame over several episodes: images within one grey level (OpenCV adds in
    another order), rewards and ends alike. Lives are lost, and nothing ends."""
    pytest.importorskip("ale_py")
    ours, theirs = make_env(Args(env_id=name)), gymnasiums(name)
    assert ours.spec.kwargs["repeat_action_probability"] == sticky
    assert ours.observation_space == Box(0, 255, (84, 84, 4), np.uint8)
    rng, lost, ends = np.random.default_rng(1), 0, 0
    for seed in range(2):
        (obs, _), (other, _) = ours.reset(seed=seed), theirs.reset(seed=seed)
        done, lives = False, ours.unwrapped.ale.lives()
        for _ in range(1500):
            difference = obs.astype(int) - np.moveaxis(other, 0, -1)
            assert np.abs(difference).max() <= 1
            assert (difference != 0).mean() < 5e-3
            action = rng.integers(ours.action_space.n)
            obs, reward, terminated, truncated, _ = ours.step(action)
            other, *expected, _ = theirs.step(action)
            assert [reward, terminated, truncated] == expected
            done = terminated or truncated
            lost += ours.unwrapped.ale.lives() < lives and not done
            lives = ours.unwrapped.ale.lives()
            if done:
                break
        ends += done
        assert (
            np.abs(obs[:, :, :3].astype(int) - np.moveaxis(other, 0, -1)[:, :, :3]).max() <= 1
        )
    if "Pong" not in name:
        assert lost >= 4
        assert ends == 2


def test_ataris_protocol_has_flags():
    pytest.importorskip("ale_py")
    kwargs = '{"repeat_action_probability": 0.0, "frameskip": 2, "full_action_space": true}'
    env = make_env(Args(env_id="ale_py:ALE/Pong-v5", env_kwargs=kwargs))
    assert env.action_space.n == 18
    assert env.spec.kwargs["repeat_action_probability"] == 0
    env.reset(seed=1)
    before = env.unwrapped.ale.getEpisodeFrameNumber()
    env.step(0)
    assert env.unwrapped.ale.getEpisodeFrameNumber() == before + 2
    colour = make_env(Args(env_id="ale_py:ALE/Pong-v5", env_kwargs='{"obs_type": "rgb"}'))
    assert colour.observation_space.shape == (210, 160, 3)


def test_a_cut_game_ends_with_its_last_frames():
    """Cut at 400 frames: truncated, not terminated, and the observation holds the game as it
    was then, the larger of the last two frames."""
    pytest.importorskip("ale_py")
    kwargs = '{"max_num_frames_per_episode": 399, "repeat_action_probability": 0.0}'
    env = make_env(Args(env_id="ale_py:ALE/Breakout-v5", env_kwargs=kwargs))
    env.reset(seed=3)
    frames, step = [], env.env.step

    def note(action):
        result = step(action)
        frames.append(result[0].copy())
        return result

    env.env.step = note
    truncated, terminated = False, False
    while not (truncated or terminated):
        obs, _, terminated, truncated, _ = env.step(1)
    assert truncated
    assert not terminated
    assert len(frames) > 100
    last = np.maximum(frames[-1], frames[-2])
    pixels = last.repeat(84, 0).repeat(84, 1)  # each of 84 x 84 images is their mean
    mean = pixels.reshape(84, 210, 84, 160).mean((1, 3))
    assert np.abs(obs[:, :, 3] - mean).max() <= 0.51
