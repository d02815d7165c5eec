"""A trained language model, out of its run directory.

    python -m examples.generate runs/cheerful FOLDER "The film was"

writes it as a Hugging Face folder, adapters merged into its weights, and lets it go on with a
text. `load` is for programs of your own.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

import torch

import rloo
from examples.hugging_face import HuggingFace


def load(run_dir: str, **changes) -> HuggingFace:
    """The policy of a run's last checkpoint. `changes` replace --task-kwargs, such as path."""
    checkpoint = torch.load(Path(run_dir) / "checkpoint.pt", "cpu", weights_only=True)
    module, _, function = checkpoint["args"]["task"].partition(":")
    kwargs = json.loads(checkpoint["args"]["task_kwargs"]) | changes
    policy, _, _ = getattr(import_module(module), function)(**kwargs)
    policy.load_state_dict(checkpoint["policy"])
    return policy.eval()


def go_on(policy: HuggingFace, text: str, length: int = 40, temperature: float = 1.0) -> str:
    """What the policy writes after the text, sampled as in training."""
    completions = rloo.sample(policy, rloo.encode(policy, [text]), temperature, length)
    return policy.decode(completions[0].tolist())


if __name__ == "__main__":
    run_dir, folder, *texts = sys.argv[1:]
    policy = load(run_dir)
    for text in texts:
        print(text + go_on(policy, text))
    policy.save(folder)
