"""Export the policy of a run for control as one module, observation in, action in the units of
the environment out, which needs neither Gymnasium nor the script: for a robot, say.

python -m examples.export runs/acrobot

This writes policy.pt (TorchScript, which PyTorch loads from Python and from C++) and, if the
package onnx is installed, policy.onnx into the run directory.
"""

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.spaces import Box, Dict, Tuple
from torch import Tensor, nn

from examples.watch import load


class Policy(nn.Module):
    """A flat observation (obs_dim,), or an image as it comes -> the action that the script's
    evaluation takes, a number () or a vector (action_dim,) within the environment's bounds."""

    def __init__(self, actor: nn.Module, env: gym.Env):
        super().__init__()
        self.actor = actor
        self.box = isinstance(env.action_space, Box)
        if not self.box:
            return
        space = env.env.action_space  # the environment's own
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        # If both bounds are finite, -1 and 1 stand for them; otherwise the unit stays.
        one = np.ones(space.shape)
        scaled = np.isclose(env.action(-one), low) & np.isclose(env.action(one), high)
        low_or_unit, high_or_unit = np.where(scaled, [low, high], [-one, one])
        arrays = {"center": (high_or_unit + low_or_unit) / 2, "low": low}
        arrays |= {"half_range": (high_or_unit - low_or_unit) / 2, "high": high}
        for name, array in arrays.items():
            self.register_buffer(name, torch.tensor(array.astype(space.dtype)))

    def forward(self, obs: Tensor) -> Tensor:
        action = self.actor(obs).mode
        if not self.box:
            return action
        return (self.center + self.half_range * action).maximum(self.low).minimum(self.high)


def layout(space: gym.Space, name: str = "obs", start: int = 0) -> Iterator[str]:
    """What the numbers of a flat observation are, a line for each part. A Dict has its keys in
    alphabetical order, unless it was made from an OrderedDict or a list."""
    if not isinstance(space, Dict | Tuple):
        yield f"{start}:{start + gym.spaces.flatdim(space)} {name}, {space}"
        return
    parts = space.items() if isinstance(space, Dict) else enumerate(space)
    for key, part in parts:
        yield from layout(part, f"{name}[{key!r}]", start)
        start += gym.spaces.flatdim(part)


@torch.no_grad()
def main(run_dir: tyro.conf.Positional[Path]) -> None:
    """Write policy.pt and policy.onnx into a run directory.

    Args:
        run_dir: the run directory.
    """
    env, actor = load(run_dir)
    policy = Policy(actor, env).requires_grad_(False)
    example = torch.zeros(env.observation_space.shape)
    warnings.simplefilter("ignore", DeprecationWarning)  # of both formats' exporters
    traced = torch.jit.trace(policy, example)
    for obs in 3 * torch.randn(100, *example.shape):
        action = actor(obs).mode.numpy()
        expected = env.action(action) if policy.box else action
        if not np.allclose(traced(obs), expected, rtol=1e-6, atol=1e-6):
            sys.exit("error: the network cannot be traced; does an if depend on its input?")
    traced.save(run_dir / "policy.pt")
    inner = env.env if policy.box else env  # without the rescaling of actions
    flat = isinstance(inner, gym.wrappers.FlattenObservation)
    print("observation:", *layout((inner.env if flat else inner).observation_space), sep="\n  ")
    print(f"action: {inner.action_space}\nwritten: {run_dir / 'policy.pt'}")
    if importlib.util.find_spec("onnx"):
        torch.onnx.export(  # dynamo=True needs another package and writes two files
            policy, (example,), run_dir / "policy.onnx", dynamo=False,
            input_names=["obs"], output_names=["action"],
        )  # fmt: skip
        print(f"written: {run_dir / 'policy.onnx'}")


if __name__ == "__main__":
    tyro.cli(main)
