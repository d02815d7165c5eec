# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "gymnasium>=1.4", "numpy>=2.0", "tyro>=1.0", "filelock>=3.22",
#                 "tensorboard>=2.21", "tqdm>=4.66"]
# ///
"""Trust Region Policy Optimization (TRPO) for Discrete actions.

Step along the natural gradient, and keep the new policy within target_kl of the old one. The KL
divergence is flat at the old policy, so its curvature, the Fisher matrix F, measures distance.
With g the gradient of the surrogate objective, conjugate gradients find the direction F^-1 g
from products F v alone. A quadratic model of the KL, with cg_damping in F, gives the length to
try first. A line search shortens it until the true KL is within target_kl and the surrogate has
improved. It never lengthens it, so target_kl works as a step size.

Paper: Schulman et al. 2015, Trust Region Policy Optimization, arXiv:1502.05477
Run: python trpo.py --env-id CartPole-v1 --seed 1

Compared with a2c.py:
- target_kl, a bound on the KL divergence, sets the policy's step, instead of a learning rate
  and clipping;
- the surrogate ratio * A instead of log pi * A: the line search asks how far from the old
  policy it still improves;
- the critic is fitted separately, by several epochs of minibatches with Adam at a constant step
  size; there is neither an entropy bonus nor reward_scale;
- advantages are normalised by default;
- segments are longer: the Fisher matrix is an average over states.

Not in the paper: GAE and a fitted critic, which Schulman et al. 2016 added.
"""

