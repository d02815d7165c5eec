"""Every script learns, in a share of its usual number of steps, what a broken update cannot.

Both of two seeds must reach the bar, with a margin when the bar was set. One is enough where
two would cost too much (SAC, ppo_images.py), where the policy can be lost again while the step
size is still large (A3C), and for a script without a line of its own.

A random policy scores 22 on CartPole-v1, -1200 on Pendulum-v1 and 0.4 on MinAtar/Breakout-v1.
What the scripts reach in all of their steps is in benchmark/results/defaults.
"""

import numpy as np
from helpers import module

# The share of the steps, the bar, and how many of the two seeds must reach it.
RUNS = {
    "reinforce": (1 / 4, 300.0, 2),
    "reinforce_baseline": (1 / 4, 300.0, 2),
    "a2c": (1 / 4, 150.0, 2),
    "a3c": (1 / 4, 100.0, 1),
    "trpo": (1 / 4, 300.0, 2),
    "trpo_continuous": (1 / 4, -600.0, 2),
    "ppo": (3 / 4, 300.0, 2),
    "ppo_continuous": (1 / 4, -600.0, 2),
    "ppo_images": (1 / 12, 3.0, 1),
    "sac": (1 / 2, -400.0, 1),
}
USUAL = {"CartPole-v1": 200.0, "Pendulum-v1": -800.0}  # for a script without a line, in a half


def test_learns(script, tmp_path):
    found = module(script)
    assert script in RUNS or found.Args.env_id in USUAL, f"what should {script} reach?"
    share, bar, needed = RUNS.get(script) or (1 / 2, USUAL[found.Args.env_id], 1)
    returns = []
    for seed in (1, 2):
        if np.sum(np.array(returns) >= bar) < needed:
            steps = int(share * found.Args.total_timesteps)
            args = found.Args(run_dir=tmp_path / str(seed), seed=seed, total_timesteps=steps)
            returns.append(found.train(args)["eval_return_mean"])
    assert np.sum(np.array(returns) >= bar) == needed, returns
