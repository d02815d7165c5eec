"""Notes of whole runs of the scripts for language models: what each iteration began with,
drew, sampled, was told, and ended with. The optimisers are replaced by plain gradient descent,
so that a step shows its gradient."""

from __future__ import annotations

import numpy as np
import torch
from helpers import copied, fields, module
from lm_helpers import EOS, PAD, flags_of, log_pi_of, with_reward

TEMPERATURE, ITERATIONS, BATCH, SIZE = 0.7, 3, 24, 4
SYMBOLS = "0123456789+=."


def reward(prompt: str, answer: str) -> float:
    """Something that random answers earn or not: 0, 1 or 2, at times the same in a whole group,
    at times the mean of a group that differs."""
    return float(answer[:1] in tuple("01234+")) + float(answer[:1] in tuple("12"))


class Recorded:
    """Runs a script with notes taken: the state before and after each iteration, texts,
    completions, logged losses, step sizes, the order of the minibatches; of preferences, which
    rows were chosen and which rejected, and in `rounds` what a reward model learned from."""

    def __init__(self, script: str, folder, monkeypatch, rewarded=reward, **flags):
        self.script, found = script, module(script)
        self.states, self.logged, self.orders, self.rates = [], [], [], []
        self.texts, self.completions, self.samplers, self.preferences = [], [], [], []
        self.rounds, self.models, learning = [], {}, []
        start, record, save = found.Run.start, found.Run.record_iteration, found.sample
        draw, randperm, sgd = found.Task.draw, torch.randperm, torch.optim.SGD

        def state_of(run):
            return {k: copied(part.state_dict()) for k, part in run.state.items()}

        def note_start(run, state, total):
            self.models.update(state)
            start(run, state, total)
            self.states.append(state_of(run))

        def note_iteration(run, policy, task, losses):
            record(run, policy, task, losses)
            self.states.append(state_of(run))
            self.logged.append({k: float(v) for k, v in losses.items()})

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

        def note_order(n, **kwargs):
            self.orders.append(randperm(n, **kwargs))
            return self.orders[-1]

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
            patch.setattr(found.Run, "start", note_start)
            patch.setattr(found.Run, "record_iteration", note_iteration)
            patch.setattr(found, "sample", note_sample)
            patch.setattr(found.Task, "draw", note_draw)
            patch.setattr(torch, "randperm", note_order)
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
        batch = self.plain(self.texts[k], self.completions[k], repeat)
        assert len(batch[0]) == len(batch[1]) == self.args.batch_size
        return batch

    def plain(self, texts, completions, repeat):
        texts = [text for text in texts for _ in range(repeat)]
        prompts = [[SYMBOLS.index(c) for c in text] for text in texts]
        rows = [[t for t in row if t != PAD] for row in completions.tolist()]
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
