"""What the tests of the scripts for language models share: small runs, a GPT written out in
double precision, a policy that is a table, and one trained base model."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import math
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import LM_SCRIPTS, fields, module
from torch import Tensor, nn

EOS = 12  # of the small GPT
BANNED = -1e9  # a logit of what never happens
every = pytest.mark.parametrize("script", LM_SCRIPTS)
groups = pytest.mark.parametrize("script", ["rloo", "grpo"])
# Functions of one name are one text in all scripts (test_siblings.py): the slower tests of them
# need not try every script.
some = pytest.mark.parametrize("script", ["rloo", "ppo_rlhf"])


# ---- small runs ----
def random_base(path: Path, seed: int = 0) -> Path:
    """A base model's file without training: random weights, and logits that differ enough for
    mistakes to show."""
    torch.manual_seed(seed)
    policy = module("reinforce_lm").GPT().float()
    with torch.no_grad():
        policy.head.weight.mul_(1.5)
        policy.head.bias[EOS] += 1.0
    torch.save({"reference": policy.state_dict()}, path)
    return path


@functools.cache
def temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def task_of(script: str, **flags):
    """The addition, with a base model that costs nothing."""
    path = temporary_folder() / "random.pt"
    if not path.exists():
        random_base(path)
    found = module(script)
    usual = {"base_model": str(path), "batch_size": 10_000}
    return found.Task(found.Args(**with_kwargs(usual | flags)))


def with_kwargs(flags: dict) -> dict:
    """The flags, with those that are the addition's own arguments where they belong."""
    if "task_kwargs" in flags or "resume" in flags:
        return {name: value for name, value in flags.items() if name != "base_model"}
    own = {"carelessness", "base_seed", "base_model"} & flags.keys()
    rest = {name: value for name, value in flags.items() if name not in own}
    return rest | {"task_kwargs": json.dumps({name: flags[name] for name in own})}


def small(script: str) -> dict:
    """Flags of a run whose iterations are short: 16 completions."""
    flags = {"batch_size": 16, "num_generations": 4, "eval_episodes": 8, "log_interval": 1}
    flags |= {"num_preferences": 16, "preference_rounds": 1}
    return {name: value for name, value in flags.items() if name in fields(script)}


def flags_of(script: str, folder: Path, **flags) -> dict:
    """Flags of a small run in `folder`, from a base model that costs nothing."""
    path = folder / "base.pt"
    if not path.exists():
        random_base(path)
    usual = {"base_model": str(path), "run_dir": folder / "run", "total_timesteps": 48}
    return with_kwargs(small(script) | usual | flags)


def train(script: str, folder: Path, **flags) -> dict:
    found = module(script)
    return found.train(found.Args(**flags_of(script, folder, **flags)))


def with_reward(found: ModuleType, monkeypatch, reward) -> None:
    """The addition's prompts, with another reward(prompt, answer)."""
    make = found.addition

    def make_with_reward(**kwargs):
        policy, prompts, _ = make(**kwargs)
        return policy, prompts, lambda *lists: list(map(reward, *lists[:2]))

    monkeypatch.setattr(found, "addition", make_with_reward)


def some_reward(prompt: str, answer: str) -> float:
    """One that random answers earn in part."""
    return (len(answer) + 1) % 2 + (prompt[0] in answer) / 2


# ---- arithmetic ----
def digits_sum(prompt: str, forget=(False, False)) -> str:
    """Addition as at school, digit by digit from the right, forgetting carries on request; the
    answer with its last digit first."""
    left, right = prompt.rstrip("=").split("+")
    written, carry = "", 0
    for place in (1, 0):
        column = int(left[place]) + int(right[place]) + carry
        written += str(column % 10)
        carry = column // 10
        if forget[1 - place]:
            carry = 0
    written += str(carry)
    while len(written) > 1 and written[-1] == "0":
        written = written[:-1]
    return written


