# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "gymnasium>=1.4", "numpy>=2.0", "tyro>=1.0", "filelock>=3.22",
#                 "tensorboard>=2.21", "tqdm>=4.66"]
# ///
"""Proximal Policy Optimization (PPO) that sees: images in, Discrete actions out.

The update is PPO's, on clipped ratios. The network is another: convolutions turn an image into
features, which the policy and the value function share; each adds one linear layer. The default
task is Breakout as MinAtar has it, on 10 x 10 squares.

Papers: Schulman et al. 2017, Proximal Policy Optimization Algorithms, arXiv:1707.06347
        Mnih et al. 2015, Human-level control through deep reinforcement learning, Nature 518
        Young & Tian 2019, MinAtar, arXiv:1903.03176
Run: python ppo_images.py --env-id MinAtar/Breakout-v1 --seed 1

Compared with ppo.py:
- observations are images, (height, width, channels) or (channels, height, width), stored as
  they come: bytes take a quarter of float32's memory; the network scales them;
- one convolutional trunk for actor and critic, so that vf_coef matters;
- each image passes the trunk once before the update: values and old_log_probs are those of the
  rollout, and V(next_obs) is the next step's value, or its own where an episode was truncated;
- rewards are clipped for learning; log and evaluation have them in full;
- Atari's games (pip install ale-py) get sticky actions (Machado et al. 2018, arXiv:1709.06009)
  and what is usual beside them:

  | --env-id ale_py:ALE/Breakout-v5 |                                                         |
  |---------------------------------|---------------------------------------------------------|
  | actions                         | those of the game, or all 18 with "full_action_space"   |
  | an action lasts                 | 4 frames, or "frameskip" of --env-kwargs                |
  | sticky actions                  | a frame repeats the last one's action with probability  |
  |                                 | 0.25, or "repeat_action_probability" of --env-kwargs    |
  | an image                        | the larger of the last two frames, grey, 84 x 84 bytes  |
  | an observation                  | the last 4 images, (84, 84, 4); the first fills all     |
  | an episode begins               | after 1 to 30 frames without an action                  |
  | an episode ends                 | with the game, not with a life; cut at 108,000 frames,  |
  |                                 | or at "max_episode_steps", which counts frames here     |
  | rewards                         | the score's, clipped to +-1 for learning                |
  | the old protocol                | --env-id ale_py:BreakoutNoFrameskip-v4: nothing sticky  |
"""

import hashlib
import json
import random
import sys
import time
import traceback
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import gymnasium as gym
import numpy as np
import torch
import tyro
from filelock import FileLock
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    # Defaults: usual ones for images; the step size was chosen on this task with seed 1000, the
    # number of steps after seed 6 had ended at 13.2 with 1,500,000.
    env_id: str = "MinAtar/Breakout-v1"  # images, Discrete actions; or ale_py:ALE/Pong-v5
    total_timesteps: int | float = 2_000_000  # environment steps in all, in whole batches
    num_envs: int = 64  # environments stepped side by side
    num_steps: int = 32  # steps per environment and iteration; a batch is num_envs * num_steps
    learning_rate: float = 3e-3  # Adam's initial step size
    anneal_lr: bool = True  # decrease the step size linearly to 0 over the run
    gamma: float = 0.99  # discount factor
    gae_lambda: float = 0.95  # bias (0: one-step TD error) against variance (1: n-step return)
    num_minibatches: int = 8  # minibatches per epoch
    update_epochs: int = 4  # passes over each batch
    norm_adv: bool = True  # normalise advantages in each minibatch; not in the paper
    clip_coef: float = 0.2  # epsilon: outside 1 +- epsilon a ratio earns nothing more
    ent_coef: float = 0.01  # weight of the entropy bonus, which keeps the policy exploring
    vf_coef: float = 0.5  # weight of the value loss
    max_grad_norm: float = 0.5  # longer gradients are scaled down to this norm; inf: never
    target_kl: float | None = None  # no more epochs in an update once approx_kl is above it
    reward_clip: float = 1.0  # rewards are clipped to +- this for learning only; inf: never

    # The run: the same flags in every script, but torch_threads.
    env_kwargs: str = "{}"  # JSON object of arguments for the environment: '{"name": value}'
    seed: int = 1  # fixes the run bit for bit, on one machine and with one set of versions
    device: Literal["cpu", "cuda", "mps"] = "cpu"  # small networks are fastest on the cpu
    torch_threads: int = 2  # 1.7 times as fast as 1 with these flags; parallel runs share cores
    log_interval: int = 500  # minimum steps between two entries of losses/* and charts/SPS
    checkpoint_interval: float = 10.0  # least seconds between checkpoints; 0: every iteration
    eval_episodes: int = 20  # final episodes, with the policy's mode, of at most 10000 steps
    run_dir: Path | None = None  # default: runs/ENV__SCRIPT__SEED__TIME
    resume: Path | None = None  # run directory to resume, with its own flags


