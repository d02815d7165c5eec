"""An environment of your own, whose MultiDiscrete actions are turned into Discrete ones.

    python ppo.py --env-id examples.match:Match-v0 --env-kwargs '{"size": 3}'

The part before the colon is a module, which the script imports; it registers the environment.
"""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete


class Match(gym.Env):
    """Shows `size` numbers from 0 to 2. The reward counts those that the action repeats."""

    def __init__(self, size: int = 2):
        self.observation_space = Box(0, 2, (size,))
        self.action_space = MultiDiscrete([3] * size)

    def draw(self) -> np.ndarray:
        self.numbers = self.np_random.integers(3, size=self.observation_space.shape)
        return self.numbers.astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.draw(), {}

    def step(self, action):
        reward = float((action == self.numbers).sum())
        return self.draw(), reward, False, False, {}


def as_discrete(env: gym.Env) -> gym.Env:
    """The environment with its MultiDiscrete actions numbered, as in an array of that shape."""
    shape = env.action_space.nvec

    def numbers(action: int) -> np.ndarray:
        return np.array(np.unravel_index(action, shape))

    return gym.wrappers.TransformAction(env, numbers, Discrete(int(np.prod(shape))))


def make_match(**kwargs) -> gym.Env:
    return as_discrete(Match(**kwargs))


gym.register("Match-v0", make_match, max_episode_steps=50)
