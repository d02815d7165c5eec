"""Every script learns, from its default flags, what a broken update cannot.

A random policy scores 22 on CartPole-v1 and -1200 on Pendulum-v1. The bars lie below the worst
of the ten seeds in benchmark/results/defaults.
"""

import pytest
from helpers import module

BARS = {
    "reinforce": 200.0,
    "reinforce_baseline": 400.0,
    "a2c": 400.0,
    "trpo": 400.0,
    "ppo": 400.0,
    "ppo_continuous": -800.0,
}


@pytest.mark.parametrize("script", BARS)
def test_learns(script, tmp_path):
    args = module(script).Args(run_dir=tmp_path / "run", seed=1)
    assert module(script).train(args)["eval_return_mean"] >= BARS[script]
