# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "gymnasium>=1.4", "numpy>=2.0", "tyro>=1.0", "filelock>=3.22",
#                 "tensorboard>=2.21", "tqdm>=4.66"]
# ///
"""Advantage Actor-Critic (A2C), the synchronous form of A3C, for Discrete actions.

Collect a very short segment from many environments, let the critic estimate what would follow,
and take one gradient step on the policy gradient, the value error and, if ent_coef is not 0, an
entropy bonus. Then throw the segment away: the policy that made it is gone.

Paper: Mnih et al. 2016, Asynchronous Methods for Deep Reinforcement Learning, arXiv:1602.01783
Run: python a2c.py --env-id CartPole-v1 --seed 1

Compared with reinforce_baseline.py:
- segments of num_steps from every environment instead of whole episodes: an update need not
  wait for an end;
- the critic's estimate of what follows a segment (bootstrapping): some bias, far less variance.
  The advantage is GAE; gae_lambda = 1 gives the n-step returns of the paper;
- a time limit no longer counts as an end: the critic estimates what would have followed;
- policy and critic learn in one step on one loss, a mean over steps instead of a sum over each
  episode's, with clipped gradients;
- RMSprop, whose step size is annealed to 0, instead of Adam;
- rewards are scaled by reward_scale; norm_adv is off by default.

Not in the paper: GAE; a mean of the loss over steps (the paper sums the gradients); rms_eps
added to the root of the running mean (the paper adds it under the root).
"""

import hashlib
import json
import random
import sys
import time
import traceback
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import gymnasium as gym
import numpy as np
import torch
import tyro
from filelock import FileLock
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    # Defaults: Stable-Baselines3's, which go back to the paper's by way of OpenAI Baselines;
    # anneal_lr is the paper's. Rewards are scaled by 0.1: with 1, three of twenty seeds ended
    # below 475.
    env_id: str = "CartPole-v1"  # with Discrete actions; one of a package: ale_py:ALE/Pong-v5
    total_timesteps: int | float = 300_000  # environment steps in all, rounded down to batches
    num_envs: int = 8  # environments stepped side by side
    num_steps: int = 5  # steps per environment and iteration; a batch is num_envs * num_steps
    learning_rate: float = 7e-4  # RMSprop's initial step size
    anneal_lr: bool = True  # decrease the step size linearly to 0 over the run
    gamma: float = 0.99  # discount factor
    gae_lambda: float = 1.0  # bias (0: one-step TD error) against variance (1: n-step return)
    reward_scale: float = 0.1  # factor on rewards: extreme sizes learn slowly; not in the paper
    norm_adv: bool = False  # normalise advantages in each batch; not in the paper
    ent_coef: float = 0.0  # weight of the entropy bonus, which keeps the policy exploring
    vf_coef: float = 0.5  # weight of the value loss
    max_grad_norm: float = 0.5  # longer gradients are scaled down to this norm; inf: never
    rms_alpha: float = 0.99  # decay of RMSprop's running mean of squared gradients; the paper's
    rms_eps: float = 1e-5  # added to the root of that mean; a larger one damps small gradients

    # The run: the same flags in every script.
    env_kwargs: str = "{}"  # JSON object of arguments for the environment: '{"name": value}'
    seed: int = 1  # fixes the run bit for bit, on one machine and with one set of versions
    device: Literal["cpu", "cuda", "mps"] = "cpu"  # small networks are fastest on the cpu
    torch_threads: int = 1  # more rarely help small networks, and parallel runs share the cores
    log_interval: int = 500  # minimum steps between two entries of losses/* and charts/SPS
    checkpoint_interval: float = 10.0  # least seconds between checkpoints; 0: every iteration
    eval_episodes: int = 20  # final episodes, with the policy's mode, of at most 10000 steps
    run_dir: Path | None = None  # default: runs/ENV__SCRIPT__SEED__TIME
    resume: Path | None = None  # run directory to resume, with its own flags


LIMITS = {  # of numeric flags. Those not named: 0 to 1e15, or 1 to 1e15 if whole
    "seed": (0, 1e15), "gamma": (0, 1), "gae_lambda": (0, 1), "reward_scale": (1e-9, 1e9),
    "max_grad_norm": (1e-9, np.inf), "rms_alpha": (0, 1), "rms_eps": (1e-15, 1e9),
}  # fmt: skip