def carries(prompt: str) -> int:
    """How many columns of a sum carry."""
    a, b = int(prompt[:2]), int(prompt[3:5])
    return (a % 10 + b % 10 > 9) + (a + b > 99)


# ---- a GPT in double precision ----
def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def gpt_logits(weights: dict, tokens: list[int], heads: int = 4) -> Tensor:
    """Logits (length, vocabulary) of a text by the textbook: no batch, no cache."""
    n, x = len(tokens), weights["tokens.weight"][tokens]
    x = x + weights["positions.weight"][:n]
    future = torch.ones(n, n).triu(1).bool()
    layers = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("blocks"))
    for layer in range(layers):
        w = {
            key.removeprefix(f"blocks.{layer}."): value
            for key, value in weights.items()
            if key.startswith(f"blocks.{layer}.")
        }
        h = normalised(x, w["norm1.weight"], w["norm1.bias"])
        query, key, value = (h @ w["qkv.weight"].T + w["qkv.bias"]).chunk(3, -1)
        size, mixed = query.shape[1] // heads, []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / math.sqrt(size)
            share = scores.masked_fill(future, -math.inf).exp()
            mixed.append(share / share.sum(1, keepdim=True) @ value[:, part])
        x = x + torch.cat(mixed, 1) @ w["out.weight"].T + w["out.bias"]
        h = normalised(x, w["norm2.weight"], w["norm2.bias"])
        h = (h @ w["mlp.0.weight"].T + w["mlp.0.bias"]).clamp(min=0)
        x = x + h @ w["mlp.2.weight"].T + w["mlp.2.bias"]
    x = normalised(x, weights["norm.weight"], weights["norm.bias"])
    return x @ weights["head.weight"].T + weights["head.bias"]


def doubles(state: dict) -> dict:
    """Weights in double precision, ready to be differentiated."""
    return {key: value.double().clone().requires_grad_() for key, value in state.items()}


def real_tokens(row: list[int], eos: int = EOS) -> list[int]:
    """A completion up to its first end, which counts, or to its cut."""
    return row[: row.index(eos) + 1] if eos in row else row


def log_pi_of(
    weights: dict, prompt: list[int], row: list[int], temperature: float, eos: int = EOS
) -> Tensor:
    """log pi(.|text so far) at each real token of one completion: (its length, vocabulary)."""
    tokens = real_tokens(row, eos)
    logits = gpt_logits(weights, prompt + tokens)[len(prompt) - 1 : -1] / temperature
    return logits - logits.exp().sum(-1, keepdim=True).log()


def chosen(log_pi: Tensor, row: list[int], eos: int = EOS) -> Tensor:
    return log_pi[range(len(log_pi)), real_tokens(row, eos)]


