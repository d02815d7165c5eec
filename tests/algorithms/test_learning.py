"""Every script learns, within half of its usual number of steps, what a broken update cannot;
A3C within a quarter, because its policy can be lost again while the step size is still large.

A random policy scores 22 on CartPole-v1 and -1200 on Pendulum-v1. What the scripts reach in all
of their steps is in benchmark/results/defaults.
"""

import pytest
from helpers import module

BARS = {
    "reinforce": 150.0,
    "reinforce_baseline": 200.0,
    "a2c": 200.0,
    "a3c": 200.0,
    "trpo": 300.0,
    "ppo": 200.0,
    "ppo_continuous": -800.0,
    "trpo_continuous": -800.0,
    "sac": -400.0,
}


@pytest.mark.parametrize("script", BARS)
def test_learns(script, tmp_path):
    found = module(script)
    steps = found.Args.total_timesteps // (4 if script == "a3c" else 2)
    args = found.Args(run_dir=tmp_path / "run", seed=1, total_timesteps=steps)
    assert found.train(args)["eval_return_mean"] >= BARS[script]
