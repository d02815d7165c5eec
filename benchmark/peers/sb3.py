"""Stable-Baselines3's A2C, PPO and SAC and SB3-contrib's TRPO behind the flags and the run directory of our scripts.

A suite can put it beside them at equal hyperparameters, on Discrete (not SAC) and on Box actions. A flag that is not
given takes the library's own default; one that the algorithm does not have is refused. Not like our scripts:
- there is no checkpoint, so a run that was cut short begins anew;
- the library's --target-kl ends a PPO update at 1.5 times its value;
- its environments are stepped by its own code, with seeds that follow from --seed.
With --policy cnn, images pass the network of ppo_images.py, for actor and critic together, and Atari's games have the
protocol in its docstring, but rewards are not clipped.

Run: python benchmark/peers/sb3.py --algo ppo --env-id CartPole-v1 --seed 1
"""

import hashlib
import json
import math
import os
import platform
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NoReturn

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch.utils.tensorboard import SummaryWriter

try:
    import sb3_contrib
    import stable_baselines3
except ImportError:
    print("error: the peers need more packages: pip install -r benchmark/requirements-peers.txt", file=sys.stderr)
    sys.exit(2)
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

sys.path.append(str(Path(__file__).resolve().parents[2]))  # our scripts, and the environments beside them
import ppo_images


@dataclass
class Args:
    algo: Literal["a2c", "trpo", "ppo", "sac"] = "ppo"  # the library's algorithm
    policy: Literal["mlp", "cnn"] = "mlp"  # mlp: observations are flattened; cnn: they are images; not SAC
    env_id: str = "CartPole-v1"  # Gymnasium environment
    env_kwargs: str = "{}"  # JSON object of arguments for the environment: '{"name": value}'
    total_timesteps: int = 100_000  # environment steps, rounded down to whole iterations as in our scripts
    num_envs: int = 4  # environments stepped side by side
    num_steps: int | None = None  # steps per environment and iteration; not SAC
    learning_rate: float | None = None  # the optimiser's step size; for TRPO the critic's, for SAC all three's
    anneal_lr: bool = False  # lower the step size linearly to 0 over the run
    gamma: float | None = None  # discount factor
    gae_lambda: float | None = None  # GAE's trade of bias against variance; not SAC
    num_minibatches: int | None = None  # minibatches per epoch; PPO and TRPO
    update_epochs: int | None = None  # passes over each batch; PPO
    norm_adv: bool = True  # advantages to mean 0, std 1; PPO and TRPO
    clip_coef: float | None = None  # PPO
    anneal_clip: bool = False  # lower clip_coef linearly to 0 over the run; PPO
    ent_coef: float | None = None  # A2C, PPO and SAC; SAC's default learns it
    vf_coef: float | None = None  # A2C and PPO
    max_grad_norm: float | None = None  # A2C and PPO
    rms_alpha: float | None = None  # A2C
    rms_eps: float | None = None  # A2C
    target_kl: float | None = None  # TRPO and PPO
    cg_max_steps: int | None = None  # TRPO
    cg_damping: float | None = None  # TRPO
    line_search_max_iter: int | None = None  # TRPO
    line_search_shrinking_factor: float | None = None  # TRPO
    n_critic_updates: int | None = None  # TRPO
    tau: float | None = None  # SAC
    batch_size: int | None = None  # SAC
    buffer_size: int | None = None  # SAC
    learning_starts: int | None = None  # SAC
    train_freq: int | None = None  # steps per environment between updates; SAC
    gradient_steps: int | None = None  # SAC
    init_std: float | None = None  # standard deviation of the actions at the start; Box actions, not SAC
    norm_obs: bool = False  # observations to mean 0, std 1
    norm_reward: bool = False  # rewards divided by the std of the running return

    seed: int = 1  # of the networks, the actions and the environments
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    torch_threads: int = 1
    log_interval: int = 500  # steps between two entries of losses/* in the event file
    eval_episodes: int = 20  # episodes of the final evaluation, with the mode of the policy
    run_dir: Path | None = None  # where the run goes; default runs/<env_id>__sb3-<algo>__<seed>__<time>


