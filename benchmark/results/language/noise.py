"""How noisy the policy gradient of reinforce_lm.py is at the end of training, with its baseline
and without one, on the same batches of the same policy.

python -m benchmark run language
python -m benchmark.results.language.noise runs/benchmark/language
"""

import csv
import json
import sys
from pathlib import Path

import torch

import reinforce_lm as lm

BATCHES = 50


def gradients(
    args: lm.Args, task: lm.Task, baselines: dict[str, float]
) -> dict[str, torch.Tensor]:
    """The gradients of the loss with each baseline: (BATCHES, parameters)."""
    policy, found = task.policy, {name: [] for name in baselines}
    for _ in range(BATCHES):
        with torch.no_grad():
            texts = task.draw(args.batch_size)
            prompts = lm.encode(policy, texts)
            length = args.max_completion_length
            completions = lm.sample(policy, prompts, args.temperature, length)
            rewards = task.rewards(texts, completions).float()
        mask = lm.completion_mask(completions, policy.eos)
        for name, baseline in baselines.items():
            log_probs, _ = lm.log_policy(policy, prompts, completions, args.temperature)
            policy.zero_grad()
            lm.reinforce_loss(log_probs, mask, rewards - baseline).backward()
            found[name].append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
    return {name: torch.stack(several) for name, several in found.items()}


def measure(folder: Path) -> dict:
    """One run: its baseline, and the standard deviation of the gradient over batches."""
    stored = json.loads((folder / "args.json").read_text())
    args = lm.Args(**{key: stored[key] for key in ("seed", "task_kwargs", "batch_size")})
    torch.manual_seed(args.seed)
    task = lm.Task(args)
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    task.policy.load_state_dict(checkpoint["policy"])
    baseline = float(checkpoint["baseline"]["b"])
    row = {"seed": args.seed, "task_kwargs": args.task_kwargs, "baseline": baseline}
    for name, found in gradients(args, task, {"with": baseline, "without": 0.0}).items():
        row[f"mean_norm_{name}"] = found.mean(0).norm().item()
        row[f"std_{name}"] = found.var(0).sum().sqrt().item()
    return row | {"batches": BATCHES, "script_sha256": lm.SHA256}


def main() -> None:
    folders = Path(sys.argv[1]).glob("addition__reinforce_lm__*/run")
    rows = sorted(map(measure, folders), key=lambda row: row["seed"])
    with (Path(__file__).parent / "noise.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
