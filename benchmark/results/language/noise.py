"""How noisy the policy gradient of reinforce_lm.py is, with a baseline and without one, on the
same batches of the same policies: at four moments of the runs of `language`, with its baseline
and without, which are made again here. One of its ten base models takes two minutes.

python -m benchmark.results.language.noise
"""

import csv
import json
import tempfile
from pathlib import Path

import torch

import reinforce_lm as lm

MOMENTS = 4_096, 8_192, 16_384, 32_768  # completions
BATCHES = 25


def gradients(policy: lm.GPT, task: lm.Task) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean reward of a batch, and the gradients of the loss of others with that as their
    baseline and with none: (BATCHES, parameters)."""
    found, baseline, args = {"with": [], "without": []}, None, task.args
    for _ in range(BATCHES + 1):
        with torch.no_grad():
            texts = task.draw(args.batch_size)
            prompts = lm.encode(policy, texts)
            length = args.max_completion_length
            completions = lm.sample(policy, prompts, args.temperature, length)
            rewards = task.rewards(texts, completions).float()
        if baseline is None:
            baseline = rewards.mean().item()
            continue
        mask = lm.completion_mask(completions, policy.eos)
        log_probs, _ = lm.log_policy(policy, prompts, completions, args.temperature)
        for name, several in found.items():
            advantages = rewards - (baseline if name == "with" else 0.0)
            loss = lm.reinforce_loss(log_probs, mask, advantages)
            parts = torch.autograd.grad(loss, [*policy.parameters()], retain_graph=True)
            several.append(torch.cat([part.flatten() for part in parts]))
    return baseline, {name: torch.stack(several) for name, several in found.items()}


def measure(policy: lm.GPT, task: lm.Task) -> dict:
    """The baseline, and the gradient: its standard deviation over batches, with and without the
    baseline, and the length of its mean, which both share."""
    baseline, found = gradients(policy, task)
    variances = {name: several.var(0).sum().item() for name, several in found.items()}
    mean = found["without"].mean(0).square().sum().item() - variances["without"] / BATCHES
    stds = {f"std_{name}": variance**0.5 for name, variance in variances.items()}
    return {"baseline": baseline, "mean": max(mean, 0.0) ** 0.5, **stds}


def trained(seed: int, decay: float, folder: str) -> list[dict]:
    """A row for each moment of one run."""
    rows, record = [], lm.Run.record_iteration

    def watched(run: lm.Run, policy: lm.GPT, task: lm.Task, losses: dict) -> None:
        record(run, policy, task, losses)
        if run.global_step in MOMENTS:
            with torch.random.fork_rng():
                row = {"seed": seed, "baseline_decay": decay, "completions": run.global_step}
                rows.append(row | measure(policy, task))

    lm.Run.record_iteration = watched
    try:
        kwargs = json.dumps({"base_seed": seed})
        place = Path(folder) / f"{seed}-{decay}"
        args = lm.Args(seed=seed, task_kwargs=kwargs, baseline_decay=decay, run_dir=place)
        success = lm.train(args)["exact_success"]
    finally:
        lm.Run.record_iteration = record
    return [row | {"exact_success": success, "script_sha256": lm.SHA256} for row in rows]


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, 11):
            for decay in (0.9, 1.0):
                rows += trained(seed, decay, folder)
    with (Path(__file__).parent / "noise.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
