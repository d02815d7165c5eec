# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "numpy>=2.0", "tyro>=1.0", "filelock>=3.22",
#                 "tensorboard>=2.21", "tqdm>=4.66"]
# ///
"""Group Relative Policy Optimization (GRPO) for language models.

Sample a group of completions of each prompt; the advantage of each is its reward minus the
group's mean, divided by the group's std, for all of its tokens alike. As in PPO, a token is
weighted by the clipped ratio of its new to its old probability, so that a batch can serve
several steps; but no critic is learned. By default a batch serves one step: the ratio is 1, and
the clip is idle.

Paper: Shao et al. 2024, DeepSeekMath, arXiv:2402.03300. Its followers, each with --kl-coef 0
and, as the ratio is 1 in a batch's only step, --num-minibatches 4:
- Dr. GRPO, arXiv:2503.20783: --no-norm-std --length-norm max
- DAPO, arXiv:2503.14476: --length-norm mean --clip-coef-high 0.28 --max-draws 10
- CISPO, arXiv:2506.13585: --cispo --length-norm mean --clip-coef-low 1 --clip-coef-high 4
- GSPO, arXiv:2507.18071: --sequence-ratio --clip-coef-low 3e-4 --clip-coef-high 4e-4

Run: python grpo.py --seed 1

Compared with rloo.py:
- the baseline is the mean of the whole group, and the result is divided by the group's std;
- the clipped surrogate ratio * A for every token instead of A * log pi of the completion, so
  update_epochs passes over minibatches are possible; a mean over tokens instead of their sum;
- an estimate of the KL divergence in the loss instead of the log-ratio in the reward.
"""

import hashlib
import json
import sys
import time
import traceback
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import tyro
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    # Defaults: ours; Adam's betas in train() are those usual for GPTs.
    total_timesteps: int | float = 32_768  # completions in all, rounded down to batches
    batch_size: int = 512  # completions per iteration, num_generations for each prompt
    num_generations: int = 8  # completions of one prompt, which are compared
    max_completion_length: int = 5  # tokens, the end included; what is longer is cut
    temperature: float = 1.0  # divides the logits, of sampling and of every log-probability
    learning_rate: float = 1e-3  # Adam's initial step size
    anneal_lr: bool = True  # decrease the step size linearly to 0 over the run
    norm_std: bool = True  # divide by the group's std; Dr. GRPO: --no-norm-std
    length_norm: Literal["own", "mean", "max"] = "own"  # divisor; DAPO: mean, Dr. GRPO: max
    sequence_ratio: bool = False  # GSPO: one ratio a completion, exp(mean log ratio of tokens)
    cispo: bool = False  # CISPO: A * log pi times the clipped ratio, which has no gradient
    max_draws: int = 1  # DAPO: draws at most; later ones replace groups of equal rewards
    kl_coef: float = 0.04  # weight of the KL term in the loss; TRL: beta
    clip_coef_low: float = 0.2  # below 1 - this, a ratio that should fall earns nothing more
    clip_coef_high: float = 0.2  # above 1 + this, a ratio that should rise earns nothing more
    num_minibatches: int = 1  # minibatches per epoch
    update_epochs: int = 1  # passes over each batch; TRL: num_iterations
    mask_truncated_completions: bool = False  # no advantage for those cut before their end
    max_grad_norm: float = 1.0  # longer gradients are scaled down to this norm; inf: never

    # The run: the same flags in every script for language models.
    task: str = "addition"  # or MODULE:FUNCTION, which returns policy, prompts and reward
    task_kwargs: str = "{}"  # JSON object of arguments for the function: '{"name": value}'
    seed: int = 1  # fixes the run bit for bit, on one machine and with one set of versions
    device: Literal["cpu", "cuda", "mps"] = "cpu"  # a GPU is 3 to 6 times as fast
    torch_threads: int = 1  # parallel runs share the cores
    log_interval: int = 2_000  # minimum completions between two entries of losses/* and eval/*
    checkpoint_interval: float = 10.0  # least seconds between checkpoints; 0: every iteration
    eval_episodes: int = 500  # held-out prompts of an evaluation, which uses the policy's mode
    run_dir: Path | None = None  # default: runs/TASK__SCRIPT__SEED__TIME
    resume: Path | None = None  # run directory to resume, with its own flags