# ==============================================================================================
# Networks
# ==============================================================================================
def mlp(in_features: int, out_features: int, out_gain: float) -> nn.Sequential:
    """Two hidden layers of 64 tanh units. A small `out_gain` starts the output near zero."""
    hidden = [nn.Linear(in_features, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]
    net = nn.Sequential(*hidden, nn.Linear(64, out_features))
    for layer in net:
        if isinstance(layer, nn.Linear):  # orthogonal weights, as in OpenAI Baselines
            nn.init.orthogonal_(layer.weight, out_gain if layer is net[-1] else np.sqrt(2))
            nn.init.zeros_(layer.bias)
    return net


class Actor(nn.Module):
    """The policy pi(a|s): observations (..., obs_dim) -> Categorical (...) over num_actions."""

    def __init__(self, obs_dim: int, num_actions: int):
        super().__init__()
        self.logits = mlp(obs_dim, num_actions, out_gain=0.01)  # near uniform at the start

    def forward(self, obs: Tensor) -> Categorical:
        return Categorical(logits=self.logits(obs), validate_args=False)  # validation is slow

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """Actions (...) distributed as forward(obs).sample(), but faster: the argmax of logits
        plus Gumbel noise, -log of an Exp(1) variable, is a draw from their softmax."""
        logits = self.logits(obs)
        return (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)


class Critic(nn.Module):
    """The value function V(s): observations (..., obs_dim) -> values (...)."""

    def __init__(self, obs_dim: int):
        super().__init__()
        self.value = mlp(obs_dim, 1, out_gain=1.0)

    def forward(self, obs: Tensor) -> Tensor:
        return self.value(obs).squeeze(-1)


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


def a2c_loss(
    dist: Distribution, values: Tensor, actions: Tensor,
    advantages: Tensor, returns: Tensor, vf_coef: float, ent_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """The loss to minimise, and what to log. Tensors are (batch,); actions may be (batch, n).

        policy = -mean log pi(a|s) * A
        loss   = policy + vf_coef * mean (V(s) - returns)^2 - ent_coef * mean entropy

    Source: Mnih et al. 2016, section 4, asynchronous advantage actor-critic.
    """
    policy_loss = -(dist.log_prob(actions) * advantages).mean()
    value_loss = nn.functional.mse_loss(values, returns)
    entropy = dist.entropy().mean()
    loss = policy_loss + vf_coef * value_loss - ent_coef * entropy  # a bonus lowers the loss
    stats = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return loss, stats


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
    num_iterations = args.total_timesteps // batch_size
    if num_iterations == 0:
        raise BadInput(f"total_timesteps must be at least one batch, {batch_size} steps")
    if args.norm_adv and batch_size < 2:
        raise BadInput("norm_adv needs a batch of at least 2 steps (num_envs * num_steps)")

    with Run(args) as run:
        envs = [run.enter_context(make_env(args)) for _ in range(args.num_envs)]
        obs_dim, num_actions = envs[0].observation_space.shape[0], int(envs[0].action_space.n)
        actor, critic = Actor(obs_dim, num_actions).to(device), Critic(obs_dim).to(device)
        weights = flatten(actor, critic)  # clipped and stepped as one: a tenth faster
        alpha, eps = args.rms_alpha, args.rms_eps
        optimizer = torch.optim.RMSprop([weights], lr=args.learning_rate, alpha=alpha, eps=eps)
        state = {"actor": actor, "critic": critic, "optimizer": optimizer}
        run.start(state, num_iterations * batch_size)

        # One segment, which every rollout overwrites. next_obs is what a step really led to.
        obs, next_obs = np.zeros((2, args.num_steps, args.num_envs, obs_dim), np.float32)
        actions = np.zeros((args.num_steps, args.num_envs), np.int64)
        rewards = np.zeros((args.num_steps, args.num_envs), np.float32)
        terminated, truncated = np.zeros((2, args.num_steps, args.num_envs), bool)

        # Seeds of 31 bits, as simulators take. A resumed run does not replay its beginning.
        seeds = np.random.SeedSequence([args.seed, run.global_step]).generate_state(len(envs))
        resets = [env.reset(seed=int(seed // 2)) for env, seed in zip(envs, seeds, strict=True)]
        current_obs = np.array([obs for obs, _ in resets], np.float32)  # (num_envs, obs_dim)

        for iteration in range(run.global_step // batch_size, num_iterations):
            # ---- ROLLOUT ----
            for t in range(args.num_steps):
                obs[t] = current_obs
                actions[t] = actor.sample(torch.as_tensor(obs[t], device=device)).cpu().numpy()
                for i, env in enumerate(envs):
                    result = env.step(actions[t, i])
                    next_obs[t, i], rewards[t, i], terminated[t, i], truncated[t, i], _ = result
                    current_obs[i] = next_obs[t, i]
                    if terminated[t, i] or truncated[t, i]:
                        current_obs[i], _ = env.reset()  # next_obs keeps where it ended
                run.record_step(rewards[t], terminated[t] | truncated[t], obs[t], next_obs[t])

            with torch.no_grad():
                # ---- ADVANTAGE ----
                # s_: the segment, (num_steps, num_envs, ...); b_: the same, flattened.
                s_obs, s_next_obs, s_actions, s_rewards, s_terminated, s_truncated = (
                    torch.as_tensor(array, device=device)
                    for array in (obs, next_obs, actions, rewards, terminated, truncated)
                )
                s_rewards = args.reward_scale * s_rewards
                values, next_values = critic(s_obs), critic(s_next_obs)  # one pass, not many
                advantages = gae(
                    s_rewards, values, next_values, s_terminated, s_truncated,
                    args.gamma, args.gae_lambda,
                )  # fmt: skip
                returns = advantages + values  # of advantages that are not normalised

            # ---- UPDATE ----
            remaining = 1 - iteration / num_iterations if args.anneal_lr else 1.0
            optimizer.param_groups[0]["lr"] = args.learning_rate * remaining
            b_obs, b_actions, b_advantages, b_returns = (
                x.flatten(0, 1) for x in (s_obs, s_actions, advantages, returns)
            )
            if args.norm_adv:
                mean, std = b_advantages.mean(), b_advantages.std()
                b_advantages = (b_advantages - mean) / (std + 1e-30)  # may be 0
            loss, stats = a2c_loss(
                actor(b_obs), critic(b_obs), b_actions,
                b_advantages, b_returns, args.vf_coef, args.ent_coef,
            )  # fmt: skip
            weights.grad.zero_()  # optimizer.zero_grad() would cut the views
            loss.backward()
            stats["grad_norm"] = nn.utils.clip_grad_norm_(weights, args.max_grad_norm)
            optimizer.step()

            # ---- LOG ----
            losses = {name: value.item() for name, value in stats.items()}
            unexplained, total = (returns - values).var(correction=0), returns.var(correction=0)
            losses["explained_variance"] = (1 - unexplained / total).item() if total else 0.0
            losses["learning_rate"] = optimizer.param_groups[0]["lr"]
            run.record_iteration(losses)

        return evaluate(actor, envs[0], run)


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
    """One environment for the networks: flat observations, and actions as the policy draws."""
    try:
        env = gym.make(args.env_id, **json.loads(args.env_kwargs), **kwargs)
        if len(shape := env.observation_space.shape or ()) == 3 and np.prod(shape) > 1024:
            gym.logger.warn(f"images {shape} are flattened here, not in ppo_images.py")
        if not isinstance(env.observation_space, Box) or len(env.observation_space.shape) != 1:
            with suppress(NotImplementedError):  # of a space that is not Gymnasium's
                env = gym.wrappers.FlattenObservation(env)
    except (gym.error.Error, ModuleNotFoundError, TypeError, ValueError) as error:
        if isinstance(error, TypeError) and "argument" not in str(error):
            raise  # an error in the environment's own code
        hint = f" Or package:{args.env_id}?" * isinstance(error, gym.error.UnregisteredEnv)
        raise BadInput(f"{args.env_id} with {args.env_kwargs}: {error}{hint}") from None
    if not isinstance(env.observation_space, Box) or 0 in env.observation_space.shape:
        raise BadInput(f"{args.env_id} has observations that cannot be flattened")
    if not isinstance(env.action_space, Discrete) or env.action_space.start:
        text = f"{args.env_id} has actions {env.action_space}, not Discrete(n)"
        raise BadInput(f"{text}; for Box(n) see ppo_continuous.py and sac.py")
    return env


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
