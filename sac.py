# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "gymnasium>=1.4", "numpy>=2.0", "tyro>=1.0", "filelock>=3.22",
#                 "tensorboard>=2.21", "tqdm>=4.66"]
# ///
"""Soft Actor-Critic (SAC), with a learned temperature, for continuous (Box) actions.

An off-policy method: every step goes into a replay buffer and is learned from many times,
whichever policy made it. Two critics learn Q(s, a), the expected return of taking action a and
following the current policy afterwards. The next action in their one-step target is drawn from
that policy, so no ratio of probabilities is needed. An action is a differentiable function of
noise, a = tanh(mean + std * noise), so the gradient of Q with respect to the action reaches the
policy's weights (the reparametrisation trick), and no advantage is needed either. The reward
includes the policy's entropy, weighted by the temperature alpha.

Papers: Haarnoja et al. 2018, Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement
Learning with a Stochastic Actor, arXiv:1801.01290; and Soft Actor-Critic Algorithms and
Applications, arXiv:1812.05905, for twin critics without V and for the temperature
Run: python sac.py --env-id Pendulum-v1 --seed 1

Compared with ppo_continuous.py:
- a replay buffer instead of segments, and gradient_steps updates after every step: far fewer
  environment steps, far more computing for each;
- two critics Q(s, a) instead of V(s). The smaller one counts, because the policy looks for
  actions that a critic overrates. They learn from slowly following copies of themselves;
- no GAE: the target looks one step ahead;
- the gradient through Q instead of a clipped ratio * A;
- tanh squashes the Gaussian into the bounds, which must be finite, instead of clipping it, and
  log pi is corrected for that; the std depends on the observation;
- the first learning_starts actions are uniformly random;
- the weight of the entropy is learned, so that the entropy stays near -action_dim;
- larger ReLU networks, a constant step size, nothing normalised, gradients not clipped.
"""

import hashlib
import json
import math
import os
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
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    # Defaults: the second paper's (Table 1), but a larger learning_rate, as rl-baselines3-zoo
    # has it for Pendulum-v1. learning_starts is not in the paper. Of ten runs of 10,000 steps,
    # not 15,000, one ended at -503. For MuJoCo: --learning-rate 3e-4 --learning-starts 10000.
    env_id: str = "Pendulum-v1"  # with Box actions; one of a package is package:Name
    total_timesteps: int | float = 15_000  # environment steps in all, in multiples of num_envs
    num_envs: int = 1  # environments stepped side by side
    gradient_steps: int = 1  # updates after each step of all environments
    learning_rate: float = 1e-3  # step size of Adam, for actor, critics and temperature
    gamma: float = 0.99  # discount factor
    buffer_size: int = 1_000_000  # newest transitions kept, in memory and in every checkpoint
    learning_starts: int = 1_000  # steps of uniformly random actions before the first update
    batch_size: int = 256  # transitions of one update, drawn uniformly from the buffer
    tau: float = 0.005  # after an update, target = (1 - tau) * target + tau * critic
    alpha: float | None = None  # fixed weight of the entropy (temperature); None: learned

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
    "seed": (0, 1e15), "gamma": (0, 1), "tau": (0, 1), "alpha": (1e-9, 1e9),
}  # fmt: skip


# ==============================================================================================
# Networks
# ==============================================================================================
def mlp(in_features: int, out_features: int) -> nn.Sequential:
    """Two hidden layers of 256 ReLU units, as in the papers, with PyTorch's initial weights."""
    hidden = [nn.Linear(in_features, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(256, out_features))


class SquashedGaussian:
    """The distribution of tanh(u), u ~ N(mean, std^2), on (-1, 1)^n. `mean` and `log_std` are
    (..., n), and the batch shape is (...)."""

    def __init__(self, mean: Tensor, log_std: Tensor):
        self.mean, self.log_std = mean, log_std

    @property
    def mode(self) -> Tensor:
        """tanh of the Gaussian's mode, the usual deterministic action, (..., n)."""
        return self.mean.tanh()

    def log_prob(self, u: Tensor) -> Tensor:
        """The log density of tanh(u), (...), from u, because atanh loses what tanh rounds off.

            log pi(tanh(u)) = log N(u) - sum over i of log(1 - tanh(u_i)^2)
            1 - tanh(u)^2   = 4 / (e^u + e^-u)^2, whose log is 2 (log 2 - u - softplus(-2 u))

        The last form is exact where tanh(u) rounds to 1 and the first would be log 0.
        It is not in the paper. Source of the first: Haarnoja et al. 2018, arXiv:1801.01290,
        appendix C.
        """
        noise = (u - self.mean) / self.log_std.exp()
        log_normal = -0.5 * noise**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
        return (log_normal - log_slope).sum(-1)

    def rsample(self) -> tuple[Tensor, Tensor]:
        """Actions (..., n), differentiable with respect to mean and std, and their log
        densities (...)."""
        u = self.mean + self.log_std.exp() * torch.randn_like(self.mean)
        return u.tanh(), self.log_prob(u)


class Actor(nn.Module):
    """The policy pi(a|s): observations (..., obs_dim) -> squashed Gaussian over (action_dim,),
    batch shape (...)."""

    def __init__(self, obs_dim: int, action_dim: int):
        super().__init__()
        self.mean_and_log_std = mlp(obs_dim, 2 * action_dim)

    def forward(self, obs: Tensor) -> SquashedGaussian:
        mean, log_std = self.mean_and_log_std(obs).chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(-20, 2))  # the authors' limits