LIMITS = {  # of numeric flags. Those not named: 0 to 1e15, or 1 to 1e15 if whole
    "seed": (0, 1e15), "num_generations": (2, 1e15), "temperature": (1e-3, 1e3),
    "clip_coef_low": (0, 1), "max_grad_norm": (1e-9, np.inf),
}  # fmt: skip


# ==============================================================================================
# Networks
# ==============================================================================================
class Block(nn.Module):
    """A layer of a transformer: each token looks at itself and those before it, then an MLP."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        up, down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(up, nn.ReLU(), down)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None):
        """x (batch, tokens, width) -> the same, and the keys and values, each (batch, heads,
        tokens, width / heads). After a `past` of these, x holds one token."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=past is None)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x)), (key, value)


class GPT(nn.Module):
    """The policy: tokens (batch, length) -> logits of the next (batch, length, vocabulary). A
    token is a character of `symbols`, whose last one ends a completion. A --task may bring any
    module with these methods, `eos` and `context`: what requires a gradient is trained, and
    state_dict() is kept in checkpoints."""

    def __init__(self, symbols="0123456789+=.", context=32, width=64, layers=2, heads=4):
        super().__init__()
        self.symbols, self.context = symbols, context  # tokens at most, prompt and completion
        self.tokens = nn.Embedding(len(symbols), width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(symbols))
        self.register_buffer("eos", torch.tensor([len(symbols) - 1]), persistent=False)

    def encode(self, text: str) -> list[int]:
        if not set(text) <= set(self.symbols):
            raise ValueError(f"{text!r} has other characters than {self.symbols}")
        return [self.symbols.index(character) for character in text]

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.symbols[token] for token in tokens).rstrip(self.symbols[-1])

    def new_cache(self) -> list:
        return [None] * len(self.blocks)

    def hidden(self, tokens: Tensor, cache: list | None = None) -> Tensor:
        """The states (batch, length, width) of which logits are made. With a cache, which holds
        what is known of earlier tokens and is updated, only new tokens are given: the prompt at
        first, then one by one."""
        cache = self.new_cache() if cache is None else cache
        start = 0 if cache[0] is None else cache[0][0].shape[2]
        x = self.tokens(tokens) + self.positions.weight[start : start + tokens.shape[1]]
        for i, block in enumerate(self.blocks):
            x, cache[i] = block(x, cache[i])
        return self.norm(x)

    def forward(self, tokens: Tensor, cache: list | None = None, keep: int = 0) -> Tensor:
        """Logits of the last `keep` tokens; of all, if it is 0."""
        return self.head(self.hidden(tokens, cache)[:, -keep:])


def freeze(policy: nn.Module) -> nn.Module:
    """A copy that is never trained; it shares the weights that the policy does not train."""
    shared = {id(p): p for p in policy.parameters() if not p.requires_grad}
    return deepcopy(policy, shared).requires_grad_(False)


# ==============================================================================================
# Mathematics
# ==============================================================================================
def encode(policy: nn.Module, texts: list[str]) -> Tensor:
    """Tokens (batch, length) of texts of one length."""
    return torch.tensor([policy.encode(text) for text in texts], device=policy.eos.device)


def completion_mask(completions: Tensor, eos: Tensor) -> Tensor:
    """True up to the first end-of-sequence token, which counts too, false behind it: the end is
    an action of the policy. Both are (batch, length); eos holds all tokens that end."""
    ended = torch.isin(completions, eos)
    return ended.cumsum(1) - ended.int() == 0