import hashlib
import json
import random
import sys
import time
import traceback
from collections.abc import Callable
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
from torch.distributions import Categorical, Distribution, kl_divergence
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    # Defaults: SB3-contrib's, but shorter segments, so that 100,000 steps make 97 updates.
    env_id: str = "CartPole-v1"  # with Discrete actions; one of a package: ale_py:ALE/Pong-v5
    total_timesteps: int | float = 100_000  # environment steps in all, rounded down to batches
    num_envs: int = 4  # environments stepped side by side
    num_steps: int = 256  # steps per environment and iteration; a batch is num_envs * num_steps
    gamma: float = 0.99  # discount factor
    gae_lambda: float = 0.95  # bias (0: one-step TD error) against variance (1: n-step return)
    norm_adv: bool = True  # normalise advantages in each batch; the step ignores their scale
    target_kl: float = 0.01  # delta: the largest mean KL(pi_old || pi) of one step
    cg_max_steps: int = 15  # conjugate gradient steps at most
    cg_damping: float = 0.1  # added to the Fisher matrix's diagonal, for positive definiteness
    line_search_max_iter: int = 10  # step lengths tried before the step is given up
    line_search_shrinking_factor: float = 0.8  # each length is this times the previous one
    n_critic_updates: int = 10  # epochs of the critic on each batch
    num_minibatches: int = 8  # minibatches per epoch of the critic
    learning_rate: float = 1e-3  # step size of the critic's Adam

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
    "seed": (0, 1e15), "gamma": (0, 1), "gae_lambda": (0, 1),
    "target_kl": (1e-9, 1e9), "line_search_shrinking_factor": (0, 1),
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


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], b: Tensor, max_steps: int, tolerance: float = 1e-10
) -> Tensor:
    """Solve A x = b approximately; x and b are (n,), and A, symmetric and positive definite, is
    known only by matvec(v) = A v.

    Stops after max_steps, when the residual's squared norm is at most `tolerance` times that of
    b, or when rounding errors leave a direction p without positive curvature p^T A p, by which
    it would divide. In exact arithmetic n steps give the exact solution.
    Source: Schulman et al. 2015, appendix C; Hestenes & Stiefel 1952.
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    residual_sq = residual @ residual
    for _ in range(max_steps):
        product = matvec(direction)
        curvature = direction @ product
        if residual_sq <= tolerance * (b @ b) or curvature <= 0:
            break
        alpha = residual_sq / curvature
        x += alpha * direction
        residual -= alpha * product
        new_residual_sq = residual @ residual
        direction = residual + (new_residual_sq / residual_sq) * direction
        residual_sq = new_residual_sq
    return x


def flat_gradient(output: Tensor, parameters: list[Tensor], **kwargs: bool) -> Tensor:
    """The gradient of a scalar with respect to all parameters, as one vector (n,)."""
    gradients = torch.autograd.grad(output, parameters, **kwargs)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def surrogate(
    dist: Distribution, actions: Tensor, old_log_probs: Tensor, advantages: Tensor
) -> Tensor:
    """mean ratio * A with ratio = pi(a|s) / pi_old(a|s). All tensors are (batch,); actions may
    be (batch, n). Source: Schulman et al. 2015, section 5."""
    return ((dist.log_prob(actions) - old_log_probs).exp() * advantages).mean()


def fisher_vector_product(
    kl_gradient: Tensor, parameters: list[Tensor], vector: Tensor, damping: float
) -> Tensor:
    """(F + damping I) v, (n,): the gradient of kl_gradient^T v, if kl_gradient has its graph.

    At the old policy the KL and its gradient are zero, but its Hessian is the Fisher matrix F:
    the KL grows with the square of the step. Differentiating twice gives F v without forming F.
    Source: Schulman et al. 2015, appendix C.
    """
    return flat_gradient(kl_gradient @ vector, parameters, retain_graph=True) + damping * vector


def trust_region_step(
    actor: nn.Module, obs: Tensor, actions: Tensor, advantages: Tensor, target_kl: float,
    cg_max_steps: int, cg_damping: float, max_iter: int, shrinking_factor: float,
) -> dict[str, float]:  # fmt: skip
    """Improve the actor in place on a batch: obs (batch, obs_dim), the rest (batch,); actions
    may be (batch, n). Return policy_loss, kl, accepted (1 or 0), step_fraction.

        maximise g^T s  subject to  1/2 s^T F s <= target_kl
        s = sqrt(2 target_kl / (x^T F x)) x  with  x = F^-1 g

    g is the gradient of the surrogate at the old policy, and F stands for F + cg_damping * I.
    The steps s, shrinking_factor * s, and so on are tried until one improves the surrogate and
    keeps the true KL within target_kl. If none of max_iter does, the actor stays as it was.
    Source: Schulman et al. 2015, section 6 and appendix C.
    """
    parameters = list(actor.parameters())
    old_parameters = nn.utils.parameters_to_vector(parameters).detach()
    with torch.no_grad():  # constants: KL and ratio compare the new policy with them
        old_dist = actor(obs)
        old_log_probs = old_dist.log_prob(actions)
    dist = actor(obs)
    old_surrogate = surrogate(dist, actions, old_log_probs, advantages)
    gradient = flat_gradient(old_surrogate, parameters, retain_graph=True)
    kl = kl_divergence(old_dist, dist).mean()
    kl_gradient = flat_gradient(kl, parameters, create_graph=True)

    def matvec(vector: Tensor) -> Tensor:
        return fisher_vector_product(kl_gradient, parameters, vector, cg_damping)

    direction = conjugate_gradient(matvec, gradient, cg_max_steps)
    curvature = direction @ matvec(direction)
    # Without curvature the direction is 0 or a rounding error: the line search decides.
    scale = (2 * target_kl / curvature).sqrt() if curvature > 0 else 1.0
    with torch.no_grad():
        for i in range(max_iter):
            fraction = shrinking_factor**i
            step = fraction * (scale * direction)
            nn.utils.vector_to_parameters(old_parameters + step, parameters)
            new_dist = actor(obs)
            new_surrogate = surrogate(new_dist, actions, old_log_probs, advantages)
            new_kl = kl_divergence(old_dist, new_dist).mean()
            if new_surrogate > old_surrogate and new_kl <= target_kl:  # the model is only local
                new = {"policy_loss": -new_surrogate.item(), "kl": new_kl.item()}
                return new | {"accepted": 1.0, "step_fraction": fraction}
    nn.utils.vector_to_parameters(old_parameters, parameters)  # not those that failed last
    old = {"policy_loss": -old_surrogate.item(), "kl": 0.0}
    return old | {"accepted": 0.0, "step_fraction": 0.0}


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
        obs_dim, num_actions = envs[0].observation_space.shape[0], int(envs[0].action_space.n)
        actor, critic = Actor(obs_dim, num_actions).to(device), Critic(obs_dim).to(device)
        weights = flatten(critic)  # stepped as one vector: a tenth faster
        # eps of OpenAI Baselines: with 1e-8 even weights with tiny gradients take full steps.
        optimizer = torch.optim.Adam([weights], lr=args.learning_rate, eps=1e-5, fused=True)
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

        for _ in range(run.global_step // batch_size, num_iterations):
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
                values, next_values = critic(s_obs), critic(s_next_obs)  # one pass, not many
                advantages = gae(
                    s_rewards, values, next_values, s_terminated, s_truncated,
                    args.gamma, args.gae_lambda,
                )  # fmt: skip
                returns = advantages + values  # of advantages that are not normalised

            # ---- UPDATE ----
            b_obs, b_actions, b_advantages, b_returns = (
                x.flatten(0, 1) for x in (s_obs, s_actions, advantages, returns)
            )
            if args.norm_adv:
                mean, std = b_advantages.mean(), b_advantages.std()
                b_advantages = (b_advantages - mean) / (std + 1e-30)  # may be 0
            losses = trust_region_step(
                actor, b_obs, b_actions, b_advantages, args.target_kl, args.cg_max_steps,
                args.cg_damping, args.line_search_max_iter, args.line_search_shrinking_factor,
            )  # fmt: skip
            value_losses = []
            for _ in range(args.n_critic_updates):
                for indices in torch.randperm(batch_size, device=device).split(minibatch_size):
                    mb_values, mb_returns = critic(b_obs[indices]), b_returns[indices]
                    value_loss = nn.functional.mse_loss(mb_values, mb_returns)
                    weights.grad.zero_()  # optimizer.zero_grad() would cut the views
                    value_loss.backward()
                    optimizer.step()
                    value_losses.append(value_loss.detach())

            # ---- LOG ----
            with torch.no_grad():
                losses["entropy"] = actor(b_obs).entropy().mean().item()  # of the new policy
            losses["value_loss"] = torch.stack(value_losses).mean().item()
            unexplained, total = (returns - values).var(correction=0), returns.var(correction=0)
            losses["explained_variance"] = (1 - unexplained / total).item() if total else 0.0
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
