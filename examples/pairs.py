"""DPO on pairs of your own: a file of JSON lines with prompt, chosen and rejected.

    python -m examples.pairs PATH pairs.jsonl FOLDER

trains adapters of the model at PATH and saves the merged model as a Hugging Face folder. The
loss and its parts are dpo.py's functions; only where pairs come from is new.
"""

import json
import sys
from pathlib import Path

import torch

from dpo import completion_mask, dpo_loss, freeze, log_policy
from examples.hugging_face import HuggingFace


def batch_of(policy: HuggingFace, rows: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts and completions (2 * rows, tokens), the chosen ones first. The rows' prompts have
    one length; where a completion has ended, the end is repeated."""
    prompts = torch.tensor([policy.encode(row["prompt"]) for row in rows] * 2)
    end = policy.eos[:1].tolist()
    texts = [row["chosen"] for row in rows] + [row["rejected"] for row in rows]
    tokens = [policy.tokenizer.encode(t, add_special_tokens=False) + end for t in texts]
    tokens = [torch.tensor(completion) for completion in tokens]
    if prompts.shape[1] + max(map(len, tokens)) > policy.context:
        raise ValueError(
            f"{rows[0]['prompt']!r}: a pair is longer than {policy.context} tokens"
        )
    return prompts, torch.nn.utils.rnn.pad_sequence(tokens, True, end[0])


def train(
    policy: HuggingFace, rows: list[dict], epochs=3, batch_size=16, learning_rate=1e-4,
    kl_coef=0.1, nll_coef=0.1,
) -> list[float]:  # fmt: skip
    """Returns the share of each epoch's pairs that were ordered rightly before their step."""
    reference, history = freeze(policy), []
    parameters = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, learning_rate, (0.9, 0.95))
    groups = {}
    for row in rows:
        groups.setdefault(len(policy.encode(row["prompt"])), []).append(row)
    for _ in range(epochs):
        right, batches = 0.0, []
        for group in groups.values():
            order = torch.randperm(len(group)).split(batch_size)
            batches += [[group[i] for i in some] for some in order]
        for i in torch.randperm(len(batches)):
            prompts, completions = batch_of(policy, batches[i])
            log_probs, _ = log_policy(policy, prompts, completions, 1.0)
            ref_log_probs, _ = log_policy(reference, prompts, completions, 1.0)
            mask = completion_mask(completions, policy.eos)
            loss, stats = dpo_loss(log_probs, ref_log_probs, mask, kl_coef, nll_coef)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            right += stats["reward_accuracy"].item() * len(batches[i])
        history.append(right / len(rows))
        print(f"ordered rightly: {history[-1]:.3f}", flush=True)
    return history


if __name__ == "__main__":
    path, file, folder = sys.argv[1:]
    torch.manual_seed(1)
    policy = HuggingFace(path, lora_rank=16)
    rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    train(policy, rows)
    policy.save(folder)
