# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "gymnasium>=1.4", "numpy>=2.0", "tyro>=1.0", "tensorboard>=2.21", "tqdm>=4.66"]
# ///
"""REINFORCE, the Monte Carlo policy gradient, for Discrete actions.

Run whole episodes with the current policy, and make each action more probable in proportion to the return G_t that
followed it: the gradient of the expected return is the expected sum over steps of grad log pi(a_t|s_t) * G_t. Only
rewards after the action count, for the action cannot have caused the earlier ones. Nothing is learned but the policy.

Papers: Williams 1992, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning;
Sutton & Barto 2018, Reinforcement Learning: An Introduction, section 13.3

Run: python reinforce.py --env-id CartPole-v1 --seed 1

Not in the papers: the Adam optimiser, several episodes an update, --norm-returns, and the factor gamma^t left out (see
reinforce_loss). An episode cut short by a time limit counts as complete: without a critic nothing can stand for what
would have followed.
"""

import hashlib
import io
import json
import math
import os
import platform
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NoReturn

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    # Defaults: ours. A batch of 8 episodes and a step of 2e-3 learned CartPole-v1 more surely than 4 and 3e-3.
    env_id: str = "CartPole-v1"  # Gymnasium environment with Discrete actions; its observations are flattened
    total_timesteps: int = 200_000  # environment steps of the whole run; the episodes it cuts off teach nothing
    num_envs: int = 8  # environments stepped side by side; each runs one episode an iteration
    learning_rate: float = 2e-3  # Adam's step size
    gamma: float = 0.99  # discount factor
    norm_returns: bool = False  # returns to mean 0 at each step t, std 1 in each batch: a crude baseline

    # The run: the same in every script.
    seed: int = 1  # fixes the run bit for bit on one machine and one set of versions
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"  # small networks are faster on the CPU
    torch_threads: int = 1  # more seldom help a small network, and runs side by side would fight for cores
    log_interval: int = 500  # least steps between two entries of losses/* and charts/SPS in the event file
    checkpoint_interval: float = 10.0  # least seconds between checkpoints, written at the ends of iterations
    eval_episodes: int = 20  # episodes of the final evaluation, with the policy's mode; of 10,000 steps at most
    capture_video: bool = False  # record the first three evaluation episodes; needs moviepy
    run_dir: Path | None = None  # where the run goes; default runs/<env_id>__<script>__<seed>__<time>
    resume: Path | None = None  # run directory to go on from, with its flags


# ======================================================================================================================
# Networks
# ======================================================================================================================
class MLP(nn.Sequential):
    """Two hidden layers of 64 tanh units. Orthogonal weights, as in OpenAI Baselines; a small `out_gain` starts the
    output near zero."""

    def __init__(self, in_features: int, out_features: int, out_gain: float):
        layers = [nn.Linear(in_features, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, out_features)]
        for layer, gain in zip(layers[::2], (math.sqrt(2), math.sqrt(2), out_gain), strict=True):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
        super().__init__(*layers)
        self.tensors = [(layer.weight, layer.bias) for layer in layers[::2]]

    def forward(self, x: Tensor) -> Tensor:
        """What nn.Sequential computes, without calling five modules, which takes as long as products this small: a
        twentieth of the running time. To change layers, delete this method and `tensors`."""
        hidden1, hidden2, out = self.tensors
        x = F.linear(x, *hidden1).tanh()
        x = F.linear(x, *hidden2).tanh()
        return F.linear(x, *out)


class Actor(nn.Module):
    """The policy pi(a|s): observations (..., obs_dim) -> Categorical over num_actions, batch shape (...)."""

    def __init__(self, obs_dim: int, num_actions: int):
        super().__init__()
        self.logits = MLP(obs_dim, num_actions, out_gain=0.01)  # 0.01: all actions about equally likely at first

    def forward(self, obs: Tensor) -> Categorical:
        return Categorical(logits=self.logits(obs), validate_args=False)  # validation costs as much as sampling

    def sample(self, obs: Tensor) -> Tensor:
        """Actions (...), distributed as forward(obs).sample() but without its overhead, a fifth of the running time:
        the argmax of logits + Gumbel noise is a draw from their softmax, and -log of an Exp(1) variable is Gumbel."""
        logits = self.logits(obs)
        return (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)