LIMITS = {  # of numeric flags. Those not named: 0 to 1e15, or 1 to 1e15 if whole
    "seed": (0, 1e15), "gamma": (0, 1), "gae_lambda": (0, 1),
    "max_grad_norm": (1e-9, np.inf), "target_kl": (1e-9, 1e9), "reward_clip": (1e-9, np.inf),
}  # fmt: skip


# ==============================================================================================
# Networks
# ==============================================================================================
def layout(shape: tuple[int, int, int]) -> tuple[bool, int, int, int]:
    """Whether the channels of an image come last, and channels, height, width. Two equal sides
    are height and width; otherwise there are fewer channels than pixels a side."""
    a, b, c = shape
    channels_last = a == b or (b != c and c <= a)
    return (True, c, a, b) if channels_last else (False, a, b, c)


def convolutions(channels: int, height: int, width: int) -> nn.Sequential:
    """Images (..., channels, height, width) -> features (..., n), by a network for their size.
    Sources: Young & Tian 2019; Mnih et al. 2015, Methods."""
    if min(height, width) < 36:
        layers, n = [nn.Conv2d(channels, 16, 3), nn.ReLU()], 128
    else:
        n = 512
        layers = [
            nn.Conv2d(channels, 32, 8, stride=4), nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 64, 3), nn.ReLU(),
        ]  # fmt: skip
    seen = nn.Sequential(*layers)(torch.zeros(channels, height, width)).numel()
    return nn.Sequential(*layers, nn.Flatten(-3), nn.Linear(seen, n), nn.ReLU())