# ---- a policy that is a table ----
class Table(nn.Module):
    """A logit for each text so far and each next token, behind the GPT's interface: prompts of
    one token, 0 to prompts - 1, and answers in tokens 0 to vocabulary - 1, the last of which
    ends. It is its own vocabulary: a text is its tokens joined by spaces."""

    def __init__(self, prompts: int, vocabulary: int, length: int, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.number, self.size, self.length = prompts, vocabulary, length
        self.end, self.context = vocabulary - 1, 1 + length
        self.register_buffer("eos", torch.tensor([self.end]), persistent=False)
        rows = prompts * sum(vocabulary**k for k in range(length))
        self.logits = nn.Parameter(torch.randn(rows, vocabulary, generator=generator))

    def row(self, prompt: int, answer: tuple[int, ...]) -> int:
        """The table's row for what follows `answer`."""
        block = sum(self.size**k for k in range(len(answer)))
        code = functools.reduce(lambda code, token: code * self.size + token, answer, 0)
        return self.number * block + prompt * self.size ** len(answer) + code

    def new_cache(self) -> list:
        return []

    def forward(self, tokens: Tensor, cache: list | None = None, keep=None) -> Tensor:
        if cache is not None:
            tokens, new = torch.cat([*cache, tokens], 1), tokens.shape[1]
            cache[:] = [tokens]
        else:
            new = tokens.shape[1]
        rows, code = [], tokens[:, 0]
        for position in range(tokens.shape[1]):
            if position:
                code = code * self.size + tokens[:, position]
            rows.append(self.number * sum(self.size**k for k in range(position)) + code)
        return self.logits[torch.stack(rows, 1)][:, -(keep or new) :]

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return " ".join(str(token) for token in tokens if token != self.end)

    def answers(self) -> list[tuple[int, ...]]:
        """Every completion that can be sampled: it ends, or is cut at the greatest length."""
        found = []
        for n in range(1, self.length + 1):
            for answer in itertools.product(range(self.size), repeat=n):
                ends = self.end in answer
                if (ends and answer.index(self.end) == n - 1) or (
                    not ends and n == self.length
                ):
                    found.append(answer)
        return found

    def probabilities(self, prompt: int, temperature: float = 1.0) -> np.ndarray:
        """Of each of answers(), by multiplication."""
        logits = self.logits.detach().double().numpy() / temperature
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return np.array([
            math.prod(p[self.row(prompt, answer[:k]), token] for k, token in enumerate(answer))
            for answer in self.answers()
        ])  # fmt: skip


def padded(answers: list[tuple[int, ...]], end: int = EOS) -> Tensor:
    longest = max(map(len, answers))
    return torch.tensor([[*a, *[end] * (longest - len(a))] for a in answers])


# ---- the trained base model ----
class Notes:
    """Takes notes of what a base model is trained on: pairs of a prompt and an answer, what is
    encoded besides, and the step sizes."""

    def __init__(self, found: ModuleType, **kwargs):
        self.prompts, self.pairs, self.rates, answers = [], [], [], []
        adamw, encode, rates = torch.optim.AdamW, found.encode, self.rates

        class Noted(adamw):
            def step(self):
                rates.append(self.param_groups[0]["lr"])
                assert (self.defaults["lr"], self.defaults["betas"]) == (3e-3, (0.9, 0.98))
                super().step()

        def note(policy, texts):
            texts = list(texts)
            if texts[0].endswith("="):
                self.prompts += texts
                self.pairs += zip(texts, answers.pop(), strict=True)
            else:
                assert all(len(text) == 4 and text.endswith(".") for text in texts)
                answers.append([text.rstrip(".") for text in texts])
            return encode(policy, texts)

        torch.optim.AdamW, found.encode = Noted, note
        try:
            self.policy, self.split, _ = found.addition(**kwargs)
        finally:
            torch.optim.AdamW, found.encode = adamw, encode


@functools.cache
def trained() -> tuple[Path, Notes]:
    """The default base model, trained once in a session: its file and the notes."""
    found = module("reinforce_lm")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    notes = Notes(found)
    torch.set_num_threads(threads)
    path = temporary_folder() / "trained.pt"
    torch.save({"reference": notes.policy.state_dict()}, path)
    return path, notes


def shorten(found: ModuleType, monkeypatch, steps: int) -> None:
    """Train base models for some steps only."""
    tqdm = found.tqdm
    monkeypatch.setattr(found, "tqdm", lambda *x, **y: range(steps) if x else tqdm(**y))


def trained_policy() -> nn.Module:
    policy = module("reinforce_lm").GPT()
    policy.load_state_dict(torch.load(trained()[0], weights_only=True)["reference"])
    return policy


def success(policy: nn.Module, prompt: str, temperature: float = 1.0) -> float:
    """The probability of the right answer, from the weights."""
    symbols = "0123456789+=."
    weights = {key: value.double() for key, value in policy.state_dict().items()}
    prompt, row = (
        [symbols.index(c) for c in text] for text in (prompt, digits_sum(prompt) + ".")
    )
    with torch.no_grad():
        return chosen(log_pi_of(weights, prompt, row, temperature), row).sum().exp().item()
