"""Notes of whole runs of the scripts for language models: what each iteration began with,
drew, sampled, was told, and ended with. The optimisers are replaced by plain gradient descent,
so that a step shows its gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import Recorder, fields, module
from lm_helpers import EOS, flags_of, log_pi_of, real_tokens, with_reward

TEMPERATURE, ITERATIONS, BATCH, SIZE = 0.7, 3, 24, 4
SYMBOLS = "0123456789+=."


def reward(prompt: str, answer: str) -> float:
    """Something that random answers earn or not: 0, 1 or 2, at times the same in a whole group,
    at times the mean of a group that differs."""
    return float(answer[:1] in tuple("01234+")) + float(answer[:1] in tuple("12"))


class Recorded(Recorder):
    """Runs a script with notes taken, also of texts, completions and step sizes; of
    preferences, which rows were chosen and which rejected, and in `rounds` what a reward model
    learned from."""

    def __init__(self, script: str, folder, monkeypatch, rewarded=reward, **flags):
        super().__init__()
        self.script, found = script, module(script)
        self.texts, self.completions, self.samplers, self.preferences = [], [], [], []
        self.rounds, self.rates, learning = [], [], []
        self.ends = []  # how many times was sampled up to the end of each iteration
        save, draw, sgd = found.sample, found.Task.draw, torch.optim.SGD

        def note_sample(policy, prompts, temperature, *limits):
            assert temperature in (TEMPERATURE, 0.0)
            completions = save(policy, prompts, temperature, *limits)
            name = next(name for name, model in self.models.items() if model is policy)
            (self.rounds[-1]["samplers"] if learning else self.samplers).append(name)
            (self.rounds[-1]["completions"] if learning else self.completions).append(
                completions
            )
            return completions

        def note_draw(task, number):
            texts = draw(task, number)
            (self.rounds[-1]["texts"] if learning else self.texts).append(texts)
            return texts

        def note_preference(completions, rewards, rationality):
            assert rationality == self.args.rationality
            rows = prefer(completions, rewards, rationality)
            (self.rounds[-1]["preferences"] if learning else self.preferences).append(rows)
            return rows

        def note_round(*args):
            names = "texts", "completions", "samplers", "preferences"
            self.rounds.append({name: [] for name in names})
            self.rounds[-1]["iteration"] = len(self.logged)
            learning.append(True)
            self.rounds[-1]["accuracy"] = learn(*args)
            learning.clear()
            return self.rounds[-1]["accuracy"]

        def note_end(*args):
            record(*args)
            self.ends.append(len(self.completions))

        class Descent(sgd):
            def __init__(descent, parameters, lr, betas=(0.9, 0.999), fused=False):
                descent.noted = fused  # not the reward model's
                assert betas == ((0.9, 0.95) if fused else (0.9, 0.999))
                super().__init__(parameters, lr)

            def step(descent):
                if descent.noted:
                    self.rates.append(descent.param_groups[0]["lr"])
                super().step()

        with monkeypatch.context() as patch:
            self.watch(found, patch)
            record = found.Run.record_iteration
            patch.setattr(found.Run, "record_iteration", note_end)
            patch.setattr(found, "sample", note_sample)
            patch.setattr(found.Task, "draw", note_draw)
            patch.setattr(torch.optim, "Adam", Descent)
            if "rationality" in fields(script):
                prefer = found.prefer
                patch.setattr(found, "prefer", note_preference)
            if hasattr(found, "train_reward_model"):
                learn = found.train_reward_model
                patch.setattr(found, "train_reward_model", note_round)
            with_reward(found, patch, rewarded)
            usual = {"batch_size": BATCH, "total_timesteps": BATCH * ITERATIONS}
            usual |= {"num_generations": SIZE, "temperature": TEMPERATURE}
            usual = {k: v for k, v in usual.items() if k in fields(script)}
            self.args = found.Args(**flags_of(script, folder, **usual | flags))
            found.train(self.args)
        self.rewarded = rewarded

    def batch(self, k: int):
        """Prompts, completions and rewards of iteration k, as plain lists."""
        repeat = {"rloo": SIZE, "grpo": SIZE, "dpo": 2}.get(self.script, 1)
        if self.script == "grpo":
            batch = self.kept(k)
        else:
            batch = self.plain(self.texts[k], self.completions[k], repeat)
        assert len(batch[0]) == len(batch[1]) == self.args.batch_size
        return batch

    def draws(self, k: int):
        """GRPO's draws of iteration k, each as plain lists, and the prompts left over."""
        texts, found = list(self.texts[k]), []
        for completions in self.completions[self.ends[k - 1] if k else 0 : self.ends[k]]:
            number = len(completions) // SIZE
            found.append(self.plain(texts[:number], completions, SIZE))
            del texts[:number]
        return found, texts

    def kept(self, k: int):
        """Groups of one reward make room for the next draw's, the last draw's do not."""
        batch, (draws, _) = ([], [], []), self.draws(k)
        for draw in draws:
            for g in range(0, len(draw[0]), SIZE):
                if draw is draws[-1] or len(set(draw[2][g : g + SIZE])) > 1:
                    for all_, its in zip(batch, draw, strict=True):
                        all_ += its[g : g + SIZE]
        return batch

    def plain(self, texts, completions, repeat):
        texts = [text for text in texts for _ in range(repeat)]
        prompts = [[SYMBOLS.index(c) for c in text] for text in texts]
        rows = [real_tokens(row) for row in completions.tolist()]
        answers = ["".join(SYMBOLS[t] for t in row if t != EOS) for row in rows]
        rewards = [self.rewarded(*pair) for pair in zip(texts, answers, strict=True)]
        return prompts, rows, rewards

    def baseline(self, k: int) -> float:
        """b at the beginning of iteration k."""
        b, decay = 0.0, self.args.baseline_decay
        for earlier in range(k):
            b = decay * b + (1 - decay) * np.mean(self.batch(earlier)[2])
        return b


