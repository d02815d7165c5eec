"""Every script learns, in a short run, what a broken update cannot.

Both of two seeds must reach the bar, with a margin when the bar was set. One is enough where
two would cost too much (SAC), and for a script without a line of its own.

A random policy scores 22 on CartPole-v1, -1200 on Pendulum-v1 and 0.4 on MinAtar/Breakout-v1.
What the scripts reach in all of their steps is in benchmark/results/defaults.
"""

import numpy as np
from helpers import module

# The flags of a run, the bar, and how many of the two seeds must reach it. Flags that may get
# other defaults are named here: a bar belongs to its flags.
A2C = {"learning_rate": 7e-4, "gamma": 0.99, "gae_lambda": 1.0, "reward_scale": 1.0}
A2C |= {"norm_adv": False, "ent_coef": 0.0}
PPO = {"num_envs": 8, "num_steps": 128, "num_minibatches": 4, "update_epochs": 10}
PPO |= {"learning_rate": 1e-3, "gamma": 0.99, "gae_lambda": 0.95, "clip_coef": 0.1}
SAC = {"num_envs": 1, "gradient_steps": 1, "learning_rate": 1e-3, "learning_starts": 1_000}
SAC |= {"gamma": 0.99, "batch_size": 256, "tau": 0.005}
RUNS = {
    "reinforce": ({"total_timesteps": 50_000}, 300.0, 2),
    "reinforce_baseline": ({"total_timesteps": 37_500}, 300.0, 2),
    "a2c": ({"total_timesteps": 75_000, "num_envs": 8, "num_steps": 5} | A2C, 150.0, 2),
    "a3c": ({"total_timesteps": 75_000, "num_workers": 2, "num_steps": 20} | A2C, 100.0, 2),
    "trpo": ({"total_timesteps": 25_000}, 300.0, 2),
    "trpo_continuous": ({"total_timesteps": 50_000}, -600.0, 2),
    "ppo": ({"total_timesteps": 75_000} | PPO, 400.0, 2),
    "ppo_continuous": ({"total_timesteps": 50_000}, -600.0, 2),
    "ppo_images": ({"total_timesteps": 125_000, "torch_threads": 1}, 4.0, 2),
    "sac": ({"total_timesteps": 5_000} | SAC, -400.0, 1),
}
USUAL = {"CartPole-v1": 200.0, "Pendulum-v1": -800.0}  # for a script without a line, in a half


def test_learns(script, tmp_path):
    found = module(script)
    assert script in RUNS or found.Args.env_id in USUAL, f"what should {script} reach?"
    half = {"total_timesteps": found.Args.total_timesteps // 2}
    flags, bar, needed = RUNS.get(script) or (half, USUAL[found.Args.env_id], 1)
    returns = []
    for seed in (1, 2):
        if np.sum(np.array(returns) >= bar) < needed:
            args = found.Args(run_dir=tmp_path / str(seed), seed=seed, **flags)
            returns.append(found.train(args)["eval_return_mean"])
    assert np.sum(np.array(returns) >= bar) == needed, returns