def orthogonal(layer: nn.Module, gain: float) -> nn.Module:
    """The layer with orthogonal weights times `gain`, and no bias, as in OpenAI Baselines."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class Trunk(nn.Module):
    """What actor and critic share: images as they come from `space`, (..., height, width,
    channels) or (..., channels, height, width) -> features (..., num_features)."""

    def __init__(self, space: Box):
        super().__init__()
        self.channels_last, channels, height, width = layout(space.shape)
        self.layers = convolutions(channels, height, width)
        self.num_features = self.layers[-2].out_features
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                orthogonal(layer, np.sqrt(2))
        largest = float(space.high.max())  # 255 of bytes, 1 of booleans
        self.scale = 1 / largest if 0 < largest < 1e6 else 1.0

    def forward(self, obs: Tensor) -> Tensor:
        images = obs.float() * self.scale
        return self.layers(images.movedim(-1, -3) if self.channels_last else images)


class Actor(nn.Module):
    """The policy pi(a|s): features (..., n) -> Categorical (...) over num_actions."""

    def __init__(self, num_features: int, num_actions: int):
        super().__init__()
        # Near uniform at the start.
        self.logits = orthogonal(nn.Linear(num_features, num_actions), gain=0.01)

    def forward(self, features: Tensor) -> Categorical:
        return Categorical(logits=self.logits(features), validate_args=False)  # which is slow

    @torch.no_grad()
    def sample(self, features: Tensor) -> Tensor:
        """Actions (...) distributed as forward(features).sample(), but faster: the argmax of
        logits plus Gumbel noise, -log of an Exp(1) variable, is a draw from their softmax."""
        logits = self.logits(features)
        return (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)


class Critic(nn.Module):
    """The value function V(s): features (..., n) -> values (...)."""

    def __init__(self, num_features: int):
        super().__init__()
        self.value = orthogonal(nn.Linear(num_features, 1), gain=1.0)

    def forward(self, features: Tensor) -> Tensor:
        return self.value(features).squeeze(-1)


# ==============================================================================================
# Mathematics
# ==============================================================================================
def gae(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor,
    gamma: float, gae_lambda: float,
) -> Tensor:  # fmt: skip
    """Generalized advantage estimates. All tensors are (num_steps, num_envs); terminated and
    truncated are boolean, and done is one or the other.

        delta_t = r_t + gamma * (1 - terminated_t) * V(next_obs_t) - V(obs_t)
        A_t     = delta_t + gamma * gae_lambda * (1 - done_t) * A_{t+1}

    Source: Schulman et al. 2016, High-Dimensional Continuous Control Using GAE, section 3.
    """
    # terminated, not done: a time limit cuts an episode that would have gone on.
    deltas = rewards + gamma * next_values.masked_fill(terminated, 0.0) - values
    decays = torch.full_like(deltas, gamma * gae_lambda).masked_fill(terminated | truncated, 0)
    advantages = deltas.clone()
    for t in reversed(range(len(deltas) - 1)):
        advantages[t] += decays[t] * advantages[t + 1]
    return advantages


def ppo_loss(
    dist: Distribution, values: Tensor, actions: Tensor, old_log_probs: Tensor,
    advantages: Tensor, returns: Tensor, clip_coef: float, vf_coef: float, ent_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """The loss to minimise, and what to log. Tensors are (batch,); actions may be (batch, n).

        ratio  = pi(a|s) / pi_old(a|s)
        policy = -mean min(ratio * A, clip(ratio, 1 - clip_coef, 1 + clip_coef) * A)
        loss   = policy + vf_coef * mean (V(s) - returns)^2 - ent_coef * mean entropy

    Sources: Schulman et al. 2017, sections 3 and 5; http://joschu.net/blog/kl-approx.html, k3.
    """
    log_ratio = dist.log_prob(actions) - old_log_probs
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    # The minimum, not the clip alone: a ratio that moved the wrong way is still pulled back.
    policy_loss = -torch.min(ratio * advantages, clipped_ratio * advantages).mean()
    value_loss = nn.functional.mse_loss(values, returns)
    entropy = dist.entropy().mean()
    loss = policy_loss + vf_coef * value_loss - ent_coef * entropy  # a bonus lowers the loss
    approx_kl = ((ratio - 1) - log_ratio).mean()  # KL(pi_old || pi), never negative
    clip_frac = (clipped_ratio != ratio).float().mean()
    stats = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return loss, stats | {"approx_kl": approx_kl, "clip_frac": clip_frac}


# ==============================================================================================
# Training
# ==============================================================================================
def flatten(*networks: nn.Module) -> Tensor:
    """All weights as one vector with its gradient. Each parameter becomes a view of both."""
    parameters = [p for network in networks for p in network.parameters()]
    weights = nn.utils.parameters_to_vector(parameters).detach()
    weights.grad = torch.zeros_like(weights)
    nn.utils.vector_to_parameters(weights, parameters)
    gradients = weights.grad.split([p.numel() for p in parameters])
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient.view_as(p)
    return weights


def train(args: Args) -> dict:
    """Train, evaluate, return what summary.json holds; raise BadInput or FloatingPointError."""
    args = check_args(args)
    if not getattr(torch, args.device).is_available():
        raise BadInput(f"PyTorch finds no device {args.device} here")
    device = torch.device(args.device)
    batch_size = args.num_envs * args.num_steps
    minibatch_size = batch_size // args.num_minibatches
    num_iterations = args.total_timesteps // batch_size
    if num_iterations == 0:
        raise BadInput(f"total_timesteps must be at least one batch, {batch_size} steps")
    if minibatch_size < 2 or batch_size % args.num_minibatches:
        raise BadInput(f"num_minibatches must split {batch_size} steps evenly, at least 2 each")

    with Run(args) as run:
        envs = [run.enter_context(make_env(args)) for _ in range(args.num_envs)]
        space, num_actions = envs[0].observation_space, int(envs[0].action_space.n)
        trunk = Trunk(space).to(device)
        actor = Actor(trunk.num_features, num_actions).to(device)
        critic = Critic(trunk.num_features).to(device)
        weights = flatten(trunk, actor, critic)  # clipped and stepped as one
        # eps of OpenAI Baselines: with 1e-8 even weights with tiny gradients take full steps.
        optimizer = torch.optim.Adam([weights], lr=args.learning_rate, eps=1e-5, fused=True)
        state = {"trunk": trunk, "actor": actor, "critic": critic, "optimizer": optimizer}
        channels_last, channels, height, width = layout(space.shape)
        order = "last" if channels_last else "first"
        print(f"images {height} x {width}, {channels} channels ({order}), {space.dtype}")
        run.start(state, num_iterations * batch_size)

        # One segment, which every rollout overwrites. obs[t + 1] is where step t + 1 begins,
        # next_obs what the last step really led to; they differ where an episode has ended.
        obs = np.zeros((args.num_steps + 1, args.num_envs, *space.shape), space.dtype)
        next_obs = np.zeros((args.num_envs, *space.shape), space.dtype)
        actions = np.zeros((args.num_steps, args.num_envs), np.int64)
        rewards = np.zeros((args.num_steps, args.num_envs), np.float32)
        terminated, truncated = np.zeros((2, args.num_steps, args.num_envs), bool)
        values, next_values, old_log_probs = torch.zeros((3, *actions.shape), device=device)

        # Seeds of 31 bits, as simulators take. A resumed run does not replay its beginning.
        seeds = np.random.SeedSequence([args.seed, run.global_step]).generate_state(len(envs))
        resets = [env.reset(seed=int(seed // 2)) for env, seed in zip(envs, seeds, strict=True)]
        obs[-1] = [image for image, _ in resets]

        for iteration in range(run.global_step // batch_size, num_iterations):
            with torch.no_grad():
                # ---- ROLLOUT ----
                obs[0] = obs[-1]
                for t in range(args.num_steps):
                    features = trunk(torch.as_tensor(obs[t], device=device))
                    sampled = actor.sample(features)
                    values[t], actions[t] = critic(features), sampled.cpu().numpy()
                    old_log_probs[t] = actor(features).log_prob(sampled)  # fixed in the epochs
                    for i, env in enumerate(envs):
                        next_obs[i], rewards[t, i], *ends, _ = env.step(actions[t, i])
                        obs[t + 1, i], (terminated[t, i], truncated[t, i]) = next_obs[i], ends
                        if any(ends):
                            obs[t + 1, i], _ = env.reset()  # next_obs keeps where it ended
                    if truncated[t].any() or t == args.num_steps - 1:
                        next_values[t] = critic(trunk(torch.as_tensor(next_obs, device=device)))
                    run.record_step(rewards[t], terminated[t] | truncated[t], obs[t], next_obs)

                # ---- ADVANTAGE ----
                # s_: the segment, (num_steps, num_envs, ...); b_: the same, flattened.
                s_obs, s_actions, s_rewards, s_terminated, s_truncated = (
                    torch.as_tensor(array, device=device)
                    for array in (obs[:-1], actions, rewards, terminated, truncated)
                )
                own = s_truncated.clone()
                own[-1] = True  # elsewhere the next step begins at next_obs
                next_values = torch.where(own, next_values, values.roll(-1, 0))
                advantages = gae(
                    s_rewards.clamp(-args.reward_clip, args.reward_clip),
                    values, next_values, s_terminated, s_truncated, args.gamma, args.gae_lambda,
                )  # fmt: skip
                returns = advantages + values  # of advantages that are not normalised

            # ---- UPDATE ----
            remaining = 1 - iteration / num_iterations if args.anneal_lr else 1.0
            optimizer.param_groups[0]["lr"] = args.learning_rate * remaining
            b_obs, b_actions, b_old_log_probs, b_advantages, b_returns = (
                x.flatten(0, 1) for x in (s_obs, s_actions, old_log_probs, advantages, returns)
            )
            history = []  # of stats, a row for each minibatch
            for _ in range(args.update_epochs):
                for indices in torch.randperm(batch_size, device=device).split(minibatch_size):
                    features, mb_advantages = trunk(b_obs[indices]), b_advantages[indices]
                    if args.norm_adv:
                        mean, std = mb_advantages.mean(), mb_advantages.std()
                        mb_advantages = (mb_advantages - mean) / (std + 1e-30)  # may be 0
                    loss, stats = ppo_loss(
                        actor(features), critic(features), b_actions[indices],
                        b_old_log_probs[indices], mb_advantages, b_returns[indices],
                        args.clip_coef, args.vf_coef, args.ent_coef,
                    )  # fmt: skip
                    weights.grad.zero_()  # optimizer.zero_grad() would cut the views
                    loss.backward()
                    stats["grad_norm"] = nn.utils.clip_grad_norm_(weights, args.max_grad_norm)
                    optimizer.step()
                    history.append(torch.stack([*stats.values()]).detach())
                if args.target_kl is not None and stats["approx_kl"] > args.target_kl:
                    break

            # ---- LOG ----
            losses = dict(zip(stats, torch.stack(history).mean(0).tolist(), strict=True))
            unexplained, total = (returns - values).var(correction=0), returns.var(correction=0)
            losses["explained_variance"] = (1 - unexplained / total).item() if total else 0.0
            losses["learning_rate"] = optimizer.param_groups[0]["lr"]
            run.record_iteration(losses)

        return evaluate(nn.Sequential(trunk, actor), envs[0], run)


# ==============================================================================================
# Scaffold: flags, environments, evaluation, the run directory.
# ==============================================================================================
SCRIPT = Path(globals().get("__file__", "notebook"))  # a notebook cell has no __file__
SHA256 = hashlib.sha256(SCRIPT.read_bytes()).hexdigest() if SCRIPT.is_file() else None
VERSIONS = {module.__name__: str(module.__version__) for module in (torch, gym, np)}
VERSIONS["python"] = sys.version.split()[0]
ABOUT = {"script": SCRIPT.name, "script_sha256": SHA256, "versions": VERSIONS}


class BadInput(ValueError):
    """Flags or an environment that cannot work."""


def check_args(args: Args) -> Args:
    """A checked copy of `args` with run_dir filled in; to resume a run, with its own flags."""
    flags = {k: v.item() if isinstance(v, np.generic) else v for k, v in asdict(args).items()}
    for name, value in flags.items():
        hint = Args.__annotations__[name]
        kind, *others = kinds = get_args(hint) or (hint,)
        text = isinstance(value, str | Path) and {value, Path} & {*kinds}  # a choice or a path
        if type(value) in (int, float) and kind in (int, float):
            low, high = LIMITS.get(name, (int(kind is int), 1e15))
            if not low <= value <= high or kind(value) != value:
                raise BadInput(f"{name} must be {kind.__name__} {low:g}..{high:g}, not {value}")
            flags[name] = kind(value)  # 1e6 is a number of steps
        elif type(value) not in kinds and not text:
            raise BadInput(f"{name} must be {hint if others else kind.__name__}, not {value!r}")
    if not args.resume:
        folder = f"{args.env_id}__{SCRIPT.stem}__{args.seed}__{datetime.now():%Y%m%d-%H%M%S-%f}"
        run_dir = Path(args.run_dir or "runs/" + folder.replace("/", "_").replace(":", "_"))
        if run_dir.exists():
            raise BadInput(f"{run_dir} exists; name another --run-dir, or --resume it")
        return Args(**flags | {"run_dir": run_dir.absolute()})  # environments may call chdir
    path = Path(str(args.resume).removesuffix("checkpoint.pt")).absolute()
    try:  # mmap: without reading the weights, or a replay buffer
        saved = torch.load(path / "checkpoint.pt", "cpu", weights_only=True, mmap=True)
        steps, own = saved["counters"][0], asdict(Args(**saved["args"] | {"run_dir": path}))
    except Exception as error:  # reading a damaged file can raise anything
        raise BadInput(f"{SCRIPT.name} cannot resume {path}: {error}") from None
    if args.run_dir != path:  # flags at their default are taken as not given
        flags = own | {k: value for k, value in flags.items() if value != getattr(Args, k)}
    for name in {"run_dir", *list(own)[: list(own).index("device")]} - {"total_timesteps"}:
        if flags[name] != own[name]:
            raise BadInput(f"to resume {path}, {name} must stay {own[name]}")
    if steps > flags["total_timesteps"]:
        raise BadInput(f"{path} has made {steps} steps; total_timesteps must not be less")
    return Args(**flags | {"resume": path})


def make_env(args: Args, **kwargs: str) -> gym.Env:
    """One environment for the networks: images, and actions as the policy draws."""
    try:
        given = dict(**json.loads(args.env_kwargs), **kwargs)
        env = gym.make(GAMES.get(args.env_id, args.env_id), **given)
        if hasattr(env.unwrapped, "ale") and "obs_type" not in given:
            grey = given | {"obs_type": "grayscale", "frameskip": 1}
            env = Atari(gym.make(args.env_id, **grey), given.get("frameskip", 4))
    except (gym.error.Error, ModuleNotFoundError, TypeError, ValueError) as error:
        if isinstance(error, TypeError) and "argument" not in str(error):
            raise  # an error in the environment's own code
        package = "ale_py" if args.env_id.startswith("ALE/") else "package"
        hint = f" Or {package}:{args.env_id}?"
        hint *= isinstance(error, gym.error.UnregisteredEnv)
        raise BadInput(f"{args.env_id} with {args.env_kwargs}: {error}{hint}") from None
    if not isinstance(env.action_space, Discrete) or env.action_space.start:
        text = f"{args.env_id} has actions {env.action_space}, not Discrete(n)"
        raise BadInput(f"{text}; for Box(n) see ppo_continuous.py and sac.py")
    space = env.observation_space
    if not isinstance(space, Box) or len(space.shape) != 3:
        text = f"{args.env_id} has observations {space.shape or type(space).__name__}"
        hint = "ppo.py flattens others; FrameStackObservation makes images of grey ones"
        raise BadInput(f"{text}, not images (height, width, channels). {hint}")
    if min(layout(space.shape)[2:]) < 3:
        raise BadInput(f"{args.env_id} has images {space.shape}, under 3 x 3; see ppo.py")
    return env


class Breakout(gym.Env):
    """Breakout as in MinAtar (PyPI's minatar, which needs plotting libraries), step by step.

    Observations are (10, 10, 4), booleans: the paddle, the ball, where it was, the bricks. The
    actions are stay, left, right; with probability 0.1 the last one is taken again. A brick
    earns 1; the ball lost ends the episode. Source: Young & Tian 2019.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space, action_space = Box(0, 1, (10, 10, 4), bool), Discrete(3)
    colours = np.array([[40, 120, 220], [255, 255, 255], [110, 110, 110], [220, 90, 40]])

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.x, self.dx = (9, -1) if self.np_random.integers(2) else (0, 1)
        self.y, self.dy, self.trail = 3, 1, (3, self.x)
        self.paddle, self.action, self.inside = 4, 0, False  # inside: among the bricks
        self.bricks = np.zeros((10, 10), bool)
        self.bricks[1:4] = True
        return self.see(), {}

    def see(self) -> np.ndarray:
        obs = np.zeros((10, 10, 4), bool)
        obs[9, self.paddle, 0] = obs[self.y, self.x, 1] = obs[(*self.trail, 2)] = True
        obs[:, :, 3] = self.bricks
        return obs

    def step(self, action: int):
        if self.np_random.random() >= 0.1:
            self.action = int(action)
        self.paddle = min(max(self.paddle + (0, -1, 1)[self.action], 0), 9)
        self.trail = y, x = self.y, self.x
        self.y, self.x = y + self.dy, x + self.dx
        if not 0 <= self.x <= 9:
            self.x, self.dx = x, -self.dx
        hit, inside, lost = False, False, False
        if self.y < 0:
            self.y, self.dy = 0, -self.dy
        elif inside := self.bricks[self.y, self.x]:
            hit = not self.inside  # after a hit the ball passes through bricks for a while
            if hit:
                self.bricks[self.y, self.x] = False
                self.y, self.dy = y, -self.dy
        elif self.y == 9:
            if not self.bricks.any():
                self.bricks[1:4] = True
            lost = self.paddle not in (x, self.x)
            if not lost:
                self.y, self.dy = y, -self.dy
                self.dx *= 1 if x == self.paddle else -1  # off the paddle's edge: back
        self.inside = bool(inside)
        return self.see(), float(hit), lost, False, {}

    def render(self) -> np.ndarray:
        shown = self.see()[..., None] * self.colours
        return shown.max(2).astype(np.uint8).repeat(16, 0).repeat(16, 1)


GAMES = {  # MinAtar's by --env-id; these need: pip install --no-deps minatar
    f"MinAtar/{game.title().replace('_', '')}-v1": EnvSpec(
        f"MinAtar/{game.title().replace('_', '')}-v1", "minatar.gym:BaseEnv",
        kwargs={"game": game, "use_minimal_action_set": True},
    )
    for game in ("asterix", "freeway", "seaquest", "space_invaders")
} | {"MinAtar/Breakout-v1": EnvSpec("MinAtar/Breakout-v1", Breakout)}  # fmt: skip


def area(n: int, m: int) -> Tensor:
    """The matrix (m, n) that shrinks n pixels to m, each the mean of what it covers."""
    edges = torch.arange(m + 1)[:, None] * n / m
    pixels = torch.arange(n)
    covered = edges[1:].minimum(pixels + 1) - edges[:-1].maximum(pixels)
    return covered.clamp(min=0) * m / n


class Atari(gym.Wrapper):
    """The protocol in the docstring: `env` shows grey frames (height, width) one by one."""

    def __init__(self, env: gym.Env, frameskip: int):
        super().__init__(env)
        height, width = env.observation_space.shape
        self.frameskip, self.rows, self.columns = frameskip, area(height, 84), area(width, 84).T
        self.observation_space = Box(0, 255, (84, 84, 4), np.uint8)

    def shrink(self, frame: np.ndarray) -> np.ndarray:
        """(height, width) -> (84, 84, 1), bytes."""
        image = self.rows @ torch.as_tensor(frame, dtype=torch.float32) @ self.columns
        return image.round().byte()[:, :, None].numpy()

    def reset(self, **kwargs):
        frame, info = self.env.reset(**kwargs)
        for _ in range(self.unwrapped.np_random.integers(1, 31)):
            frame, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                frame, info = self.env.reset()
        self.obs = self.shrink(frame).repeat(4, 2)
        return self.obs, info

    def step(self, action: int):
        total, frame = 0.0, None
        for _ in range(self.frameskip):
            last = frame
            frame, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        seen = frame if last is None else np.maximum(last, frame)  # sprites flicker
        self.obs = np.concatenate([self.obs[:, :, 1:], self.shrink(seen)], 2)
        return self.obs, total, terminated, truncated, info


class Run(ExitStack):
    """The run directory and its log. Its exit closes them and gives torch's settings back."""

    def __init__(self, args: Args):
        super().__init__()
        self.args, self.global_step, self.episodes, self.seconds = args, 0, 0, 0.0
        self.returns, self.lengths = np.zeros(args.num_envs), np.zeros(args.num_envs, int)
        self.name, self.recent = f"seed {args.seed}, {args.run_dir}", []  # the last 100 returns
        self.enter_context(torch.enable_grad())  # whatever the caller has set
        self.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        self.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(args.torch_threads)
        for fix in (torch.manual_seed, np.random.seed, random.seed):  # for environments too
            fix(args.seed % 2**32)

    def __exit__(self, kind, error, trace):
        try:
            super().__exit__(kind, error, trace)
        except Exception as fault:  # of an environment's close(): the work is done
            print(f"while closing: {fault!r}", file=sys.stderr)
        if "array element with a sequence" in str(error) and trace.tb_next is None:  # in train
            raise BadInput("a reward, terminated or truncated is not one value") from error

    def start(self, state: dict, total_steps: int) -> None:
        """Make the run directory, or restore all that `state` names from the one to resume."""
        args, run_dir, self.state = self.args, self.args.run_dir, state
        name = f"args-{datetime.now():%Y%m%d-%H%M%S-%f}.json" if args.resume else "args.json"
        try:
            str(run_dir).encode()  # or else TensorBoard cannot write there
            run_dir.mkdir(parents=True, exist_ok=bool(args.resume))
            try:
                self.enter_context(FileLock(run_dir / "lock", timeout=0))  # a kill frees it
            except (TimeoutError, PermissionError):  # another process has it
                raise
            except OSError as error:  # of a file system without locks
                print(f"no lock keeps others out of {run_dir}: {error}", file=sys.stderr)
            if args.resume:
                saved = torch.load(run_dir / "checkpoint.pt", "cpu", weights_only=True)
                for key, module in state.items():
                    module.load_state_dict(saved[key])
                self.global_step, self.episodes, self.seconds, self.recent = saved["counters"]
                for fix in (torch.manual_seed, np.random.seed, random.seed):
                    fix((args.seed + self.global_step) % 2**32)
                print(f"resuming at step {self.global_step} with new noise")
            (run_dir / name).write_text(json.dumps(asdict(args) | ABOUT, indent=2, default=str))
        except (KeyError, OSError, RuntimeError, ValueError) as error:  # also: other networks
            raise BadInput(f"cannot use {run_dir}: {error}") from None
        print(f"{SCRIPT.name}: {args.env_id}, {total_steps} steps, {self.name}")
        (run_dir / "summary.json").unlink(missing_ok=True)  # a resumed run is unfinished again
        writer = SummaryWriter(run_dir, purge_step=self.global_step + 1)  # hides later events
        bar = tqdm(total=total_steps, initial=self.global_step, unit=" steps", disable=None)
        self.writer, self.bar = self.enter_context(writer), self.enter_context(bar)
        self.next_log, self.began = self.global_step, time.perf_counter() - self.seconds
        self.save()

    def save(self) -> None:
        """Write the events and a checkpoint whole, in a tenth of the time at most."""
        self.seconds = time.perf_counter() - self.began
        saved = {name: module.state_dict() for name, module in self.state.items()}
        parts = [p for s in saved.values() for p in s.get("state", {0: s}).values()]
        if not all(x.isfinite().all() for p in parts for x in p.values() if torch.is_tensor(x)):
            raise FloatingPointError(f"step {self.global_step}: a weight is not finite")
        saved |= {"about": ABOUT, "args": asdict(self.args) | {"run_dir": None, "resume": None}}
        saved["counters"] = [self.global_step, self.episodes, self.seconds, self.recent]
        self.writer.flush()
        torch.save(saved, self.args.run_dir / "new.tmp")
        (self.args.run_dir / "new.tmp").replace(self.args.run_dir / "checkpoint.pt")
        interval, now = self.args.checkpoint_interval, time.perf_counter()
        self.due = now + (interval and max(interval, 9 * (now - self.began - self.seconds)))

    def record_step(self, rewards, done, *obs) -> None:
        """Count a step of all environments; log the episodes that it ended."""
        self.global_step += len(done)
        if any(np.vdot(x, np.zeros(x.shape, x.dtype)) != 0 for x in (rewards, *obs)):  # inf * 0
            raise FloatingPointError(f"step {self.global_step}: reward or obs is not finite")
        self.returns += rewards
        self.lengths += 1
        for i in np.flatnonzero(done):
            self.writer.add_scalar("charts/episodic_return", self.returns[i], self.global_step)
            self.writer.add_scalar("charts/episodic_length", self.lengths[i], self.global_step)
            self.recent = [*self.recent[-99:], float(self.returns[i])]
            self.episodes += 1
            self.returns[i] = self.lengths[i] = 0

    def record_iteration(self, losses: dict[str, float]) -> None:
        """Log, show, and save when it is time."""
        if not np.isfinite([*losses.values()]).all():
            raise FloatingPointError(f"step {self.global_step}: a loss is not finite, {losses}")
        sps = self.global_step / (time.perf_counter() - self.began)
        if self.global_step >= self.next_log:
            self.next_log = self.global_step + self.args.log_interval
            self.writer.add_scalar("charts/SPS", sps, self.global_step)
            for name, value in losses.items():
                self.writer.add_scalar(f"losses/{name}", value, self.global_step)
            returns = f"return {np.mean(self.recent or np.nan):.1f}, {sps:.1f} steps/s"
            self.status = f"{returns}, {self.name}".replace("return nan", "no episode yet")
            self.bar.set_postfix_str(self.status, refresh=False)
        self.bar.update(self.global_step - self.bar.n)
        if time.perf_counter() > self.due:
            self.save()
            if self.bar.disable:  # standard error is no terminal
                print(f"step {self.global_step}, {self.status}", flush=True)


@torch.no_grad()
def evaluate(actor: nn.Module, env: gym.Env, run: Run) -> dict:
    """Save, play eval_episodes with the policy's mode, write and return the summary."""
    run.save()
    run.bar.close()
    args, step, returns = run.args, run.global_step, np.zeros(run.args.eval_episodes)
    seeds = np.random.SeedSequence(args.seed, spawn_key=(1,)).generate_state(len(returns))
    for episode, seed in enumerate(seeds // 2):
        obs, _ = env.reset(seed=int(seed))
        for _ in range(10_000):  # an episode may have no end
            seen = torch.as_tensor(np.array(obs, np.float32), device=args.device)
            obs, reward, terminated, truncated, _ = env.step(actor(seen).mode.cpu().numpy()[()])
            returns[episode] += reward
            if not (seen.isfinite().all() and np.isfinite(reward)):
                raise FloatingPointError("evaluation: a reward or observation is not finite")
            if terminated or truncated:
                break
    summary = {
        "env_id": args.env_id, "script": SCRIPT.name, "seed": args.seed, "global_step": step,
        "wall_seconds": run.seconds, "sps": step / run.seconds, "train_episodes": run.episodes,
        "train_return_mean": float(np.mean(run.recent)) if run.episodes else None,
        "eval_return_mean": float(returns.mean()), "eval_return_std": float(returns.std()),
        "eval_episodes": len(returns),
    }  # fmt: skip
    run.writer.add_scalar("eval/episodic_return", returns.mean(), step)
    (args.run_dir / "new.tmp").write_text(json.dumps(summary, indent=2))
    (args.run_dir / "new.tmp").replace(args.run_dir / "summary.json")
    print(f"evaluation {returns.mean():.1f} +- {returns.std():.1f}, {run.name}")
    return summary


if __name__ == "__main__" and "__file__" in globals():  # a notebook cell only defines
    args = None
    try:
        args = check_args(tyro.cli(Args, description=__doc__.partition("\n")[0]))
        if args.resume:  # what is given wins, even where it equals the default
            args = tyro.cli(Args, default=args)
        train(args)
    except (Exception, KeyboardInterrupt) as error:
        known = isinstance(error, BadInput | FloatingPointError | torch.OutOfMemoryError)
        line = f"error: {' '.join(str(error).split())}" if known else traceback.format_exc()
        print("stopped" if isinstance(error, KeyboardInterrupt) else line, file=sys.stderr)
        if args and type(error) is not BadInput and (args.run_dir / "checkpoint.pt").exists():
            print(f'resume with: python "{SCRIPT}" --resume "{args.run_dir}"', file=sys.stderr)
        sys.exit({BadInput: 2, KeyboardInterrupt: 130}.get(type(error), 1))
