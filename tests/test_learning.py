"""Every script learns, from its default flags and a part of its default steps, what a broken update cannot.

A random policy scores 22 on CartPole-v1 and -1200 on Pendulum-v1. The bars were passed by wide margins on other seeds.
"""

import pytest
from helpers import module

BARS = {
    "reinforce": (80_000, 150.0),
    "reinforce_baseline": (80_000, 150.0),
    "a2c": (80_000, 150.0),
    "trpo": (40_000, 150.0),
    "ppo": (40_000, 150.0),
    "ppo_continuous": (60_000, -600.0),
}


@pytest.mark.parametrize("script", BARS)
def test_learns(script, tmp_path):
    steps, bar = BARS[script]
    args = module(script).Args(total_timesteps=steps, run_dir=tmp_path / "run", seed=1)
    summary = module(script).train(args)
    assert summary["eval_return_mean"] >= bar
    assert summary["train_return_mean"] >= bar - (300.0 if bar < 0 else 50.0)