ALGORITHMS = {
    "a2c": stable_baselines3.A2C, "trpo": sb3_contrib.TRPO, "ppo": stable_baselines3.PPO, "sac": stable_baselines3.SAC,
}  # fmt: skip
POLICIES = {"mlp": "MlpPolicy", "cnn": "CnnPolicy"}
# Our flag -> the library's argument.
SEGMENTS = {"num_steps": "n_steps", "gae_lambda": "gae_lambda"}
LOSSES = {"ent_coef": "ent_coef", "vf_coef": "vf_coef", "max_grad_norm": "max_grad_norm"}
OWN = {
    "a2c": SEGMENTS | LOSSES,
    "ppo": SEGMENTS | LOSSES | {"update_epochs": "n_epochs", "clip_coef": "clip_range", "target_kl": "target_kl"},
    "sac": {
        name: name
        for name in ("ent_coef", "tau", "batch_size", "buffer_size", "learning_starts", "train_freq", "gradient_steps")
    },
    "trpo": SEGMENTS | {
        name: name
        for name in ("target_kl", "cg_max_steps", "cg_damping", "line_search_max_iter", "line_search_shrinking_factor",
                     "n_critic_updates")
    },
}  # fmt: skip
DERIVED = {
    "a2c": {"init_std", "rms_alpha", "rms_eps"}, "ppo": {"init_std", "num_minibatches"},
    "trpo": {"init_std", "num_minibatches"}, "sac": set(),
}  # fmt: skip
TAGS = {  # the library's name in its log -> ours, and the sign that turns the one into the other
    "policy_gradient_loss": ("policy_loss", 1), "policy_loss": ("policy_loss", 1),
    "policy_objective": ("policy_loss", -1), "value_loss": ("value_loss", 1), "entropy_loss": ("entropy", -1),
    "approx_kl": ("approx_kl", 1), "clip_fraction": ("clip_frac", 1), "kl_divergence_loss": ("kl", 1),
    "is_line_search_success": ("accepted", 1), "explained_variance": ("explained_variance", 1),
    "learning_rate": ("learning_rate", 1), "actor_loss": ("policy_loss", 1), "critic_loss": ("value_loss", 1),
    "ent_coef": ("alpha", 1),
}  # fmt: skip


def fail(message: object) -> NoReturn:
    """End the program as bad input does: one line on standard error, exit status 2."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


class Trunk(BaseFeaturesExtractor):
    """The convolutions of ppo_images.py, written anew: images with equal sides (batch, height, width, channels), or
    bytes, which the library turns to (batch, channels, height, width) -> features (batch, n)."""

    def __init__(self, space: gym.spaces.Box):
        self.channels_last = space.shape[0] == space.shape[1]
        *_, channels = shape = space.shape if self.channels_last else (*space.shape[1:], space.shape[0])
        if min(shape[:2]) < 36:  # Young & Tian 2019
            layers, n = [torch.nn.Conv2d(channels, 16, 3), torch.nn.ReLU()], 128
        else:  # Mnih et al. 2015
            layers, n = [torch.nn.Conv2d(channels, 32, 8, stride=4), torch.nn.ReLU()], 512
            layers += [torch.nn.Conv2d(32, 64, 4, stride=2), torch.nn.ReLU()]
            layers += [torch.nn.Conv2d(64, 64, 3), torch.nn.ReLU()]
        super().__init__(space, n)
        layers.append(torch.nn.Flatten())
        seen = torch.nn.Sequential(*layers)(torch.zeros(1, channels, *shape[:2])).numel()
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(seen, n), torch.nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images.movedim(-1, -3) if self.channels_last else images)


def library_arguments(args: Args) -> dict:
    """What the library's constructor is to be given for these flags; what is None is left to its defaults."""
    names = {"gamma": "gamma"} | OWN[args.algo]
    for name in {key for own in OWN.values() for key in own} | set().union(*DERIVED.values()):
        if getattr(args, name) is not None and name not in names.keys() | DERIVED[args.algo]:
            fail(f"--{name.replace('_', '-')} has no effect on {args.algo}; leave it out")
    given = {key: getattr(args, name) for name, key in names.items() if getattr(args, name) is not None}
    if args.algo in ("ppo", "trpo"):
        given["normalize_advantage"] = args.norm_adv
    if args.learning_rate is not None:
        rate = args.learning_rate
        given["learning_rate"] = (lambda left: rate * left) if args.anneal_lr else rate
    elif args.anneal_lr:
        fail("--anneal-lr needs --learning-rate")
    if args.anneal_clip:
        if args.algo != "ppo":
            fail(f"--anneal-clip has no effect on {args.algo}; leave it out")
        if args.clip_coef is None:
            fail("--anneal-clip needs --clip-coef")
        clip = args.clip_coef
        given["clip_range"] = lambda left: clip * left
    if args.num_minibatches is not None:
        if args.num_steps is None or args.num_envs * args.num_steps % args.num_minibatches:
            fail(f"--num-minibatches {args.num_minibatches} does not divide num_envs * num_steps")
        given["batch_size"] = args.num_envs * args.num_steps // args.num_minibatches
    if args.algo == "a2c" and (args.rms_alpha is not None or args.rms_eps is not None):
        # The library takes these two only together with the class; 0.99 and 1e-5 are its own values.
        alpha, eps = 0.99 if args.rms_alpha is None else args.rms_alpha, 1e-5 if args.rms_eps is None else args.rms_eps
        rms = {"optimizer_class": torch.optim.RMSprop, "optimizer_kwargs": {"alpha": alpha, "eps": eps}}
        given["policy_kwargs"] = rms
    if args.policy == "cnn":
        if args.algo == "sac":
            fail("--policy cnn has no effect on sac; leave it out")
        given.setdefault("policy_kwargs", {}).update(features_extractor_class=Trunk, net_arch=[])
    if args.init_std is not None:
        if not args.init_std > 0:
            fail(f"--init-std must be a positive number, not {args.init_std}")
        given.setdefault("policy_kwargs", {})["log_std_init"] = math.log(args.init_std)
    return given