# ======================================================================================================================
# Mathematics
# ======================================================================================================================
def returns_to_go(rewards: Tensor, gamma: float) -> Tensor:
    """Discounted sums of what follows each step; everything (num_steps, num_envs), rewards 0 after an episode's end.

        G_t = r_t + gamma * G_{t+1}

    Source: Sutton & Barto 2018, section 3.3.
    """
    returns, following = [], torch.zeros_like(rewards[0])
    for reward in reversed(rewards.unbind()):  # last step first
        following = reward + gamma * following
        returns.append(following)
    return torch.stack(returns[::-1])


def normalize_returns(returns: Tensor, alive: Tensor) -> Tensor:
    """Returns less their mean over the episodes still alive at the same step, divided by the std of what is left; 0
    after an episode's end. Everything (num_steps, num_envs).

        (G_t - mean of G_t over episodes) / std

    The mean of the other episodes depends on no action of this one, so it is a baseline; an episode's own part in the
    mean only shrinks the estimate. A mean over all steps would do too, but where all episodes fail alike, as they do at
    first on Acrobot-v1, it would praise late steps and blame early ones; this one is silent.
    Source: ours; that a baseline leaves the expected gradient alone is in Sutton & Barto 2018, section 13.4.
    """
    returns = returns - returns[:, :1]  # no part of the formula; where all agree it leaves 0, not rounding errors
    means = (alive * returns).sum(1, keepdim=True) / alive.sum(1, keepdim=True)
    returns = alive * (returns - means)
    return returns / (returns[alive].std(correction=0) + 1e-8)


def reinforce_loss(log_probs: Tensor, returns: Tensor, alive: Tensor) -> Tensor:
    """The loss whose negative gradient is, but for gamma^t, the policy gradient; everything (num_steps, num_envs).

        loss = -1 / num_envs * sum over episodes and their steps of log pi(a_t|s_t) * G_t

    A product for every step, summed over the episode's steps and averaged over episodes. The factor gamma^t of the
    discounted objective is left out, as nearly everywhere: it would teach almost nothing about late steps, which matter
    as much as early ones when the undiscounted return is what counts.
    Source: Sutton & Barto 2018, section 13.3.
    """
    return -(alive * log_probs * returns).sum() / alive.shape[1]


# ======================================================================================================================
# Training
# ======================================================================================================================
def train(args: Args, checkpoint: dict | None = None) -> dict:
    """Train, evaluate, and return what summary.json holds."""
    device = check_args(args)
    if args.total_timesteps < args.num_envs:
        fail(f"--total-timesteps {args.total_timesteps} is less than one step of {args.num_envs} environments")
    if args.norm_returns and args.num_envs < 2:
        fail("--norm-returns compares episodes of one iteration, so --num-envs must be at least 2")
    torch.set_num_threads(args.torch_threads)
    torch.manual_seed(args.seed)

    envs = make_envs(args)
    obs_dim, num_actions = envs.single_observation_space.shape[0], envs.single_action_space.n
    actor = Actor(obs_dim, num_actions).to(device)
    optimizer = torch.optim.Adam(actor.parameters(), lr=args.learning_rate, fused=True)
    run = Run(args, {"actor": actor, "optimizer": optimizer}, args.total_timesteps, device, checkpoint)

    # The environments' streams differ between seeds, and a resumed run does not replay the episodes it began with.
    seeds = np.random.SeedSequence([args.seed, run.global_step]).generate_state(args.num_envs)
    envs.reset(seed=seeds.tolist())
    while run.global_step < args.total_timesteps:
        with torch.inference_mode():  # no_grad with less overhead: nothing made here is differentiated later
            # ---- ROLLOUT ----
            # One whole episode in every environment. `alive` holds until an environment's own episode has ended; the
            # vector environment steps it on until the longest episode ends. Those steps count, but teach nothing.
            obs, actions, rewards, alive = [], [], [], [np.ones(args.num_envs, bool)]
            current_obs, _ = envs.reset()
            run.lengths[:] = 0  # they went on after the ends; the returns did not, for their rewards are 0
            while alive[-1].any() and run.global_step < args.total_timesteps:
                obs.append(current_obs.astype(np.float32))
                actions.append(actor.sample(torch.as_tensor(obs[-1], device=device)).cpu().numpy())
                current_obs, reward, terminated, truncated, _ = envs.step(actions[-1])
                done = terminated | truncated
                rewards.append(np.float32(reward * alive[-1]))
                run.record_step(rewards[-1], np.flatnonzero(done & alive[-1]))
                alive.append(alive[-1] & ~done)
            if alive.pop().any():
                break  # the steps are spent within an episode, and a part of one has no return to learn from

        with torch.no_grad():
            # ---- ADVANTAGE ----
            b_obs, b_actions, b_rewards, b_alive = (
                torch.as_tensor(np.stack(array), device=device) for array in (obs, actions, rewards, alive)
            )
            returns = returns_to_go(b_rewards, args.gamma)
            if args.norm_returns:
                returns = normalize_returns(returns, b_alive)

        # ---- UPDATE ----
        dist = actor(b_obs)
        policy_loss = reinforce_loss(dist.log_prob(b_actions), returns, b_alive)
        optimizer.zero_grad()
        policy_loss.backward()
        grad_norm = nn.utils.get_total_norm([p.grad for p in actor.parameters()])
        optimizer.step()

        # ---- LOG ----
        losses = {"policy_loss": policy_loss.item(), "grad_norm": grad_norm.item()}
        losses["entropy"] = dist.entropy()[b_alive].mean().item()
        run.record_iteration(losses)

    envs.close()
    run.save()
    return run.finish(evaluate(actor, args, device))


