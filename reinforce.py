# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "gymnasium>=1.4", "numpy>=2.0", "tyro>=1.0", "filelock>=3.22",
#                 "tensorboard>=2.21", "tqdm>=4.66"]
# ///
"""REINFORCE, the Monte Carlo policy gradient, for Discrete actions.

Run whole episodes with the current policy, and make each action more probable in proportion to
the return G_t that followed it. For gamma = 1 this climbs the expected return: its gradient is
the expected sum over steps of grad log pi(a_t|s_t) * G_t. Only rewards after the action count,
because it cannot have caused the earlier ones. Nothing is learned but the policy.

Papers: Williams 1992, Simple Statistical Gradient-Following Algorithms for Connectionist
Reinforcement Learning; Sutton & Barto 2018, Reinforcement Learning, section 13.3
Run: python reinforce.py --env-id CartPole-v1 --seed 1

Not in the papers: Adam, several episodes per update, --norm-returns, and the missing factor
gamma^t (see reinforce_loss). An episode that a time limit cuts counts as complete, because no
critic is there to estimate the rest.
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
from torch.distributions import Categorical
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    # Defaults: ours. Some seeds lose a good policy again: without a baseline the gradient is
    # noisy. With --norm-returns none of 40 did.
    env_id: str = "CartPole-v1"  # with Discrete actions; one of a package: ale_py:ALE/Pong-v5
    total_timesteps: int | float = 300_000  # environment steps; episodes they cut are unused
    num_envs: int = 8  # environments stepped side by side, one episode each per iteration
    learning_rate: float = 2e-3  # Adam's step size
    gamma: float = 0.99  # discount factor
    norm_returns: bool = False  # subtract the mean return of the same step, divide by the std

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
    "seed": (0, 1e15), "gamma": (0, 1),
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


# ==============================================================================================
# Mathematics
# ==============================================================================================
def returns_to_go(rewards: Tensor, gamma: float) -> Tensor:
    """Discounted sums of the rewards from each step on. Everything is (num_steps, num_envs),
    and rewards are 0 after an episode's end.

        G_t = r_t + gamma * G_{t+1}

    Source: Sutton & Barto 2018, section 3.3.
    """
    returns, following = [], torch.zeros_like(rewards[0])
    for reward in reversed(rewards.unbind()):
        following = reward + gamma * following
        returns.append(following)
    return torch.stack(returns[::-1])


def normalize_returns(returns: Tensor, alive: Tensor) -> Tensor:
    """Returns minus their mean over the episodes still alive at the same step, divided by the
    std of the result; 0 after an episode's end. Everything is (num_steps, num_envs).

        (G_t - mean of G_t over episodes) / std

    The mean of the other episodes depends on no action of this one, so it is a baseline that
    depends on time. This episode is part of the mean, too: with n_t alive that scales step t by
    (n_t - 1) / n_t, so the last one alive learns nothing. Dividing by a std of the same batch
    adds a small bias. With one mean for all steps, episodes that all fail alike, as at first on
    Acrobot-v1, would praise late steps and blame early ones; here they change nothing.
    Sources: ours; for baselines Sutton & Barto 2018, section 13.4; for one that depends on time
    Schulman et al. 2016, High-Dimensional Continuous Control Using GAE, section 6.3.
    """
    returns = returns - returns[:, :1]  # makes equal returns exactly 0, without rounding errors
    means = (alive * returns).sum(1, keepdim=True) / alive.sum(1, keepdim=True)
    returns = alive * (returns - means)
    return returns / (returns[alive].std(correction=0) + 1e-30)  # all equal: the std is 0


def reinforce_loss(log_probs: Tensor, returns: Tensor, alive: Tensor) -> Tensor:
    """The loss of a batch of episodes. Everything is (num_steps, num_envs).

        loss = -1 / num_envs * sum over episodes and their steps of log pi(a_t|s_t) * G_t

    For gamma = 1 its negative gradient estimates that of the expected return. For gamma < 1 the
    gradient of the expected discounted return has a factor gamma^t at step t, with which late
    steps would hardly be learned from. Like most code this leaves it out, and then follows the
    gradient of no function at all (Nota & Thomas 2020, arXiv:1906.07073).
    Source: Sutton & Barto 2018, section 13.3.
    """
    # Divided by the number of episodes, not by their lengths, or long ones would count less.
    return -(alive * log_probs * returns).sum() / alive.shape[1]


# ==============================================================================================
# Training
# ==============================================================================================
def train(args: Args) -> dict:
    """Train, evaluate, return what summary.json holds; raise BadInput or FloatingPointError."""
    args = check_args(args)
    if not getattr(torch, args.device).is_available():
        raise BadInput(f"PyTorch finds no device {args.device} here")
    device = torch.device(args.device)
    if args.total_timesteps < args.num_envs:
        raise BadInput(f"total_timesteps must be at least {args.num_envs}, a step of each env")
    if args.norm_returns and args.num_envs < 2:
        raise BadInput("norm_returns compares episodes, so num_envs must be at least 2")

    with Run(args) as run:
        envs = [run.enter_context(make_env(args)) for _ in range(args.num_envs)]
        obs_dim, num_actions = envs[0].observation_space.shape[0], int(envs[0].action_space.n)
        actor = Actor(obs_dim, num_actions).to(device)
        optimizer = torch.optim.Adam(actor.parameters(), lr=args.learning_rate, fused=True)
        run.start({"actor": actor, "optimizer": optimizer}, args.total_timesteps)

        # Seeds of 31 bits, as simulators take. A resumed run does not replay its beginning.
        seeds = np.random.SeedSequence([args.seed, run.global_step]).generate_state(len(envs))
        for env, seed in zip(envs, seeds, strict=True):
            env.reset(seed=int(seed // 2))

        while run.global_step < args.total_timesteps:
            # ---- ROLLOUT ----
            # One whole episode in every environment. `alive` says whose episode still runs
            # at a step; the others wait, and their entries are never used.
            obs, actions, rewards, alive = [], [], [], []
            running = np.ones(args.num_envs, bool)
            current_obs = np.array([env.reset()[0] for env in envs], np.float32)
            while running.any() and run.global_step + running.sum() <= args.total_timesteps:
                obs.append(current_obs.copy())
                sampled = actor.sample(torch.as_tensor(obs[-1], device=device))
                actions.append(sampled.cpu().numpy())
                rewards.append(np.zeros(args.num_envs, np.float32))
                alive.append(running.copy())
                for i in np.flatnonzero(running):
                    result = envs[i].step(actions[-1][i])
                    current_obs[i], rewards[-1][i], terminated, truncated, _ = result
                    running[i] = not (terminated or truncated)
                done = alive[-1] & ~running
                run.record_step(rewards[-1], done, obs[-1], current_obs, stepped=alive[-1])
            if running.any() and np.sum(alive) == run.global_step:  # not one update was made
                step = run.global_step
                raise FloatingPointError(f"step {step}: no return, as an episode has not ended")
            if running.any():
                break  # the steps are spent, and a part of an episode has no return

            # ---- ADVANTAGE ----
            # s_: the batch of episodes, (num_steps, num_envs, ...), padded to the longest.
            s_obs, s_actions, s_rewards, s_alive = (
                torch.as_tensor(np.stack(array), device=device)
                for array in (obs, actions, rewards, alive)
            )
            returns = returns_to_go(s_rewards, args.gamma)
            if args.norm_returns:
                returns = normalize_returns(returns, s_alive)

            # ---- UPDATE ----
            dist = actor(s_obs)
            policy_loss = reinforce_loss(dist.log_prob(s_actions), returns, s_alive)
            optimizer.zero_grad()
            policy_loss.backward()
            grad_norm = nn.utils.get_total_norm([p.grad for p in actor.parameters()])
            optimizer.step()

            # ---- LOG ----
            losses = {"policy_loss": policy_loss.item(), "grad_norm": grad_norm.item()}
            losses["entropy"] = dist.entropy()[s_alive].mean().item()
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

    def record_step(self, rewards, done, *obs, stepped: np.ndarray) -> None:
        """Count a step of the environments that `stepped`; log the episodes that it ended."""
        self.global_step += int(stepped.sum())
        if any(np.vdot(x, np.zeros(x.shape, x.dtype)) != 0 for x in (rewards, *obs)):
            raise FloatingPointError(f"step {self.global_step}: reward or obs is not finite")
        self.returns += rewards
        self.lengths += stepped
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
