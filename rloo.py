# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "numpy>=2.0", "tyro>=1.0", "filelock>=3.12",
#                 "tensorboard>=2.21", "tqdm>=4.66"]
# ///
"""REINFORCE Leave-One-Out (RLOO) for language models.

Sample a group of completions of each prompt, and compare each with the others: its advantage is
its reward minus the mean reward of the rest of its group. That baseline knows how hard the
prompt is. A completion's reward is lowered by kl_coef times its log-ratio to the frozen base
model, whose mean is the KL divergence, so leaving the base model has a price.

Papers: Ahmadian et al. 2024, Back to Basics: Revisiting REINFORCE Style Optimization for
Learning from Human Feedback in LLMs, arXiv:2402.14740; Kool et al. 2019, Buy 4
REINFORCE Samples, Get a Baseline for Free!, https://openreview.net/forum?id=r1lgTGL5DE

Run: python rloo.py --seed 1

Compared with reinforce_lm.py:
- num_generations completions of each prompt, and the mean reward of the others as the baseline
  in place of a moving average over all prompts;
- a frozen reference, and the log-ratio to it in the reward.
"""

import hashlib
import importlib
import inspect
import io
import json
import math
import os
import re
import shlex
import sys
import time
import traceback
from collections import deque
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import Literal

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
    # Defaults: ours; a step of 3e-3 breaks the policy. Adam's betas are those usual for GPTs.
    total_timesteps: int | float = 32_768  # completions in all, rounded down to batches
    batch_size: int = 512  # completions per iteration, num_generations for each prompt
    num_generations: int = 8  # completions of one prompt, which are compared
    max_completion_length: int = 5  # tokens, the end included; what is longer is cut
    temperature: float = 1.0  # divides the logits, of sampling and of every log-probability
    learning_rate: float = 1e-3  # Adam's initial step size
    anneal_lr: bool = True  # decrease the step size linearly to 0 over the run
    kl_coef: float = 0.05  # weight of the log-ratio to the base model in the reward; TRL: beta
    gradient_accumulation_steps: int = 1  # parts a batch is split into, to save memory
    max_grad_norm: float = 1.0  # longer gradients are scaled down to this norm; inf: never

    # The run: the same flags in every script for language models.
    task: str = "addition"  # or MODULE:FUNCTION, which returns prompts and a reward function
    carelessness: float = 0.5  # probability that the base model's teacher forgets a carry
    coherent: bool = False  # the teacher forgets all carries of a problem or none
    base_model: str | None = None  # file of a base model to use, or to make where there is none
    model: str | None = None  # folder of a Hugging Face causal model, in place of the small GPT
    lora_rank: int = 0  # train only adapters of this rank in --model; 0: all its weights
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights of --model
    seed: int = 1  # fixes the run bit for bit, on one machine and with one set of versions
    device: Literal["cpu", "cuda", "mps"] = "cpu"  # small networks are faster there
    torch_threads: int = 1  # parallel runs share the cores
    log_interval: int = 2_000  # minimum completions between two entries of losses/* and eval/*
    checkpoint_interval: float = 10.0  # minimum seconds between two checkpoints
    eval_episodes: int = 500  # held-out prompts of an evaluation, which uses the policy's mode
    run_dir: Path | None = None  # default: runs/TASK__SCRIPT__SEED__TIME
    resume: Path | None = None  # run directory to resume, with its own flags


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
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

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
    """The policy: tokens (batch, length) -> logits of the next (batch, length, vocabulary)."""

    def __init__(self, vocabulary: int, context: int, width=64, layers=2, heads=4):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def new_cache(self) -> list:
        return [None] * len(self.blocks)

    def forward(self, tokens: Tensor, cache: list | None = None) -> Tensor:
        """With a cache of what is known of the tokens before, only the new ones are given: all
        of the prompt at first, then one by one. The cache is brought up to date."""
        cache = self.new_cache() if cache is None else cache
        start = 0 if cache[0] is None else cache[0][0].shape[2]
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(positions)
        for i, block in enumerate(self.blocks):
            x, cache[i] = block(x, cache[i])
        return self.head(self.norm(x))