def make_env(args: Args) -> gym.Env:
    """One environment with flat observations, or with images as ppo_images.py has them."""
    if args.policy == "cnn":
        try:
            return ppo_images.make_env(ppo_images.Args(env_id=args.env_id, env_kwargs=args.env_kwargs))
        except ppo_images.BadInput as error:
            fail(error)
    try:
        env = gym.make(args.env_id, **json.loads(args.env_kwargs))
    except (gym.error.Error, ImportError, TypeError, ValueError) as error:
        fail(f"{args.env_id} with {args.env_kwargs} cannot be made: {error}")
    is_flat = isinstance(env.observation_space, gym.spaces.Box) and len(env.observation_space.shape) == 1
    return env if is_flat else gym.wrappers.FlattenObservation(env)


class Recorder(BaseCallback):
    """Writes the event file as our scripts do, and keeps what the summary needs."""

    def __init__(self, writer: SummaryWriter, log_interval: int):
        super().__init__()
        self.writer, self.log_interval = writer, log_interval
        self.recent_returns: deque[float] = deque(maxlen=100)
        self.episodes, self.next_log, self.start = 0, 1, time.perf_counter()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.writer.add_scalar("charts/episodic_return", info["episode"]["r"], self.num_timesteps)
                self.writer.add_scalar("charts/episodic_length", info["episode"]["l"], self.num_timesteps)
                self.recent_returns.append(float(info["episode"]["r"]))
                self.episodes += 1
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.next_log:  # the update before has just ended; there is none before the first
            self.next_log = self.num_timesteps + self.log_interval
            self.log()

    def _on_training_end(self) -> None:
        self.log()

    def log(self) -> None:
        sps = self.num_timesteps / (time.perf_counter() - self.start)
        self.writer.add_scalar("charts/SPS", sps, self.num_timesteps)
        for key, value in self.logger.name_to_value.items():
            tag, sign = TAGS.get(key.removeprefix("train/"), (None, 1))
            if tag is not None:
                self.writer.add_scalar(f"losses/{tag}", sign * value, self.num_timesteps)