# ======================================================================================================================
# Scaffold: argument checks, environments, evaluation, the run directory. The same in every script.
# ======================================================================================================================
SCRIPT = Path(__file__)


def fail(message: object) -> NoReturn:
    """End the program as bad input does: one line on standard error, exit status 2."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


def parse_args() -> tuple[Args, dict | None]:
    """The flags and, with --resume, the checkpoint to go on from. What was learned with one set of hyperparameters is
    not mixed with another: only the length of the run and how it is run can be given anew."""
    args, checkpoint = tyro.cli(Args, description=__doc__), None
    if args.resume is not None:
        run_dir, checkpoint = args.resume, load_checkpoint(args.resume)
        if args.run_dir is not None:
            fail(f"--resume goes on in {run_dir}; leave --run-dir out")
        args = tyro.cli(Args, default=Args(**checkpoint["args"] | {"run_dir": run_dir, "resume": run_dir}))
        may_change = "total_timesteps device torch_threads log_interval checkpoint_interval eval_episodes capture_video"
        for name, value in checkpoint["args"].items():
            if getattr(args, name) != value and name not in (*may_change.split(), "run_dir", "resume"):
                fail(f"--{name.replace('_', '-')} is {value} in {run_dir} and cannot change; start a new run")
        if args.total_timesteps < min(checkpoint["global_step"], checkpoint["args"]["total_timesteps"]):
            fail(f"{run_dir} is at step {checkpoint['global_step']:,} already; --total-timesteps must be more")
        if not os.access(run_dir, os.W_OK):
            fail(f"cannot write to {run_dir}")
    elif args.run_dir is None:
        name = f"{args.env_id}__{SCRIPT.stem}__{args.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
        args.run_dir = Path("runs") / name.replace("/", "_").replace(":", "_")
    return args, checkpoint


def check_args(args: Args) -> torch.device:
    """Refuse flags that cannot work, whatever the algorithm; return the device that --device means."""
    for field in fields(args):
        flag, value = "--" + field.name.replace("_", "-"), getattr(args, field.name)
        least = 0 if field.name == "seed" else 1
        if field.type is int and not least <= value < 2**63:
            fail(f"{flag} must be a whole number of at least {least}, not {value}")
        if isinstance(value, float) and not 0 <= value < math.inf:
            fail(f"{flag} must be a finite number and not negative, not {value}")
        if field.name in ("gamma", "gae_lambda", "rms_alpha", "line_search_shrinking_factor") and value > 1:
            fail(f"{flag} must lie between 0 and 1, not at {value}")
    works = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = next(name for name in ("cuda", "mps", "cpu") if works[name]) if args.device == "auto" else args.device
    if not works[name]:
        fail(f"--device {name}: PyTorch finds no such device here; --device cpu works everywhere")
    return torch.device(name)


def make_env(args: Args, **options: str) -> gym.Env:
    """One environment as the networks see it: flat observations, actions counted from 0."""
    try:
        env = gym.make(args.env_id, **options)
    except gym.error.UnregisteredEnv:
        known = {name.lower(): name for name in gym.registry}
        near = [known[name] for name in get_close_matches(args.env_id.lower(), known)]
        fail(f"there is no environment {args.env_id}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    except (gym.error.Error, ImportError, TypeError) as error:
        fail(f"{args.env_id} cannot be made: {error}")
    if not isinstance(env.action_space, gym.spaces.Discrete):
        hint = "; use ppo_continuous.py" if isinstance(env.action_space, gym.spaces.Box) else ""
        fail(f"{args.env_id} has {type(env.action_space).__name__} actions, {SCRIPT.name} takes Discrete ones{hint}")
    if env.action_space.start != 0:
        start, n = env.action_space.start, env.action_space.n
        env = gym.wrappers.TransformAction(env, lambda action: action + start, gym.spaces.Discrete(n))
    if not env.observation_space.is_np_flattenable:
        fail(f"{args.env_id} has {type(env.observation_space).__name__} observations, which cannot be flattened")
    is_flat = isinstance(env.observation_space, gym.spaces.Box) and len(env.observation_space.shape) == 1
    return env if is_flat else gym.wrappers.FlattenObservation(env)


def make_envs(args: Args) -> SyncVectorEnv:
    """num_envs environments stepped together. In SAME_STEP mode an ended episode's successor starts within the same
    step; Gymnasium's default would insert a step that ignores the action, and we would train on it. Observations are
    not copied: the next step overwrites them."""
    if args.capture_video:  # find out now rather than after the training
        if find_spec("moviepy") is None:
            fail("--capture-video needs moviepy: pip install moviepy")
        env = make_env(args, render_mode="rgb_array")
        try:
            env.reset()
            frame = env.render()
        except Exception as error:  # renderers fail in as many ways as there are renderers
            fail(f"--capture-video cannot render {args.env_id}: {error}")
        if frame is None:
            fail(f"--capture-video: {args.env_id} renders nothing")
        env.close()
    makers = [lambda: make_env(args)] * args.num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP, copy=False)


@torch.no_grad()
def evaluate(actor: Actor, args: Args, device: torch.device) -> np.ndarray:
    """Undiscounted returns, (eval_episodes,), of the mode of the policy in an environment with seeds of its own."""
    env = make_env(args, **({"render_mode": "rgb_array"} if args.capture_video else {}))
    if args.capture_video:
        folder, prefix = str(args.run_dir / "videos"), f"after-{args.total_timesteps}-steps"
        env = gym.wrappers.RecordVideo(env, folder, lambda i: i < 3, name_prefix=prefix, disable_logger=True)
    returns = np.zeros(args.eval_episodes)
    seeds = np.random.SeedSequence(args.seed, spawn_key=(1,)).generate_state(args.eval_episodes)
    for episode, seed in enumerate(seeds.tolist()):
        obs, _ = env.reset(seed=seed)
        for _ in range(10_000):  # where there is no time limit, a deterministic policy may walk in circles for ever
            action = actor(torch.as_tensor(obs, dtype=torch.float32, device=device)).mode
            obs, reward, terminated, truncated, _ = env.step(action.cpu().numpy()[()])  # [()]: a scalar, if Discrete
            returns[episode] += reward
            if terminated or truncated:
                break
    env.close()
    return returns


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename: a kill or a full disk leaves the old file as it was."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(run_dir: Path) -> dict:
    """The checkpoint in `run_dir`. weights_only: a file from elsewhere can hold no code that would run here."""
    path = run_dir / "checkpoint.pt"
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        script = checkpoint["script"]
        if script == SCRIPT.name:
            Args(**checkpoint["args"])  # raises where the flags are of another version
    except FileNotFoundError:
        fail(f"there is no checkpoint in {run_dir}")
    except Exception as error:  # a damaged file can make the reader raise anything
        fail(f"{path} is damaged or no checkpoint of {SCRIPT.name} ({type(error).__name__})")
    if script != SCRIPT.name:
        fail(f"{run_dir} is a run of {script}; go on with: python {script} --resume {run_dir}")
    return checkpoint


class Run:
    """The run directory and what is written to it; nothing here takes part in the learning.

    args.json      flags, versions, device, the script's sha256
    events.out.*   TensorBoard: charts/episodic_return, charts/episodic_length, charts/SPS, losses/*, eval/*
    checkpoint.pt  networks, optimisers, counters and random state, as tensors and plain values
    summary.json   the results; written last, so its presence means success
    """

    COUNTERS = ("iteration", "global_step", "episodes", "seconds")

    def __init__(self, args: Args, modules: dict, total_steps: int, device: torch.device, checkpoint: dict | None):
        self.args, self.modules, self.device = args, modules, device
        self.iteration, self.global_step, self.episodes, self.seconds = 0, 0, 0, 0.0  # seconds: of training
        self.recent_returns: deque[float] = deque(maxlen=100)
        self.returns, self.lengths = np.zeros(args.num_envs), np.zeros(args.num_envs, int)  # of the running episodes
        if checkpoint:
            self.restore(checkpoint)
            if self.global_step < total_steps:  # the run is unfinished again
                (args.run_dir / "summary.json").unlink(missing_ok=True)
        else:
            try:
                args.run_dir.mkdir(parents=True)
            except FileExistsError:
                fail(f"{args.run_dir} exists; name another --run-dir, or go on with --resume {args.run_dir}")
            except OSError as error:
                fail(f"cannot create {args.run_dir}: {error.strerror}")
        about = {
            "script": SCRIPT.name,
            "script_sha256": hashlib.sha256(SCRIPT.read_bytes()).hexdigest(),
            "versions": {"python": platform.python_version()} | {m.__name__: m.__version__ for m in (torch, gym, np)},
            "device": str(device),
        }
        write_atomically(args.run_dir / "args.json", json.dumps(self.flags() | about, indent=2).encode())
        # After a kill the event file can be ahead of the checkpoint: purge_step disowns what will be done again.
        self.writer = SummaryWriter(args.run_dir, purge_step=self.global_step + 1 if checkpoint else None)
        whole = "" if total_steps == args.total_timesteps else f" (whole batches within {args.total_timesteps:,})"
        print(f"{SCRIPT.name}: {args.env_id}, seed {args.seed}, {device}, {total_steps:,} steps{whole}, {args.run_dir}")
        if checkpoint:
            print(f"resumed at step {self.global_step:,} with fresh episodes: the same statistically, not bit for bit")
        self.bar = tqdm(total=total_steps, initial=self.global_step, unit=" steps", disable=not sys.stderr.isatty())
        self.next_log = self.global_step
        self.start = self.saved = time.perf_counter() - self.seconds
        self.save()

    def flags(self) -> dict:
        """The flags as plain values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self.args).items()}

    def restore(self, checkpoint: dict) -> None:
        """Take over all that a checkpoint holds."""
        try:
            for name, module in self.modules.items():
                module.load_state_dict(checkpoint[name])
            for name in self.COUNTERS:
                setattr(self, name, checkpoint[name])
            self.recent_returns.extend(checkpoint["recent_returns"])
            torch.set_rng_state(checkpoint["rng_state"])
            if self.device.type != "cpu" and "device_rng_state" in checkpoint:
                getattr(torch, self.device.type).set_rng_state(checkpoint["device_rng_state"])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            fail(f"the checkpoint in {self.args.run_dir} does not fit these flags: {error}")

    def save(self) -> None:
        """Write checkpoint.pt. The events go to disk first: a checkpoint is never ahead of them."""
        self.writer.flush()
        self.saved = time.perf_counter()
        self.seconds = self.saved - self.start
        state = {name: module.state_dict() for name, module in self.modules.items()}
        state |= {name: getattr(self, name) for name in self.COUNTERS} | {
            "script": SCRIPT.name,
            "args": self.flags(),
            "recent_returns": list(self.recent_returns),
            "rng_state": torch.get_rng_state(),
        }
        if self.device.type != "cpu":  # torch.cuda or torch.mps
            state["device_rng_state"] = getattr(torch, self.device.type).get_rng_state()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.args.run_dir / "checkpoint.pt", buffer.getvalue())

    def record_step(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """Count one step of every environment, rewards (num_envs,), and log the episodes of those in `ended`."""
        self.global_step += len(rewards)
        self.returns += rewards
        self.lengths += 1
        for i in ended:
            self.writer.add_scalar("charts/episodic_return", self.returns[i], self.global_step)
            self.writer.add_scalar("charts/episodic_length", self.lengths[i], self.global_step)
            self.recent_returns.append(float(self.returns[i]))
            self.episodes += 1
            self.returns[i] = self.lengths[i] = 0

    def record_iteration(self, losses: dict[str, float]) -> None:
        """Stop where learning broke down; else log, show and, when it is time, save."""
        self.iteration += 1
        for name, value in losses.items():
            if not math.isfinite(value):
                self.bar.close()
                kept = self.args.run_dir / "checkpoint.pt"
                sys.exit(
                    f"error: {name} is {value} in iteration {self.iteration}; the last checkpoint is intact, {kept}"
                )
        sps = self.global_step / (time.perf_counter() - self.start)
        if self.global_step >= self.next_log:
            self.next_log = self.global_step + self.args.log_interval
            self.writer.add_scalar("charts/SPS", sps, self.global_step)
            for name, value in losses.items():
                self.writer.add_scalar(f"losses/{name}", value, self.global_step)
        if not self.bar.disable:
            self.bar.set_postfix_str(self.status(), refresh=False)
            self.bar.update(self.global_step - self.bar.n)
        if time.perf_counter() - self.saved > self.args.checkpoint_interval:
            self.save()
            if self.bar.disable:
                print(f"step {self.global_step:,}, {self.status()}, {sps:,.0f} steps/s", flush=True)

    def status(self) -> str:
        return f"return {np.mean(self.recent_returns):.1f}" if self.recent_returns else "no episode has ended yet"

    def finish(self, eval_returns: np.ndarray) -> dict:
        """Write and return the summary; returns are undiscounted, seconds those of training."""
        self.bar.close()
        self.writer.add_scalar("eval/episodic_return", eval_returns.mean(), self.global_step)
        self.writer.close()
        summary = {
            "env_id": self.args.env_id,
            "script": SCRIPT.name,
            "seed": self.args.seed,
            "global_step": self.global_step,
            "wall_seconds": self.seconds,
            "sps": self.global_step / self.seconds,
            "train_return_mean": float(np.mean(self.recent_returns)) if self.recent_returns else None,
            "train_episodes": self.episodes,
            "eval_return_mean": float(eval_returns.mean()),
            "eval_return_std": float(eval_returns.std()),
            "eval_episodes": len(eval_returns),
        }
        write_atomically(self.args.run_dir / "summary.json", json.dumps(summary, indent=2).encode())
        if not self.episodes:
            print("no episode has ended in all these steps, so there is no training return")
        if not self.iteration:
            print("no update was made in so few steps: what is evaluated is the untrained policy")
        print("evaluation: return {eval_return_mean:.1f} +- {eval_return_std:.1f} over {eval_episodes} episodes; "
              "{global_step:,} steps, {train_episodes:,} episodes, {sps:,.0f} steps/s".format(**summary))  # fmt: skip
        return summary


if __name__ == "__main__":
    args, checkpoint = parse_args()
    try:
        train(args, checkpoint)
    except (KeyboardInterrupt, OSError) as error:  # OSError: a full disk, for one; bad input has been refused by now
        stopped = isinstance(error, KeyboardInterrupt)
        resumable = (args.run_dir / "checkpoint.pt").exists()
        hint = f"; go on with: python {SCRIPT.name} --resume {args.run_dir}" if resumable else ""
        print("\nstopped" if stopped else f"error: {error}", hint, sep="", file=sys.stderr)
        sys.exit(130 if stopped else 1)