# ==============================================================================================
# Mathematics
# ==============================================================================================
PAD = -1  # stands behind the end of a completion; no entry of any vocabulary


def completion_mask(completions: Tensor, eos: int) -> Tensor:
    """True up to the first end-of-sequence token, which counts too, false behind it: the end is
    an action of the policy. Everything is (batch, length)."""
    ended = completions == eos
    return ended.cumsum(1) - ended.int() == 0


@torch.no_grad()
def sample(
    policy: nn.Module, prompts: Tensor, temperature: float, length: int, eos: int
) -> Tensor:
    """Completions (batch, at most `length`) of prompts (batch, context), PAD behind their end.
    Each token is drawn from the whole softmax of logits / temperature, without top-k or other
    filters: a filtered token would not have the log-probability that the loss gives it. At
    temperature 0 it is the most probable token."""
    cache, tokens, drawn = policy.new_cache(), prompts, []
    ended = torch.zeros_like(prompts[:, :1], dtype=torch.bool)
    while len(drawn) < length and not ended.all():
        logits = policy(tokens, cache)[:, -1]
        if logits.isnan().any():
            raise FloatingPointError("a logit is not finite")
        if temperature > 0:
            tokens = (logits / temperature).softmax(-1).multinomial(1)
        else:
            tokens = logits.argmax(-1, keepdim=True)
        drawn.append(tokens)
        ended = ended | (tokens == eos)
    completions = torch.cat(drawn, 1)
    return completions.masked_fill(~completion_mask(completions, eos), PAD)


def log_policy(
    policy: nn.Module, prompts: Tensor, completions: Tensor, temperature: float
) -> Tensor:
    """log pi(.|prompt, earlier tokens) at each token of the completions: prompts (batch,
    context), completions (batch, length) -> (batch, length, vocabulary).

        log softmax(logits / temperature)

    Logits are about the next token: those about the completion begin at the last token of the
    prompt, and nobody asks what follows the completion's last. Any token may stand for PAD:
    nothing before it looks at it, and all that comes of it is masked.
    """
    tokens = torch.cat([prompts, completions], 1).clamp(min=0)
    logits = policy(tokens[:, :-1])[:, prompts.shape[1] - 1 :]
    return (logits / temperature).log_softmax(-1)


def token_log_probs(log_pi: Tensor, completions: Tensor) -> Tensor:
    """log_pi (batch, length, vocabulary) of the tokens that were chosen: (batch, length)."""
    return log_pi.gather(-1, completions.clamp(min=0).unsqueeze(-1)).squeeze(-1)


def token_entropy(log_pi: Tensor) -> Tensor:
    """The entropy of each next token: (batch, length, vocabulary) -> (batch, length)."""
    return -(log_pi.exp() * log_pi).sum(-1)


def kl_divergence(log_pi: Tensor, log_ref: Tensor) -> Tensor:
    """KL(pi || pi_ref) of each next token: two (batch, length, vocabulary) -> (batch, length).

        sum over the vocabulary of pi * (log pi - log pi_ref)

    Summed over the tokens of completions that pi sampled, its mean is the KL divergence of the
    completions' distributions: exact at each token, while the texts before it are a sample.
    """
    return (log_pi.exp() * (log_pi - log_ref)).sum(-1)