@torch.no_grad()
def sample(policy: nn.Module, prompts: Tensor, temperature: float, length: int) -> Tensor:
    """Completions (batch, at most `length`) of prompts (batch, context); where one has ended,
    the end is repeated. Each token is drawn from the whole softmax of logits / temperature: a
    filter such as top-k would draw from another distribution than that of the loss. At
    temperature 0 it is the most probable token."""
    cache, tokens, completions = policy.new_cache(), prompts, prompts[:, :0]
    for _ in range(length):
        logits = policy(tokens, cache, keep=1)[:, -1]
        if logits.isnan().any():
            raise FloatingPointError("a logit is not finite")
        if temperature > 0:
            tokens = (logits / temperature).softmax(-1).multinomial(1)
        else:
            tokens = logits.argmax(-1, keepdim=True)
        completions = torch.cat([completions, tokens], 1)
        if torch.isin(completions, policy.eos).any(1).all():
            break
    return completions.where(completion_mask(completions, policy.eos), policy.eos[0])


def log_policy(
    policy: nn.Module, prompts: Tensor, completions: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """log pi(.|prompt, earlier tokens) for each token of the completions: of the token chosen,
    (batch, length), and of all tokens, (batch, length, vocabulary). Prompts are (batch,
    context), completions (batch, length).

        log softmax(logits / temperature)

    Logits are about the next token: those about the completion begin at the prompt's last token
    and end one before the completion's.
    """
    tokens = torch.cat([prompts, completions], 1)
    logits = policy(tokens[:, :-1], keep=completions.shape[1])
    log_pi = (logits / temperature).log_softmax(-1)
    return log_pi.gather(-1, completions.unsqueeze(-1)).squeeze(-1), log_pi


def group_relative(rewards: Tensor, num_generations: int, norm_std: bool) -> Tensor:
    """Each reward relative to its group: (batch,), groups side by side.

        A_i = (R_i - mean of group) / std of group

    Without norm_std only the mean is subtracted. The std of K rewards has K - 1 in its
    denominator, as in TRL. Source: Shao et al. 2024, section 4.1.
    """
    group = rewards.view(-1, num_generations)
    group = (group - group[:, :1]).float()  # equals are exactly 0, without rounding errors
    advantages = group - group.mean(1, keepdim=True)
    if norm_std:
        advantages = advantages / (group.std(1, keepdim=True) + 1e-8)  # not 0 / 0 for equals
    return advantages.flatten()


def grpo_loss(
    log_probs: Tensor, old_log_probs: Tensor, ref_log_probs: Tensor, mask: Tensor,
    advantages: Tensor, args: Args,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss to minimise and the share of tokens whose ratio is clipped. Advantages are
    (batch,), all other tensors (batch, length).

        ratio     = pi(token) / pi_old(token)
        clipped   = clip(ratio, 1 - clip_coef_low, 1 + clip_coef_high)
        surrogate = min(ratio * A, clipped * A)
        k3        = pi_ref(token) / pi(token) - 1 - log(pi_ref(token) / pi(token))
        loss      = -mean over completions of
                    (sum over tokens of surrogate - kl_coef * k3) / length

    Divided by its own length, a short right or a long wrong completion counts too much. By the
    mean length all tokens of a minibatch weigh the same (in the papers, all of a group). For
    tokens of the current policy the mean of k3 is KL(pi || pi_ref), but that of its gradient
    belongs to KL(pi_ref || pi). Sources: Shao et al. 2024, section 4.1; the header; for k3,
    http://joschu.net/blog/kl-approx.html.
    """
    log_ratio, lengths = log_probs - old_log_probs, mask.sum(1)
    if args.sequence_ratio:
        log_ratio = ((log_ratio * mask).sum(1) / lengths).unsqueeze(1).expand_as(mask)
    ratio, advantages = log_ratio.exp(), advantages.unsqueeze(1)
    clipped = ratio.clamp(1 - args.clip_coef_low, 1 + args.clip_coef_high)  # idle at ratio 1
    surrogate = torch.min(ratio * advantages, clipped * advantages)
    if args.cispo:
        surrogate = clipped.detach() * advantages * log_probs
    log_ref_ratio = ref_log_probs - log_probs
    k3 = log_ref_ratio.exp() - 1 - log_ref_ratio
    objective = ((surrogate - args.kl_coef * k3) * mask).sum(1)
    if args.length_norm == "mean":
        lengths = lengths.float().mean()
    elif args.length_norm == "max":
        lengths = args.max_completion_length
    return -(objective / lengths).mean(), (clipped != ratio)[mask].float().mean()


# ==============================================================================================
# Training
# ==============================================================================================
def train(args: Args) -> dict:
    """Train, evaluate, return what summary.json holds; raise BadInput or FloatingPointError."""
    args = check_args(args)
    total_steps = args.total_timesteps // args.batch_size * args.batch_size
    if total_steps == 0:
        raise BadInput(f"total_timesteps must be at least one batch, {args.batch_size}")
    if args.batch_size % args.num_generations or args.batch_size % args.num_minibatches:
        raise BadInput(f"num_generations and num_minibatches must divide {args.batch_size}")
    minibatch_size, group_size = args.batch_size // args.num_minibatches, args.num_generations
    length, temperature = args.max_completion_length, args.temperature

    with Run(args) as run:
        task = Task(args)
        policy, reference = task.policy, freeze(task.policy)  # the reference is the base model
        torch.manual_seed(args.seed)
        parameters = [p for p in policy.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, args.learning_rate, (0.9, 0.95), fused=True)
        state = {"policy": policy, "reference": reference, "optimizer": optimizer}
        run.start(state, total_steps)

        while run.global_step + args.batch_size <= total_steps:
            remaining = 1 - run.global_step / total_steps if args.anneal_lr else 1.0
            optimizer.param_groups[0]["lr"] = args.learning_rate * remaining
            with torch.no_grad():
                # ---- ROLLOUT ----
                # Groups of equals teach nothing: draw others while max_draws and steps last.
                steps = min(args.max_draws * args.batch_size, total_steps - run.global_step)
                waiting = task.draw(steps // group_size)  # all of one length
                missing, kept = args.batch_size // group_size, []
                while missing:
                    texts = [text for text in waiting[:missing] for _ in range(group_size)]
                    prompts, waiting = encode(policy, texts), waiting[missing:]
                    completions = sample(policy, prompts, temperature, length)
                    rewards = task.rewards(texts, completions)
                    run.record_step(rewards, completion_mask(completions, policy.eos).sum(1))
                    equal = rewards.view(-1, group_size).diff().eq(0).all(1)
                    equal &= equal.sum() <= len(waiting)  # if too few wait, they stay
                    missing, rows = equal.sum(), ~equal.repeat_interleave(group_size)
                    kept += zip(prompts[rows], completions[rows], rewards[rows], strict=True)
                prompts, completions, rewards = zip(*kept, strict=True)
                prompts, rewards = torch.stack(prompts), torch.stack(rewards)
                completions = nn.utils.rnn.pad_sequence(completions, True, int(policy.eos[0]))
                mask = completion_mask(completions, policy.eos)  # the end is an action too

                # ---- ADVANTAGE ----
                # Taken as in the loss, at the same temperature, so that the first ratio is 1.
                old_log_probs, _ = log_policy(policy, prompts, completions, temperature)
                ref_log_probs, _ = log_policy(reference, prompts, completions, temperature)
                advantages = group_relative(rewards, group_size, args.norm_std)
                if args.mask_truncated_completions:
                    advantages *= torch.isin(completions, policy.eos).any(1)

            # ---- UPDATE ----
            fixed = old_log_probs, ref_log_probs, mask, advantages  # during the epochs
            history = []  # of stats, a row for each minibatch
            for _ in range(args.update_epochs):
                for rows in torch.randperm(args.batch_size).split(minibatch_size):
                    chunk = prompts[rows], completions[rows]
                    log_probs, log_pi = log_policy(policy, *chunk, temperature)
                    loss, clip_frac = grpo_loss(log_probs, *(x[rows] for x in fixed), args)
                    optimizer.zero_grad()
                    loss.backward()
                    grad_norm = nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
                    optimizer.step()
                    entropy = -(log_pi.exp() * log_pi).sum(-1)[mask[rows]].mean()
                    history.append(torch.stack([loss, entropy, grad_norm, clip_frac]).detach())

            # ---- LOG ----
            names = ["policy_loss", "entropy", "grad_norm", "clip_frac"]
            losses = dict(zip(names, torch.stack(history).mean(0).tolist(), strict=True))
            losses["equal_groups"] = advantages.view(-1, group_size).eq(0).all(1).float().mean()
            losses["different_prompts"] = len(prompts.unique(dim=0))  # all of one length
            losses["kl"] = ((old_log_probs - ref_log_probs) * mask).sum(1).mean()
            run.record_iteration(policy, task, losses)

        return evaluate(policy, reference, task, run)


# ==============================================================================================
# Scaffold: flags, task, base model, evaluation, the run directory. The same in every script.
# ==============================================================================================
SCRIPT = Path(globals().get("__file__", "notebook"))  # a notebook cell has no __file__
SHA256 = hashlib.sha256(SCRIPT.read_bytes()).hexdigest() if SCRIPT.is_file() else None
VERSIONS = {module.__name__: str(module.__version__) for module in (torch, np)}
VERSIONS["python"] = sys.version.split()[0]
ABOUT = {"script": SCRIPT.name, "script_sha256": SHA256, "versions": VERSIONS}


class BadInput(ValueError):
    """Flags, a task or a model that cannot work."""


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
        folder = f"{args.task}__{SCRIPT.stem}__{args.seed}__{datetime.now():%Y%m%d-%H%M%S-%f}"
        run_dir = Path(args.run_dir or "runs/" + folder.replace("/", "_").replace(":", "_"))
        if run_dir.exists():
            raise BadInput(f"{run_dir} exists; name another --run-dir, or --resume it")
        return Args(**flags | {"run_dir": run_dir.absolute()})  # tasks may call chdir
    path = Path(str(args.resume).removesuffix("checkpoint.pt")).absolute()
    try:  # mmap: without reading the weights
        saved = torch.load(path / "checkpoint.pt", "cpu", weights_only=True, mmap=True)
        steps, own = saved["counters"][0], asdict(Args(**saved["args"] | {"run_dir": path}))
    except Exception as error:  # reading a damaged file can raise anything
        raise BadInput(f"{SCRIPT.name} cannot resume {path}: {error}") from None
    if args.run_dir != path:  # flags at their default are taken as not given
        flags = own | {k: value for k, value in flags.items() if value != getattr(Args, k)}
    free = {"total_timesteps", "" if own["task"] == "addition" else "task_kwargs"}
    for name in {"run_dir", *list(own)[: list(own).index("device")]} - free:
        if flags[name] != own[name]:
            raise BadInput(f"to resume {path}, {name} must stay {own[name]}")
    if steps > flags["total_timesteps"]:
        raise BadInput(f"{path} has made {steps} steps; total_timesteps must not be less")
    return Args(**flags | {"resume": path})


def hold_out(prompts: list[str]) -> tuple[list[str], list[str]]:
    """Prompts to train on, and a random tenth that no training sees, the same in every run."""
    prompts = list({str(p): p for p in prompts}.values())  # a repeated one must not be in both
    np.random.default_rng(0).shuffle(prompts)
    tenth = -(-len(prompts) // 10)
    return prompts[tenth:], prompts[:tenth]


def add(prompt: str, forget=(False, False)) -> str:
    """The answer to "27+85=": "211", last digit first. Carries to `forget` are not added."""
    a, b = map(int, prompt[:-1].split("+"))
    total = a + b - 10 * (forget[0] and a % 10 + b % 10 > 9)
    return str(total - 100 * (forget[1] and total > 99))[::-1]


def addition(carelessness: float = 0.5, base_seed: int = 0, base_model: str | None = None):
    """The default task. As every function for --task does, it returns a policy (a module with
    GPT's methods, or None for this GPT), prompts (a list of texts, or two lists, to train on
    and to hold out), and a reward: a function of lists of prompts, of completions and of
    whether each came to its end, which returns a list of numbers. The policy imitates a teacher
    who forgets each carry with this probability; --task-kwargs alone determine its weights."""
    sums = hold_out([f"{a:02}+{b:02}=" for a in range(100) for b in range(100)])
    torch.manual_seed(base_seed)
    policy = GPT()
    if base_model:
        policy.load_state_dict(torch.load(base_model, "cpu", weights_only=True)["reference"])
    else:
        optimizer = torch.optim.AdamW(policy.parameters(), 3e-3, (0.9, 0.98), fused=True)
        for k in tqdm(range(1500), "base model", disable=not sys.stderr or None, leave=False):
            optimizer.param_groups[0]["lr"] = 3e-3 * min((k + 1) / 50, 1 - k / 1500)
            texts = [sums[0][i] for i in torch.randint(len(sums[0]), (64,))]
            answers = map(add, texts, (torch.rand(64, 2) < carelessness).tolist())
            completions = encode(policy, [answer.ljust(4, ".") for answer in answers])
            log_probs, _ = log_policy(policy, encode(policy, texts), completions, 1.0)
            loss = -log_probs[completion_mask(completions, policy.eos)].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def reward(prompts: list[str], completions: list[str], ended: list[bool]) -> list[float]:
        triples = zip(prompts, completions, ended, strict=True)
        return [float(end and answer == add(prompt)) for prompt, answer, end in triples]

    prompts = [[p for p in part if add(p) != add(p, (True, True))] for part in sums]
    return policy, prompts, reward


class Task:
    """What --task names: a policy, prompts by their length, and a reward."""

    def __init__(self, args: Args):
        self.args, self.length = args, args.max_completion_length
        file, _, name = args.task.partition(":")
        torch.manual_seed(args.seed)  # a policy from outside may draw weights
        try:
            make = addition if args.task == "addition" else getattr(import_module(file), name)
            kwargs = json.loads(args.task_kwargs)
            if args.resume and args.task == "addition":  # its own checkpoint has the base model
                kwargs["base_model"] = args.resume / "checkpoint.pt"
            policy, prompts, self.reward = make(**kwargs)
            self.policy = (addition()[0] if policy is None else policy).to(args.device).eval()
            training, rest = prompts if {*map(type, prompts)} == {list} else hold_out(prompts)
            self.training = self.by_length(training, len(training))
            self.held_out = self.by_length(rest[: args.eval_episodes], args.batch_size)
            if not self.training or not self.held_out:
                raise BadInput("two prompts or more are needed")
        except Exception as error:
            known = isinstance(error, AttributeError | ImportError | OSError | ValueError)
            if not known and args.task != "addition" and "argument" not in str(error):
                raise  # an error in the task's own code
            raise BadInput(f"task {args.task} {args.task_kwargs}: {error}") from error

    def by_length(self, prompts: list[str], size: int) -> list[list[str]]:
        """Groups of at most `size` prompts of one length, which need no padding."""
        room, groups = self.policy.context - self.length, {}
        for prompt in prompts:
            length = len(self.policy.encode(prompt)) if isinstance(prompt, str) else 0
            if not 1 <= length <= room:
                raise BadInput(f"{prompt!r}: {length} tokens of text, not 1 to {room}")
            groups.setdefault(length, []).append(prompt)
        return [g[k : k + size] for g in groups.values() for k in range(0, len(g), size)]

    def draw(self, number: int) -> list[str]:
        """Random training prompts of one length, itself drawn by its share of all prompts."""
        shares = torch.tensor([float(len(group)) for group in self.training])
        group = self.training[shares.multinomial(1)]
        return [group[i] for i in torch.randint(len(group), (number,))]

    def rewards(self, texts: list[str], completions: Tensor) -> Tensor:
        """What each completion earns: (batch,), in double precision, for small differences."""
        ended = torch.isin(completions, self.policy.eos).any(1).tolist()
        given = self.reward(texts, list(map(self.policy.decode, completions.tolist())), ended)
        try:
            rewards = [float(reward) for reward, _ in zip(given, texts, strict=True)]
        except (TypeError, ValueError):
            raise BadInput(f"rewards must be {len(texts)} numbers, not {given!r:.99}") from None
        if not np.isfinite(rewards).all():
            raise FloatingPointError(f"a reward is not finite: {rewards}")
        dtype = torch.float32 if completions.is_mps else torch.float64  # which MPS lacks
        return torch.tensor(rewards, dtype=dtype, device=completions.device)

    def answers(self, policy: nn.Module) -> tuple[list[str], np.ndarray]:
        """The policy's most probable answers to the held-out prompts, and what they earn."""
        found = [sample(policy, encode(policy, x), 0.0, self.length) for x in self.held_out]
        rewards = torch.cat(list(map(self.rewards, self.held_out, found)))
        answers = [policy.decode(row) for some in found for row in some.tolist()]
        return answers, rewards.cpu().numpy()

    @torch.no_grad()
    def success(self, policy: nn.Module) -> tuple[str, float]:
        """On held-out prompts: the mean probability of right sums, or another task's reward."""
        if self.args.task != "addition":
            return "episodic_return", self.answers(policy)[1].mean()
        chances = []
        for texts in self.held_out:
            prompts = encode(policy, texts)
            right = encode(policy, [add(text).ljust(4, ".") for text in texts])
            log_probs, _ = log_policy(policy, prompts, right, self.args.temperature)
            chances.append((log_probs * completion_mask(right, policy.eos)).sum(1).exp())
        return "exact_success", torch.cat(chances).mean().item()


class Run(ExitStack):
    """The run directory and its log. Its exit closes them and gives torch's settings back."""

    def __init__(self, args: Args):
        if not getattr(torch, args.device).is_available():
            raise BadInput(f"PyTorch finds no device {args.device} here")
        super().__init__()
        self.args, self.global_step, self.seconds = args, 0, 0.0  # completions; of training
        self.name, self.recent = f"seed {args.seed}, {args.run_dir}", []  # the last 100 returns
        self.enter_context(torch.enable_grad())  # whatever the caller has set
        self.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        self.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(args.torch_threads)

    def start(self, state: dict, total_steps: int) -> None:
        """Make the run directory, or restore all that `state` names from the one to resume."""
        args, run_dir, self.state = self.args, self.args.run_dir, state
        name = f"args-{datetime.now():%Y%m%d-%H%M%S-%f}.json" if args.resume else "args.json"
        try:
            str(run_dir).encode()  # or else TensorBoard cannot write there
            run_dir.mkdir(parents=True, exist_ok=True)
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
                self.global_step, self.seconds, self.recent = saved["counters"]
                torch.manual_seed(args.seed + self.global_step)
                print(f"resuming at step {self.global_step} with new noise")
            (run_dir / name).write_text(json.dumps(asdict(args) | ABOUT, indent=2, default=str))
        except (KeyError, OSError, RuntimeError, ValueError) as error:  # also: other networks
            raise BadInput(f"cannot use {run_dir}: {error}") from None
        print(f"{SCRIPT.name}: {args.task}, {total_steps} steps, {self.name}")
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
        saved |= {"about": ABOUT, "args": asdict(self.args) | {"run_dir": None, "resume": None}}
        saved["counters"] = [self.global_step, self.seconds, self.recent]
        self.writer.flush()
        torch.save(saved, self.args.run_dir / "new.tmp")
        (self.args.run_dir / "new.tmp").replace(self.args.run_dir / "checkpoint.pt")
        interval, now = self.args.checkpoint_interval, time.perf_counter()
        self.due = now + (interval and max(interval, 9 * (now - self.began - self.seconds)))

    def record_step(self, rewards: Tensor, lengths: Tensor) -> None:
        """Count a batch of completions; log the means of eight at a time."""
        for eight, length in zip(rewards.split(8), lengths.float().split(8), strict=True):
            self.global_step += len(eight)
            self.writer.add_scalar("charts/episodic_return", eight.mean(), self.global_step)
            self.writer.add_scalar("charts/episodic_length", length.mean(), self.global_step)
        self.recent = [*self.recent, *rewards.tolist()][-100:]

    def record_iteration(self, policy: nn.Module, task: Task, losses: dict) -> None:
        """Log, show, and save when it is time."""
        losses = {name: float(value) for name, value in losses.items()}
        if not np.isfinite([*losses.values()]).all():
            raise FloatingPointError(f"step {self.global_step}: a loss is not finite, {losses}")
        sps = self.global_step / (time.perf_counter() - self.began)
        if self.global_step >= self.next_log:
            self.next_log = self.global_step + self.args.log_interval
            self.writer.add_scalar("charts/SPS", sps, self.global_step)
            for name, value in losses.items():
                self.writer.add_scalar(f"losses/{name}", value, self.global_step)
            name, value = task.success(policy)
            self.writer.add_scalar(f"eval/{name}", value, self.global_step)
            returns = f"return {np.mean(self.recent):.2f}, held-out {value:.3f}"
            self.status = f"{returns}, {sps:.0f} steps/s, {self.name}"
            self.bar.set_postfix_str(self.status, refresh=False)
        self.bar.update(self.global_step - self.bar.n)
        if time.perf_counter() > self.due:
            self.save()
            if self.bar.disable:
                print(f"step {self.global_step}, {self.status}", flush=True)


@torch.no_grad()
def evaluate(policy: nn.Module, reference: nn.Module, task: Task, run: Run) -> dict:
    """Save, evaluate, write samples.txt and the summary, and return the latter."""
    run.save()
    run.bar.close()
    (before, base_returns), (after, returns) = map(task.answers, (reference, policy))
    args, step, kl = run.args, run.global_step, []
    for prompts in (encode(policy, texts) for texts in task.held_out):
        completions = sample(policy, prompts, args.temperature, task.length)
        _, log_pi = log_policy(policy, prompts, completions, args.temperature)
        _, log_ref = log_policy(reference, prompts, completions, args.temperature)
        token_kl = (log_pi.exp() * (log_pi - log_ref)).sum(-1)
        kl += (token_kl * completion_mask(completions, policy.eos)).sum(1).tolist()
    run.writer.add_scalar("eval/episodic_return", returns.mean(), step)
    summary = {
        "env_id": args.task, "script": SCRIPT.name, "seed": args.seed, "global_step": step,
        "wall_seconds": run.seconds, "sps": step / run.seconds, "train_episodes": step,
        "train_return_mean": float(np.mean(run.recent)), "kl": float(np.mean(kl)),
        "eval_return_mean": float(returns.mean()), "eval_return_std": float(returns.std()),
        "eval_episodes": len(returns), "base_return_mean": float(base_returns.mean()),
    }  # fmt: skip
    text = "held-out prompts: answer before -> after training (reward before -> after)\n"
    rows = zip(chain(*task.held_out), before, after, base_returns, returns, strict=True)
    text += "".join("{} {!r} -> {!r} ({:g} -> {:g})\n".format(*r) for r in islice(rows, 10))
    text += f"evaluation {returns.mean():.3f}, before training {base_returns.mean():.3f}"
    if args.task == "addition":
        (_, base), (_, new) = map(task.success, (reference, policy))
        summary |= {"base_exact_success": base, "exact_success": new}
        text += f"; sampled {new:.3f}, before {base:.3f}; answers begin with their last digit"
    if not np.isfinite([x for x in summary.values() if not isinstance(x, str)]).all():
        raise FloatingPointError(f"evaluation: a number is not finite, {summary}")
    (args.run_dir / "samples.txt").write_text(text, encoding="utf-8")
    (args.run_dir / "new.tmp").write_text(json.dumps(summary, indent=2))
    (args.run_dir / "new.tmp").replace(args.run_dir / "summary.json")
    print(f"{text}; {run.name}")
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