def scores(weights: dict, prompts, rows) -> list[torch.Tensor]:
    return [log_pi_of(weights, p, r, TEMPERATURE) for p, r in zip(prompts, rows, strict=True)]


def descend(
    weights: dict, loss: torch.Tensor, rate: float, max_grad_norm: float
) -> tuple[dict, float]:
    """The weights one step of plain gradient descent further, and the gradient's norm before it
    is clipped."""
    gradients = torch.autograd.grad(loss, list(weights.values()))
    norm = math.sqrt(sum((g**2).sum().item() for g in gradients))
    step = rate * min(1.0, max_grad_norm / norm)
    moved = {
        key: (value - step * g).detach().requires_grad_()
        for (key, value), g in zip(weights.items(), gradients, strict=True)
    }
    return moved, norm


def assert_moved(before: dict, after: dict, weights: dict) -> None:
    """From `before` to `after` as far as from `before` to `weights`."""
    for key, value in weights.items():
        step = value.detach() - before[key].double()
        close = 0.01 * step.abs().max().item() + 1e-6
        torch.testing.assert_close(
            after[key].double() - before[key].double(), step, rtol=0.01, atol=close
        )


def assert_logged(logged: dict, expected: dict) -> None:
    assert logged.keys() == expected.keys()
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, rel=2e-3, abs=2e-5), name


def about_batch(prompts: list[list[int]]) -> dict[str, float]:
    """What is logged of prompts, lists of tokens."""
    return {"different_prompts": len(set(map(tuple, prompts)))}


def assert_ratios(ratios: list[torch.Tensor]) -> None:
    """Of the first of an iteration's two minibatches the ratio is 1, of the second not."""
    for k in range(ITERATIONS):
        first, second = ratios[2 * k : 2 * k + 2]
        torch.testing.assert_close(first, torch.ones_like(first), rtol=0, atol=5e-6)
        assert (second - 1).abs().max() > 1e-3
