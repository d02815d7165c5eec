"""Watch an agent that one of the scripts for control has trained, or film it.

python -m examples.watch runs/acrobot
python -m examples.watch runs/acrobot --film videos
"""

import importlib.util
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro


def load(run_dir: Path, **kwargs) -> tuple[gym.Env, torch.nn.Module]:
    """The environment of a run, made with `kwargs`, and its actor."""
    if not (run_dir / "checkpoint.pt").exists():
        sys.exit(f"error: {run_dir} is not the directory of a run")
    checkpoint = torch.load(run_dir / "checkpoint.pt", "cpu", weights_only=True)
    name = Path(checkpoint["about"]["script"]).stem  # "notebook", if it was pasted into one
    script = importlib.util.find_spec(name) and importlib.import_module(name)
    if not hasattr(script, "make_env"):
        sys.exit(f"error: {run_dir} needs {name}.py here, a script for control")
    args = script.Args(**checkpoint["args"])
    try:
        env = script.make_env(args, **kwargs)  # flat or images; rescaled actions
    except script.BadInput as error:  # a package is missing, or the argument render_mode
        sys.exit(f"error: {error}")
    space = env.action_space
    size = space.n if isinstance(space, gym.spaces.Discrete) else space.shape[0]
    norm_obs = {"norm_obs": args.norm_obs} if hasattr(args, "norm_obs") else {}
    if hasattr(script, "Trunk"):  # ppo_images.py
        trunk = script.Trunk(env.observation_space)
        actor = script.Actor(trunk.num_features, int(size))
        trunk.load_state_dict(checkpoint["trunk"])
    else:
        actor = script.Actor(env.observation_space.shape[0], int(size), **norm_obs)
    actor.load_state_dict(checkpoint["actor"])
    return env, torch.nn.Sequential(trunk, actor) if "trunk" in checkpoint else actor


@torch.no_grad()
def main(run_dir: tyro.conf.Positional[Path], film: Path | None = None, seed: int = 1) -> None:
    """Play one episode with the policy's mode.

    Args:
        run_dir: the run directory.
        film: write an MP4 file into this folder instead of opening a window.
        seed: of the environment.
    """
    env, actor = load(run_dir, render_mode="rgb_array" if film else "human")
    if film:
        env = gym.wrappers.RecordVideo(env, str(film))
    obs, _ = env.reset(seed=seed)
    total, terminated, truncated = 0.0, False, False
    while not (terminated or truncated):
        seen = torch.as_tensor(np.array(obs, np.float32, order="C"))
        action = actor(seen).mode.numpy()[()]
        obs, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
    env.close()  # which writes the film
    print(f"return {total:.1f}")


if __name__ == "__main__":
    tyro.cli(main)
