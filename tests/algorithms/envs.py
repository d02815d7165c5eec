"""Small environments whose properties the tests know exactly. Importing this module registers them."""

from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class TwoStates(gym.Env):
    """Two states visited in turn, s0 first, reward 1 for leaving s0 and 0 for leaving s1; actions do nothing.

    Each episode has `length` steps and ends by termination or by truncation. With discount gamma the values are
    V(s0) = 1 / (1 - gamma^2), V(s1) = gamma V(s0) where only truncation ends an episode, whatever its length, and
    V(s0) = 1, V(s1) = 0 where an episode terminates after two steps.
    """

    def __init__(self, ends: str = "terminated", length: int = 2, continuous: bool = False):
        self.ends, self.length = ends, length
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else spaces.Discrete(2)

    def _obs(self) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[self.t % 2]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        reward = float(self.t % 2 == 0)
        self.t += 1
        end = self.t == self.length
        return self._obs(), reward, end and self.ends == "terminated", end and self.ends == "truncated", {}


class DictObs(gym.Env):
    """Dict observations with a Discrete and a Box part; action 0 earns 1. Ten steps. Actions may start at `start`."""

    def __init__(self, continuous: bool = False, start: int = 0):
        self.continuous, self.start = continuous, start
        self.observation_space = spaces.Dict({"phase": spaces.Discrete(3), "map": spaces.Box(-1.0, 1.0, (2, 2))})
        self.action_space = spaces.Box(-1.0, 1.0, (2,)) if continuous else spaces.Discrete(3, start=start)

    def _obs(self) -> dict:
        return {"phase": self.t % 3, "map": self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action} is not in {self.action_space}"
        self.t += 1
        reward = -float(np.square(action).sum()) if self.continuous else float(action == self.start)
        return self._obs(), reward, False, self.t == 10, {}


class Tape(gym.Env):
    """Random observations, rewards and ends, all noted: `Tape.episodes` gets one list of transitions per reset.

    A transition is (obs, action, reward, next_obs, terminated, truncated). Episodes end by both ways.
    """

    episodes: ClassVar[list[list[tuple]]] = []

    def __init__(self, continuous: bool = False):
        self.observation_space = spaces.Box(-10.0, 10.0, (3,), np.float32)
        self.action_space = spaces.Box(-0.5, 0.5, (2,), np.float32) if continuous else spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.obs = self.np_random.normal(size=3).astype(np.float32)
        self.episode = []
        Tape.episodes.append(self.episode)
        return self.obs, {}

    def step(self, action):
        obs, self.obs = self.obs, self.np_random.normal(size=3).astype(np.float32)
        reward = float(self.np_random.normal())
        terminated, truncated = bool(self.np_random.random() < 0.1), bool(self.np_random.random() < 0.1)
        self.episode.append((obs, np.array(action), reward, self.obs, terminated, truncated))
        return self.obs, reward, terminated, truncated, {}


class Poison(gym.Env):
    """Harmless until `after` steps have been made in this process; from then on every reward is nan."""

    steps = 0

    def __init__(self, after: int = 100, continuous: bool = False):
        self.after = after
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        Poison.steps += 1
        self.t += 1
        reward = 1.0 if Poison.steps < self.after else float("nan")
        return np.zeros(1, np.float32), reward, self.t == 5, False, {}


class Unfit(gym.Env):
    """An environment whose spaces the scripts do not take."""

    def __init__(self, actions: spaces.Space, observations: spaces.Space):
        self.action_space, self.observation_space = actions, observations


box, discrete = spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(2)
gym.register("TwoStates-v0", TwoStates)
gym.register("TwoStatesBox-v0", TwoStates, kwargs={"continuous": True})
gym.register("DictObs-v0", DictObs)
gym.register("DictObsBox-v0", DictObs, kwargs={"continuous": True})
gym.register("StartAtFive-v0", DictObs, kwargs={"start": 5})
gym.register("Tape-v0", Tape)
gym.register("TapeBox-v0", Tape, kwargs={"continuous": True})
gym.register("Poison-v0", Poison)
gym.register("PoisonBox-v0", Poison, kwargs={"continuous": True})
gym.register("MultiDiscrete-v0", Unfit, kwargs={"actions": spaces.MultiDiscrete([2, 2]), "observations": box})
gym.register("Matrix-v0", Unfit, kwargs={"actions": spaces.Box(-1.0, 1.0, (2, 2)), "observations": box})
gym.register("Sequence-v0", Unfit, kwargs={"actions": discrete, "observations": spaces.Sequence(box)})
gym.register("SequenceBox-v0", Unfit, kwargs={"actions": box, "observations": spaces.Sequence(box)})