def evaluate(model, normalizer: VecNormalize | None, args: Args) -> np.ndarray:
    """Undiscounted returns, (eval_episodes,), of the mode of the policy, on the same episodes as our scripts' own."""
    env = make_env(args)
    returns = np.zeros(args.eval_episodes)
    seeds = np.random.SeedSequence(args.seed, spawn_key=(1,)).generate_state(args.eval_episodes)
    for episode, seed in enumerate(seeds.tolist()):
        obs, _ = env.reset(seed=seed)
        for _ in range(10_000):
            action, _ = model.predict(normalizer.normalize_obs(obs) if normalizer else obs, deterministic=True)
            obs, reward, terminated, truncated, _ = env.step(action[()])  # a number, where it is one
            returns[episode] += reward
            if terminated or truncated:
                break
    env.close()
    return returns


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename: a kill or a full disk leaves no half a file."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def train(args: Args) -> dict:
    """Train, evaluate, and return what summary.json holds."""
    given = library_arguments(args)
    for name in ("total_timesteps", "num_envs", "torch_threads", "log_interval", "eval_episodes"):
        if getattr(args, name) < 1:
            fail(f"--{name.replace('_', '-')} must be a positive number, not {getattr(args, name)}")
    torch.set_num_threads(args.torch_threads)
    normalizer = envs = VecMonitor(DummyVecEnv([lambda: make_env(args)] * args.num_envs))
    if args.norm_obs or args.norm_reward:
        gamma = {} if args.gamma is None else {"gamma": args.gamma}
        normalizer = envs = VecNormalize(envs, norm_obs=args.norm_obs, norm_reward=args.norm_reward, **gamma)
    # The library seeds environment i with seed + i: far-apart seeds, or runs with seeds 1 and 2 would share episodes.
    seed = int(np.random.SeedSequence(args.seed).generate_state(1)[0])
    try:
        model = ALGORITHMS[args.algo](POLICIES[args.policy], envs, seed=seed, device=args.device, **given)
    except (AssertionError, ValueError, RuntimeError) as error:
        fail(f"{args.algo} refuses: {error}")
    batch_size = args.num_envs * (model.train_freq.frequency if args.algo == "sac" else model.n_steps)
    total_steps = args.total_timesteps // batch_size * batch_size
    if total_steps == 0:
        fail(f"--total-timesteps {args.total_timesteps} is less than one batch of {batch_size} steps")

    if args.run_dir is None:
        name = f"{args.env_id}__sb3-{args.algo}__{args.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
        args.run_dir = Path("runs") / name.replace("/", "_").replace(":", "_")
    try:
        args.run_dir.mkdir(parents=True)
    except FileExistsError:
        fail(f"{args.run_dir} exists; name another --run-dir")
    flags = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(args).items()}
    packages = {m.__name__: m.__version__ for m in (torch, gym, np, stable_baselines3, sb3_contrib)}
    about = {
        "script": Path(__file__).name,
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "versions": {"python": platform.python_version()} | packages,
        "device": str(model.device),
    }
    write_atomically(args.run_dir / "args.json", json.dumps(flags | about, indent=2).encode())
    writer = SummaryWriter(args.run_dir)
    print(
        f"sb3.py: {args.algo}, {args.env_id}, seed {args.seed}, {model.device}, {total_steps:,} steps, {args.run_dir}"
    )

    recorder = Recorder(writer, args.log_interval)
    start = time.perf_counter()
    model.learn(total_steps, callback=recorder, log_interval=None)
    seconds = time.perf_counter() - start
    returns = evaluate(model, normalizer if args.norm_obs else None, args)
    if not math.isfinite(returns.mean()):
        sys.exit(f"error: the evaluation's mean return is {returns.mean()}")
    writer.add_scalar("eval/episodic_return", returns.mean(), model.num_timesteps)
    writer.close()
    recent = recorder.recent_returns
    summary = {
        "env_id": args.env_id, "script": Path(__file__).name, "seed": args.seed, "global_step": model.num_timesteps,
        "wall_seconds": seconds, "sps": model.num_timesteps / seconds,
        "train_return_mean": float(np.mean(recent)) if recent else None, "train_episodes": recorder.episodes,
        "eval_return_mean": float(returns.mean()), "eval_return_std": float(returns.std()),
        "eval_episodes": len(returns),
    }  # fmt: skip
    write_atomically(args.run_dir / "summary.json", json.dumps(summary, indent=2).encode())
    print(f"evaluation: return {returns.mean():.1f} over {len(returns)} episodes; {summary['sps']:,.0f} steps/s")
    return summary


if __name__ == "__main__":
    try:
        train(tyro.cli(Args, description=__doc__))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"error: {error}")