def compare(
    policy: nn.Module, reference: nn.Module, prompts: Tensor, completions: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """log pi and log pi_ref of each token, and KL(pi || pi_ref) there: each (batch, length)."""
    log_pi = log_policy(policy, prompts, completions, temperature)
    log_ref = log_policy(reference, prompts, completions, temperature)
    log_probs, ref_log_probs = (token_log_probs(x, completions) for x in (log_pi, log_ref))
    return log_probs, ref_log_probs, kl_divergence(log_pi, log_ref)


def leave_one_out(rewards: Tensor, num_generations: int) -> Tensor:
    """Each reward minus the mean of the others in its group: (batch,), groups side by side.

        A_i = R_i - 1 / (G - 1) * sum over j != i of R_j = G / (G - 1) * (R_i - mean of group)

    Unbiased: completion i is independent of R_j, so the expectation of grad log pi(i) * R_j is
    that of grad log pi(i), which is 0, times that of R_j.
    Source: Kool et al. 2019; Ahmadian et al. 2024.
    """
    group = rewards.view(-1, num_generations)
    others = (group.sum(1, keepdim=True) - group) / (num_generations - 1)
    return (group - others).flatten()


def reinforce_loss(log_probs: Tensor, mask: Tensor, advantages: Tensor) -> Tensor:
    """The loss whose negative gradient is the policy gradient: log_probs and mask (batch,
    length), advantages (batch,).

        loss = -mean over completions of A * log pi(completion|prompt)
        log pi(completion|prompt) = sum over its tokens of log pi(token|prompt, earlier tokens)

    Source: Ahmadian et al. 2024; Williams 1992.
    """
    return -(advantages * (log_probs * mask).sum(1)).mean()


# ==============================================================================================
# Training
# ==============================================================================================
def train(args: Args) -> dict:
    """Train, evaluate, and return what summary.json holds. Raises BadInput for flags and tasks
    that cannot work, FloatingPointError for numbers that are not finite."""
    args = check_args(args)
    num_iterations = args.total_timesteps // args.batch_size
    if num_iterations == 0:
        raise BadInput(f"total_timesteps must be at least one batch, {args.batch_size}")
    if args.batch_size % args.num_generations:
        raise BadInput(f"num_generations must divide {args.batch_size}")
    if args.batch_size % args.gradient_accumulation_steps:
        raise BadInput(f"gradient_accumulation_steps must divide {args.batch_size}")
    part_size = args.batch_size // args.gradient_accumulation_steps

    with Run(args) as run:
        policy, task = make_policy_and_task(args)
        reference = freeze(policy)  # the base model
        torch.manual_seed(args.seed)
        parameters = [p for p in policy.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, args.learning_rate, (0.9, 0.95), fused=True)
        state = {"policy": policy, "reference": reference, "optimizer": optimizer}
        run.start(state, num_iterations * args.batch_size)

        for iteration in range(run.global_step // args.batch_size, num_iterations):
            with torch.no_grad():
                # ---- ROLLOUT ----
                texts = task.draw(args.batch_size // args.num_generations)
                texts = [text for text in texts for _ in range(args.num_generations)]
                prompts = task.encode(texts)
                completions = sample(
                    policy, prompts, args.temperature, args.max_completion_length, task.eos
                )
                mask = completion_mask(completions, task.eos)
                rewards = task.rewards(texts, completions)
                run.record_step(rewards, mask.sum(1))

                # ---- ADVANTAGE ----
                parts = zip(prompts.split(part_size), completions.split(part_size), strict=True)
                scores = [compare(policy, reference, *x, args.temperature) for x in parts]
                old_log_probs, ref_log_probs, kl = map(torch.cat, zip(*scores, strict=True))
                log_ratio = ((old_log_probs - ref_log_probs) * mask).sum(1)
                penalised = rewards - args.kl_coef * log_ratio
                advantages = leave_one_out(penalised, args.num_generations)

            # ---- UPDATE ----
            if args.anneal_lr:
                remaining = 1 - iteration / num_iterations
                optimizer.param_groups[0]["lr"] = args.learning_rate * remaining
            stats = []
            optimizer.zero_grad()
            for rows in torch.arange(args.batch_size).split(part_size):
                log_pi = log_policy(policy, prompts[rows], completions[rows], args.temperature)
                log_probs = token_log_probs(log_pi, completions[rows])
                loss = reinforce_loss(log_probs, mask[rows], advantages[rows])
                (loss / args.gradient_accumulation_steps).backward()  # parts are equally long
                stats.append((loss.detach(), token_entropy(log_pi.detach())[mask[rows]]))
            grad_norm = nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
            optimizer.step()

            # ---- LOG ----
            policy_loss, entropy = (torch.hstack(x).mean() for x in zip(*stats, strict=True))
            losses = {"policy_loss": policy_loss, "entropy": entropy, "grad_norm": grad_norm}
            losses["completion_length"] = mask.sum(1).float().mean()
            losses["kl"] = (kl * mask).sum(1).mean()
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
LIMITS = {  # of numeric flags; 0 to 1e15 where not named here, 1 to 1e15 for whole numbers
    "seed": (0, 1e15), "temperature": (1e-3, 1e3), "baseline_decay": (0, 1),
    "num_generations": (2, 1e15), "clip_coef_low": (0, 1), "max_grad_norm": (1e-9, math.inf),
    "carelessness": (0, 1), "lora_rank": (0, 1e4), "gamma": (0, 1), "gae_lambda": (0, 1),
}  # fmt: skip


class BadInput(ValueError):
    """Flags, a task or a model that cannot work."""


def say(text: str) -> None:
    """Print a line; a closed or narrow stream must not end a run."""
    with suppress(OSError, ValueError, RuntimeError):
        print(text, flush=True)


def check_args(args: Args) -> Args:
    """A checked copy of `args` with run_dir filled in; to resume a run, with its own flags."""
    flags = {k: v.item() if isinstance(v, np.generic) else v for k, v in asdict(args).items()}
    for name, value in flags.items():
        if type(value) in (int, float):
            kind = int if type(getattr(Args, name)) is int else float
            low, high = LIMITS.get(name, (int(kind is int), 1e15))
            if not low <= value <= high or kind(value) != value:
                limits = f"{kind.__name__}, {low:g} to {high:g}"
                raise BadInput(f"{name} must be {limits}, not {value}")
            flags[name] = kind(value)  # 1e6 is a number of steps
    if not args.resume:
        name = f"{args.task}__{SCRIPT.stem}__{args.seed}__{datetime.now():%Y%m%d-%H%M%S-%f}"
        run_dir = Path(args.run_dir or "runs/" + re.sub(r"[/:\\]", "_", name))
        if run_dir.exists():  # said before the base model is made
            raise BadInput(f"{run_dir} exists; name another --run-dir, or --resume it")
        return Args(**flags | {"run_dir": run_dir})
    path = Path(str(args.resume).removesuffix("checkpoint.pt"))
    try:
        checkpoint = torch.load(path / "checkpoint.pt", "cpu", weights_only=True)
        own = asdict(Args(**checkpoint["args"] | {"run_dir": path}))
    except Exception as error:  # reading a damaged file can raise anything
        raise BadInput(f"{SCRIPT.name} cannot resume {path}: {error}") from None
    if args.run_dir != path:  # flags at their default are taken as not given
        flags = own | {k: value for k, value in flags.items() if value != getattr(Args, k)}
    for name in {"run_dir", *list(own)[: list(own).index("device")]} - {"total_timesteps"}:
        if flags[name] != own[name]:
            raise BadInput(f"to resume {path}, {name} must stay {own[name]}")
    return Args(**flags | {"resume": path})


def add(prompt: str, forget=(False, False)) -> str:
    """The answer to "27+85=", last digit first: "211". Carries to `forget` are not added."""
    a, b = map(int, prompt[:-1].split("+"))
    ones, tens = a % 10 + b % 10, a // 10 + b // 10
    tens += ones > 9 and not forget[0]
    total = ones % 10 + tens % 10 * 10 + 100 * (tens > 9 and not forget[1])
    return str(total)[::-1]


class Characters:
    """The small GPT's vocabulary: a character is a token, and "." ends a completion."""

    symbols, eos = "0123456789+=.", 12

    def encode(self, text: str) -> list[int]:
        return [self.symbols.index(character) for character in text]

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.symbols[token] for token in tokens)


class Task:
    """Prompts, what a completion of them earns, and the vocabulary both are written in.

    The addition's prompts all have six characters. Its answers begin with the last digit, so
    that a carry is known when it is needed. Without a carry there is nothing left to learn.
    """

    def __init__(self, args: Args, vocabulary):
        self.args, self.vocabulary, self.eos = args, vocabulary, vocabulary.eos
        self.exact = args.task == "addition" and not args.model
        if args.task == "addition":
            prompts = [f"{a:02}+{b:02}=" for a in range(100) for b in range(100)]
            self.reward = lambda prompt, answer: answer == add(prompt)
        else:
            module, _, function = args.task.partition(":")
            try:
                make = getattr(importlib.import_module(module), function)
            except (AttributeError, ImportError, ValueError) as error:
                raise BadInput(f"task must be addition or MODULE:FUNCTION; {error}") from None
            prompts, self.reward = make()
        # A random tenth is held out, the same in every run: no training ever sees it.
        prompts = [prompts[i] for i in np.random.default_rng(0).permutation(len(prompts))]
        tenth = -(-len(prompts) // 10)
        self.demonstrated = prompts[tenth:]
        held_out, training = (
            [p for p in part if args.task != "addition" or add(p) != add(p, (True, True))]
            for part in (prompts[:tenth], self.demonstrated)
        )
        if not training:
            raise BadInput(f"task {args.task} must have two prompts or more")
        self.training = self.by_length(training)
        self.held_out = self.by_length(held_out[: args.eval_episodes])

    def by_length(self, prompts: list[str]) -> list[list[str]]:
        """Prompts in groups of one number of tokens: a batch needs no padding before them."""
        groups: dict[int, list[str]] = {}
        for prompt in prompts:
            groups.setdefault(len(self.vocabulary.encode(prompt)), []).append(prompt)
        return list(groups.values())

    def draw(self, number: int) -> list[str]:
        """Random training prompts of one length, itself drawn by its share of all prompts."""
        shares = torch.tensor([float(len(group)) for group in self.training])
        group = self.training[shares.multinomial(1)]
        return [group[i] for i in torch.randint(len(group), (number,))]

    def encode(self, texts: list[str], end: tuple[int, ...] = ()) -> Tensor:
        """Tokens (batch, longest) of the texts and their `end`, PAD behind the shorter ones."""
        rows = [[*self.vocabulary.encode(text), *end] for text in texts]
        longest = max(map(len, rows))
        rows = [row + [PAD] * (longest - len(row)) for row in rows]
        return torch.tensor(rows, device=self.args.device)

    def decode(self, completions: Tensor) -> list[str]:
        rows = ([t for t in row if t not in (PAD, self.eos)] for row in completions.tolist())
        return [self.vocabulary.decode(row) for row in rows]

    def rewards(self, texts: list[str], completions: Tensor) -> Tensor:
        """What each completion earns: (batch,)."""
        pairs = zip(texts, self.decode(completions), strict=True)
        return torch.tensor([float(self.reward(*x)) for x in pairs], device=self.args.device)


def make_policy_and_task(args: Args) -> tuple[nn.Module, Task]:
    """The base model and what it is to learn."""
    if args.model:
        policy = HuggingFace(args)
        return policy, Task(args, policy)
    short = args.max_completion_length not in range(4, 27)
    if args.task != "addition" or args.lora_rank or short:
        raise BadInput("without --model: task addition, completions of 4 to 26 tokens, no LoRA")
    task = Task(args, Characters())
    return base_model(args, task), task


def base_model(args: Args, task: Task) -> nn.Module:
    """A small GPT that imitates a careless teacher, who adds but forgets each carry with
    probability `carelessness`. So it is right with probability (1 - carelessness) ** carries,
    or, if coherent, 1 - carelessness. It has a seed of its own: all runs start from one model.
    """
    torch.manual_seed(0)
    policy = GPT(len(Characters.symbols), context=32).to(args.device)
    if args.resume:
        return policy  # the checkpoint has its weights
    path, about = args.base_model and Path(args.base_model), [args.carelessness, args.coherent]
    if path and not path.parent.is_dir():
        raise BadInput(f"there is no folder for base_model {path}")
    if path and path.exists():
        try:
            *was, weights = torch.load(path, args.device, weights_only=True)
            policy.load_state_dict(weights)
        except Exception as error:  # reading a damaged file can raise anything
            raise BadInput(f"cannot use base_model {path}: {error}") from None
        if was != about:
            raise BadInput(f"{path} has carelessness and coherent {was}, not {about}")
    else:
        optimizer = torch.optim.AdamW(policy.parameters(), 3e-3, (0.9, 0.98), fused=True)
        steps = tqdm(range(1500), "base model", disable=not sys.stderr or None, leave=False)
        for step in steps:
            optimizer.param_groups[0]["lr"] = 3e-3 * min((step + 1) / 50, 1 - step / 1500)
            texts = [task.demonstrated[i] for i in torch.randint(len(task.demonstrated), (64,))]
            forgets = torch.rand(64, 1 if args.coherent else 2) < args.carelessness
            answers = map(add, texts, forgets.expand(64, 2).tolist())
            prompts, completions = task.encode(texts), task.encode(answers, (task.eos,))
            log_pi = log_policy(policy, prompts, completions, 1.0)
            loss = -token_log_probs(log_pi, completions)[completions != PAD].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if path:  # written whole or not at all
            torch.save([*about, policy.state_dict()], f"{path}.{os.getpid()}")
            Path(f"{path}.{os.getpid()}").replace(path)
    return policy


class HuggingFace(nn.Module):
    """A causal language model from a local folder or GGUF file, behind the GPT's interface."""

    def __init__(self, args: Args):
        super().__init__()
        path, options = Path(args.model), {"local_files_only": True}
        if path.suffix == ".gguf":
            path, options["gguf_file"] = path.parent, path.name
        try:
            from peft import LoraConfig, get_peft_model
            from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

            self.tokenizer = AutoTokenizer.from_pretrained(path, **options)
            options["dtype"] = getattr(torch, args.dtype)
            self.model = AutoModelForCausalLM.from_pretrained(path, **options)
        except (ImportError, OSError, ValueError) as error:
            needs = "--model needs a local model and: pip install transformers peft"
            raise BadInput(f"{needs}; {args.model}: {error}") from None
        known = inspect.signature(self.model.forward).parameters
        self.cache_name = "cache" if "cache" in known else "past_key_values"  # new, old
        self.new_cache, self.eos = DynamicCache, self.tokenizer.eos_token_id
        if self.eos is None:
            raise BadInput(f"the tokenizer of {args.model} has no end-of-sequence token")
        if args.lora_rank:  # alpha = rank: the product of the thin matrices is added as it is
            config = LoraConfig("CAUSAL_LM", r=args.lora_rank, lora_alpha=args.lora_rank)
            self.model = get_peft_model(self.model, config)
        self.to(args.device).eval()  # no dropout

    def forward(self, tokens: Tensor, cache=None) -> Tensor:
        options = {self.cache_name: cache, "use_cache": cache is not None}
        return self.model(tokens, **options).logits.float()

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens)

    def state_dict(self, *args, **kwargs) -> dict:
        """Only what is trained: the rest is in the model's own folder."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if k in trained}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state, strict=False)


def freeze(policy: nn.Module) -> nn.Module:
    """A copy that is never trained; it shares the weights that the policy does not train."""
    shared = {id(p): p for p in policy.parameters() if not p.requires_grad}
    return deepcopy(policy, shared).requires_grad_(False)


@torch.no_grad()
def exact_success(policy: nn.Module, task: Task) -> float:
    """The probability that a sampled completion of a held-out problem is right, without
    sampling: that of the right answer, from one pass over it."""
    texts = task.held_out[0]
    answers = task.encode([add(text) for text in texts], (task.eos,))
    log_pi = log_policy(policy, task.encode(texts), answers, task.args.temperature)
    log_probs = token_log_probs(log_pi, answers) * completion_mask(answers, task.eos)
    return log_probs.sum(1).exp().mean().item()


class Run(ExitStack):
    """The run directory and its log. Its exit closes them and gives torch's settings back."""

    def __init__(self, args: Args):
        if not getattr(torch, args.device).is_available():
            raise BadInput(f"PyTorch finds no device {args.device} here")
        super().__init__()
        self.args, self.global_step, self.seconds = args, 0, 0.0  # completions; of training
        self.recent_returns: deque[float] = deque(maxlen=100)
        self.success = ""  # the latest on held-out problems
        self.callback(torch.set_num_threads, torch.get_num_threads())
        self.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_num_threads(args.torch_threads)
        torch.set_default_dtype(torch.float32)

    def start(self, state: dict, total_steps: int) -> None:
        """Make the run directory, or restore all that `state` names from the one to resume."""
        args, run_dir, self.state = self.args, self.args.run_dir, state
        name = f"args-{datetime.now():%Y%m%d-%H%M%S-%f}.json" if args.resume else "args.json"
        try:
            run_dir.mkdir(parents=True, exist_ok=bool(args.resume))
            self.enter_context(FileLock(run_dir / "lock", timeout=0))  # freed when we die
            if args.resume:
                was = torch.load(run_dir / "checkpoint.pt", "cpu", weights_only=True)
                for key, part in state.items():
                    part.load_state_dict(was[key])
                self.global_step, self.seconds, recent = was["counters"]
                self.recent_returns.extend(recent)
                torch.manual_seed(args.seed + self.global_step)
                changed = [key for key in ABOUT if ABOUT[key] != was["about"][key]] or "nothing"
                say(f"resuming at step {self.global_step:,} with new noise; changed: {changed}")
            (run_dir / name).write_text(json.dumps(asdict(args) | ABOUT, indent=2, default=str))
        except (KeyError, OSError, RuntimeError, ValueError) as error:  # or other networks
            raise BadInput(f"cannot use {run_dir} (or --resume it): {error}") from None
        say(f"{SCRIPT.name}: {args.task}, seed {args.seed}, {total_steps:,} steps, {run_dir}")
        (run_dir / "summary.json").unlink(missing_ok=True)  # a resumed run is unfinished again
        # A kill can leave the events ahead of the checkpoint: purge_step disowns the surplus.
        writer = SummaryWriter(run_dir, purge_step=self.global_step + 1)
        hide = not sys.stderr or None  # None: show the bar on a terminal only
        bar = tqdm(total=total_steps, initial=self.global_step, unit=" steps", disable=hide)
        self.writer, self.bar = self.enter_context(writer), self.enter_context(bar)
        self.next_log, self.began = self.global_step, time.perf_counter() - self.seconds
        self.save()

    def write(self, name: str, data: bytes) -> None:
        """Replace a file whole: a kill or a full disk leaves the old one."""
        path = self.args.run_dir / "new.tmp"
        path.write_bytes(data)
        path.replace(path.with_name(name))

    def save(self) -> None:
        """Write the events and a checkpoint."""
        self.saved, file = time.perf_counter(), io.BytesIO()
        self.seconds = self.saved - self.began
        parts = {name: part.state_dict() for name, part in self.state.items()}
        counters = [self.global_step, self.seconds, list(self.recent_returns)]
        flags = asdict(replace(self.args, run_dir=None, resume=None))
        torch.save(parts | {"about": ABOUT, "args": flags, "counters": counters}, file)
        self.writer.flush()
        self.write("checkpoint.pt", file.getvalue())

    def record_step(self, rewards: Tensor, lengths: Tensor) -> None:
        """Count a batch of completions; log the means of eight at a time."""
        if not rewards.isfinite().all():
            raise FloatingPointError(f"step {self.global_step}: a reward is not finite")
        for eight, length in zip(rewards.split(8), lengths.float().split(8), strict=True):
            self.global_step += len(eight)
            self.writer.add_scalar("charts/episodic_return", eight.mean(), self.global_step)
            self.writer.add_scalar("charts/episodic_length", length.mean(), self.global_step)
        self.recent_returns.extend(rewards.tolist())

    def record_iteration(self, policy: nn.Module, task: Task, losses: dict) -> None:
        """Log, show, and save when it is time."""
        losses = {name: float(value) for name, value in losses.items()}
        if not all(map(math.isfinite, losses.values())):
            raise FloatingPointError(f"step {self.global_step}: a loss is not finite, {losses}")
        sps = self.global_step / (time.perf_counter() - self.began)
        if self.global_step >= self.next_log:
            self.next_log = self.global_step + self.args.log_interval
            self.writer.add_scalar("charts/SPS", sps, self.global_step)
            for name, value in losses.items():
                self.writer.add_scalar(f"losses/{name}", value, self.global_step)
            if task.exact:
                success = exact_success(policy, task)
                self.writer.add_scalar("eval/exact_success", success, self.global_step)
                self.success = f", held-out success {success:.3f}"
        status = f"return {np.mean(self.recent_returns):.2f}{self.success}"
        self.bar.set_postfix_str(status, refresh=False)
        self.bar.update(self.global_step - self.bar.n)
        if time.perf_counter() - self.saved > self.args.checkpoint_interval:
            self.save()
            if self.bar.disable:
                say(f"step {self.global_step:,}, {status}, {sps:,.0f} steps/s")


@torch.no_grad()
def evaluate(policy: nn.Module, reference: nn.Module, task: Task, run: Run) -> dict:
    """Save, answer the held-out prompts with the mode of the base model and of the policy,
    write samples.txt and the summary, and return the latter."""
    run.save()
    run.bar.close()
    args, rows, kl = run.args, [], []
    for texts in task.held_out:
        prompts, limits = task.encode(texts), (args.max_completion_length, task.eos)
        before, after = (sample(model, prompts, 0.0, *limits) for model in (reference, policy))
        rewards = (task.rewards(texts, completions).tolist() for completions in (before, after))
        rows += zip(texts, task.decode(before), task.decode(after), *rewards, strict=True)
        completions = sample(policy, prompts, args.temperature, *limits)
        _, _, token_kl = compare(policy, reference, prompts, completions, args.temperature)
        kl += (token_kl * completion_mask(completions, task.eos)).sum(1).tolist()
    base_returns, returns = np.array([row[3:] for row in rows]).T
    run.writer.add_scalar("eval/episodic_return", returns.mean(), run.global_step)
    summary = {
        "env_id": args.task, "script": SCRIPT.name, "seed": args.seed,
        "global_step": run.global_step, "wall_seconds": run.seconds,
        "sps": run.global_step / run.seconds, "train_episodes": run.global_step,
        "train_return_mean": float(np.mean(run.recent_returns)),
        "eval_return_mean": returns.mean(), "eval_return_std": returns.std(),
        "eval_episodes": len(returns), "base_return_mean": base_returns.mean(),
        "kl": float(np.mean(kl)),
    }  # fmt: skip
    if task.exact:
        summary["base_exact_success"] = exact_success(reference, task)
        summary["exact_success"] = exact_success(policy, task)
    if not all(math.isfinite(x) for x in summary.values() if not isinstance(x, str)):
        raise FloatingPointError(f"evaluation: a number is not finite, {summary}")
    lines = ["held-out prompts: answer before -> after training (reward before -> after)"]
    lines += ["{} {!r} -> {!r} ({:g} -> {:g})".format(*row) for row in rows[:10]]
    lines += [f"evaluation {returns.mean():.3f}, before training {base_returns.mean():.3f}"]
    run.write("samples.txt", "\n".join(lines).encode())
    run.write("summary.json", json.dumps(summary, indent=2).encode())
    say("\n".join(lines))
    return summary


if __name__ == "__main__" and "__file__" in globals():  # a notebook cell only defines
    args = None
    try:
        args = check_args(tyro.cli(Args))
        if args.resume:  # what is given wins, even where it equals the default
            args = tyro.cli(Args, default=args)
        train(args)
    except (Exception, KeyboardInterrupt) as error:
        faults = (BadInput, FloatingPointError, KeyboardInterrupt, torch.OutOfMemoryError)
        known = isinstance(error, faults)
        known |= getattr(error, "errno", None) in (EDQUOT, EFBIG, ENOSPC)  # a full disk
        line = f"error: {' '.join(str(error).split())}" if str(error) else "stopped"
        print(line if known else traceback.format_exc(), file=sys.stderr)
        status = {BadInput: 2, KeyboardInterrupt: 130}.get(type(error), 1)
        if args and status != 2 and (args.run_dir / "checkpoint.pt").exists():
            hint = shlex.join(["python", sys.argv[0], "--resume", str(args.run_dir)])
            print(f"resume with: {hint}", file=sys.stderr)
        sys.exit(status)