class Critic(nn.Module):
    """Two action values Q(s, a): observations (..., obs_dim), actions (..., action_dim) ->
    values (2, ...). They differ by their initial weights alone."""

    def __init__(self, obs_dim: int, action_dim: int):
        super().__init__()
        self.q1, self.q2 = mlp(obs_dim + action_dim, 1), mlp(obs_dim + action_dim, 1)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        x = torch.cat([obs, actions], -1)
        return torch.stack([self.q1(x), self.q2(x)]).squeeze(-1)


class Temperature(nn.Module):
    """alpha, the weight of the entropy. It is learned as its log, so it stays positive."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha)))

    def forward(self) -> Tensor:
        return self.log_alpha.exp()


# ==============================================================================================
# Mathematics
# ==============================================================================================
def soft_q_targets(
    rewards: Tensor, next_q: Tensor, next_log_probs: Tensor, terminated: Tensor,
    alpha: Tensor, gamma: float,
) -> Tensor:  # fmt: skip
    """What the critics are fitted to, (batch,). rewards and next_log_probs are (batch,), next_q
    is (2, batch), from the target networks, terminated is (batch,), boolean, and alpha is ().
    With next actions a' that the policy has just drawn:

        y = r + gamma * (1 - terminated) * V(next_obs)
        V = min over i of Q_i(next_obs, a') - alpha * log pi(a'|next_obs)

    Sources: Haarnoja et al. 2018, arXiv:1812.05905, equations 3 and 5, and for the smaller of
    two critics section 6; Fujimoto et al. 2018, arXiv:1802.09477, section 4.2.
    """
    next_values = next_q.min(0).values - alpha * next_log_probs
    return rewards + gamma * next_values.masked_fill(terminated, 0.0)  # a time limit is no end


def critic_loss(q: Tensor, targets: Tensor) -> Tensor:
    """sum over i of 1/2 mean (Q_i(s, a) - y)^2 for q (2, batch) and targets y (batch,).
    Source: Haarnoja et al. 2018, arXiv:1812.05905, equation 5, for each critic (section 6)."""
    return 0.5 * ((q - targets) ** 2).mean(-1).sum()


def actor_loss(q: Tensor, log_probs: Tensor, alpha: Tensor) -> Tensor:
    """mean (alpha * log pi(a|s) - min_i Q_i(s, a)) with actions a that the policy has just
    drawn; q is (2, batch), log_probs (batch,). Both depend on the policy's weights.
    Source: Haarnoja et al. 2018, arXiv:1812.05905, equation 7, smaller critic: section 6."""
    return (alpha * log_probs - q.min(0).values).mean()


def temperature_loss(log_alpha: Tensor, log_probs: Tensor, target_entropy: float) -> Tensor:
    """-log alpha * mean (log pi(a|s) + target_entropy) for log_probs (batch,). Descending it
    lowers alpha while the entropy is above its target. The paper has alpha in place of log
    alpha, whose gradient has the same sign.
    Source: Haarnoja et al. 2018, arXiv:1812.05905, section 6, equation 18."""
    return -log_alpha * (log_probs.mean() + target_entropy)


# ==============================================================================================
# Training
# ==============================================================================================
class ReplayBuffer:
    """The newest `capacity` transitions. Checkpoints hold them, so a resumed run has them."""

    def __init__(self, capacity: int, obs_dim: int, action_dim: int):
        self.capacity, self.count = capacity, 0  # count: of all that were ever added
        self.arrays = [
            np.zeros((capacity, obs_dim), np.float32),  # obs
            np.zeros((capacity, action_dim), np.float32),  # actions
            np.zeros(capacity, np.float32),  # rewards
            np.zeros((capacity, obs_dim), np.float32),  # next_obs
            np.zeros(capacity, bool),  # terminated
        ]

    def add(self, *transitions: np.ndarray) -> None:
        """Take in (n, ...) new transitions. If the buffer is full, the oldest go."""
        rows = np.arange(self.count, self.count + len(transitions[0])) % self.capacity
        for array, values in zip(self.arrays, transitions, strict=True):
            array[rows] = values
        self.count += len(rows)

    def sample(self, batch_size: int, device: torch.device) -> list[Tensor]:
        """(batch_size, ...) transitions, drawn uniformly with replacement."""
        rows = torch.randint(min(self.count, self.capacity), (batch_size,)).numpy()
        return [torch.as_tensor(array[rows], device=device) for array in self.arrays]

    def state_dict(self) -> dict:
        """In pieces, without copies; load_state_dict() frees them one after the other."""
        filled = [array[: self.count] for array in self.arrays]
        pieces = [
            [torch.from_numpy(a[i : i + 8192]) for i in range(0, len(a), 8192)] for a in filled
        ]
        return {"count": self.count, "arrays": pieces}

    def load_state_dict(self, state_dict: dict) -> None:
        self.count = state_dict["count"]
        for array, pieces in zip(self.arrays, state_dict["arrays"], strict=True):
            start = 0
            while pieces:
                piece = pieces.pop(0)
                array[start : start + len(piece)] = piece
                start += len(piece)


def rescale_actions(env: gym.Env) -> gym.Env:
    """The environment with finite action bounds as +-1, so that a Gaussian's unit is half the
    range. With an infinite bound the unit stays, and 1e15 counts as infinite. Actions out of
    bounds are clipped."""
    space = env.action_space
    bounded = (np.abs(space.low) < 1e15) & (np.abs(space.high) < 1e15)
    low, high = np.where(bounded, [space.low, space.high], [[-1.0], [1.0]])
    center, half = (high + low) / 2, (high - low) / 2

    def rescale(action: np.ndarray) -> np.ndarray:
        return np.clip(center + half * action, space.low, space.high).astype(space.dtype)

    return gym.wrappers.TransformAction(env, rescale, Box(-np.inf, np.inf, space.shape))


def train(args: Args) -> dict:
    """Train, evaluate, return what summary.json holds; raise BadInput or FloatingPointError."""
    args = check_args(args)
    if not getattr(torch, args.device).is_available():
        raise BadInput(f"PyTorch finds no device {args.device} here")
    device = torch.device(args.device)
    num_iterations = args.total_timesteps // args.num_envs
    if num_iterations == 0:
        raise BadInput(f"total_timesteps must be at least num_envs, {args.num_envs}")
    if args.buffer_size < args.num_envs:
        raise BadInput(f"buffer_size must be at least num_envs, {args.num_envs}")
    if args.learning_starts >= (total_steps := num_iterations * args.num_envs):
        raise BadInput(f"learning_starts must be less than the run's {total_steps} steps")

    with Run(args) as run:
        envs = [run.enter_context(make_env(args)) for _ in range(args.num_envs)]
        obs_dim, action_dim = envs[0].observation_space.shape[0], envs[0].action_space.shape[0]
        bounds = envs[0].env.action_space  # before they became +-1
        if not (np.abs([bounds.low, bounds.high]) < 1e15).all():
            raise BadInput(f"{args.env_id} has actions {bounds}; tanh needs finite bounds")
        actor = Actor(obs_dim, action_dim).to(device)
        critic, target = (Critic(obs_dim, action_dim).to(device) for _ in range(2))
        target.load_state_dict(critic.state_dict())
        temperature = Temperature(args.alpha or 1.0).to(device)
        target_entropy = -float(action_dim)
        try:
            buffer = ReplayBuffer(args.buffer_size, obs_dim, action_dim)
        except (MemoryError, ValueError) as error:
            raise BadInput(f"buffer_size {args.buffer_size}: {error}") from None
        size = sum(array.nbytes for array in buffer.arrays) / 1e9  # GB; taken as it fills
        if hasattr(os, "sysconf"):  # not on Windows
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
            if size > memory:
                text = f"buffer_size {args.buffer_size} takes {size:.1f} GB when it is full"
                raise BadInput(f"{text}, and the memory is {memory:.1f} GB")
        policy_weights = [*actor.parameters(), *temperature.parameters()]
        target_and_critic = list(zip(target.parameters(), critic.parameters(), strict=True))
        policy_optimizer = torch.optim.Adam(policy_weights, lr=args.learning_rate, fused=True)
        critic_optimizer = torch.optim.Adam(
            critic.parameters(), lr=args.learning_rate, fused=True
        )
        state = {"actor": actor, "critic": critic, "target": target, "temperature": temperature}
        state |= {"policy_optimizer": policy_optimizer, "critic_optimizer": critic_optimizer}
        state["buffer"] = buffer
        run.start(state, total_steps)

        # One step of all environments. next_obs is what it really led to.
        next_obs = np.zeros((args.num_envs, obs_dim), np.float32)
        rewards = np.zeros(args.num_envs, np.float32)
        terminated, truncated = np.zeros((2, args.num_envs), bool)

        # Seeds of 31 bits, as simulators take. A resumed run does not replay its beginning.
        seeds = np.random.SeedSequence([args.seed, run.global_step]).generate_state(len(envs))
        resets = [env.reset(seed=int(seed // 2)) for env, seed in zip(envs, seeds, strict=True)]
        current_obs = np.array([obs for obs, _ in resets], np.float32)  # (num_envs, obs_dim)

        for _ in range(run.global_step // args.num_envs, num_iterations):
            # ---- ROLLOUT ----
            obs = current_obs.copy()
            with torch.no_grad():
                if run.global_step < args.learning_starts:
                    sampled = 2 * torch.rand(args.num_envs, action_dim) - 1
                else:
                    sampled, _ = actor(torch.as_tensor(obs, device=device)).rsample()
            actions = sampled.cpu().numpy()
            for i, env in enumerate(envs):
                result = env.step(actions[i])
                next_obs[i], rewards[i], terminated[i], truncated[i], _ = result
                current_obs[i] = next_obs[i]
                if terminated[i] or truncated[i]:
                    current_obs[i], _ = env.reset()  # next_obs keeps where it ended
            buffer.add(obs, actions, rewards, next_obs, terminated)
            run.record_step(rewards, terminated | truncated, obs, next_obs)

            losses = {}
            learning = run.global_step > args.learning_starts
            for _ in range(args.gradient_steps if learning else 0):
                # ---- TARGET ----
                # b_: a batch from the buffer, (batch_size, ...).
                b_obs, b_actions, b_rewards, b_next_obs, b_terminated = buffer.sample(
                    args.batch_size, device
                )
                with torch.no_grad():
                    alpha = temperature()
                    next_actions, next_log_probs = actor(b_next_obs).rsample()
                    targets = soft_q_targets(
                        b_rewards, target(b_next_obs, next_actions), next_log_probs,
                        b_terminated, alpha, args.gamma,
                    )  # fmt: skip

                # ---- UPDATE ----
                q_loss = critic_loss(critic(b_obs, b_actions), targets)
                critic_optimizer.zero_grad()
                q_loss.backward()
                critic_optimizer.step()

                # Drawn anew: stored actions have no gradient with respect to the policy.
                new_actions, log_probs = actor(b_obs).rsample()
                policy_loss = actor_loss(critic(b_obs, new_actions), log_probs, alpha)
                loss = policy_loss
                if args.alpha is None:
                    loss = policy_loss + temperature_loss(
                        temperature.log_alpha, log_probs.detach(), target_entropy
                    )
                policy_optimizer.zero_grad()
                loss.backward(inputs=policy_weights)  # leaves the critics' gradients out
                policy_optimizer.step()

                with torch.no_grad():
                    for slow, fast in target_and_critic:
                        slow.lerp_(fast, args.tau)  # (1 - tau) * slow + tau * fast
                losses = {"q_loss": q_loss, "policy_loss": policy_loss, "alpha": alpha}
                losses |= {"q_target": targets.mean(), "entropy": -log_probs.mean()}

            # ---- LOG ----
            run.record_iteration({name: loss.item() for name, loss in losses.items()})

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
    actions = env.action_space
    vector = isinstance(actions, Box) and len(actions.shape) == 1 and 0 not in actions.shape
    if not vector or actions.dtype.kind != "f":
        text = f"{args.env_id} has actions {actions}, not a vector of floats, Box(n)"
        raise BadInput(f"{text}; for Discrete(n) see ppo.py")
    return rescale_actions(env)


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
