"""Small environments whose properties the tests know exactly. Importing this module registers
them; NAME-v0 has Discrete actions, NAMEBox-v0 continuous ones, and NAMEPixels-v0 shows the
observations of NAME-v0 as images."""

import os
import random
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec


class TwoStates(gym.Env):
    """Two states visited in turn, s0 first, reward 1 for leaving s0 and 0 for leaving s1;
    actions do nothing.

    Each episode has `length` steps and ends by termination or by truncation. With discount
    gamma the values are V(s0) = 1 / (1 - gamma^2), V(s1) = gamma V(s0) where only truncation
    ends an episode, whatever its length, and V(s0) = 1, V(s1) = 0 where an episode terminates
    after two steps. With `in_place` all observations are one array, written anew each time.
    """

    def __init__(
        self,
        ends: str = "terminated",
        length: int = 2,
        continuous: bool = False,
        in_place: bool = False,
    ):
        self.ends, self.length = ends, length
        self.buffer = np.zeros(2, np.float32) if in_place else None
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        box = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = box if continuous else spaces.Discrete(2)

    def _obs(self) -> np.ndarray:
        obs = np.eye(2, dtype=np.float32)[self.t % 2]
        if self.buffer is None:
            return obs
        self.buffer[:] = obs
        return self.buffer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        reward = float(self.t % 2 == 0)
        self.t += 1
        end = self.t == self.length
        terminated, truncated = (
            end and self.ends == kind for kind in ("terminated", "truncated")
        )
        return self._obs(), reward, terminated, truncated, {}


class DictObs(gym.Env):
    """Dict observations with a Discrete and a Box part; action 0 earns 1. Ten steps. Actions
    may start at `start`."""

    def __init__(self, continuous: bool = False, start: int = 0):
        self.continuous, self.start = continuous, start
        parts = {"phase": spaces.Discrete(3), "map": spaces.Box(-1.0, 1.0, (2, 2))}
        self.observation_space = spaces.Dict(parts)
        box = spaces.Box(-1.0, 1.0, (2,))
        self.action_space = box if continuous else spaces.Discrete(3, start=start)

    def _obs(self) -> dict:
        noise = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        return {"phase": self.t % 3, "map": noise}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action} is not in {self.action_space}"
        self.t += 1
        cost = float(np.square(action).sum())
        reward = -cost if self.continuous else float(action == self.start)
        return self._obs(), reward, False, self.t == 10, {}


class Tape(gym.Env):
    """Random observations, rewards and ends, all noted: `Tape.episodes` gets one list of
    transitions per reset.

    A transition is (obs, action, reward, next_obs, terminated, truncated). Episodes end both
    ways. Observations have mean `shift` and std `scale`, rewards std `reward_scale`.
    """

    episodes: ClassVar[list[list[tuple]]] = []

    def __init__(
        self,
        continuous: bool = False,
        shift: float = 0.0,
        scale: float = 1.0,
        reward_scale: float = 1.0,
        p_end: float = 0.1,
    ):
        self.shift, self.scale, self.reward_scale, self.p_end = (
            shift,
            scale,
            reward_scale,
            p_end,
        )
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        box = spaces.Box(-0.5, 0.5, (2,), np.float32)
        self.action_space = box if continuous else spaces.Discrete(3)

    def _obs(self) -> np.ndarray:
        return (self.shift + self.scale * self.np_random.normal(size=3)).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.obs = self._obs()
        self.episode = []
        Tape.episodes.append(self.episode)
        return self.obs, {}

    def step(self, action):
        obs, self.obs = self.obs, self._obs()
        reward = float(self.reward_scale * self.np_random.normal())
        terminated, truncated = (bool(self.np_random.random() < self.p_end) for _ in range(2))
        self.episode.append((obs, np.array(action), reward, self.obs, terminated, truncated))
        return self.obs, reward, terminated, truncated, {}


class Camera(Tape):
    """A Tape of random images of any shape, as bytes, booleans or floats from 0 to 1."""

    def __init__(self, shape: tuple = (10, 10, 4), dtype: str = "uint8", **kwargs):
        super().__init__(**kwargs)
        high = 255 if dtype == "uint8" else 1
        self.observation_space = spaces.Box(0, high, tuple(shape), np.dtype(dtype).type)

    def _obs(self) -> np.ndarray:
        space = self.observation_space
        image = self.np_random.random(space.shape)
        if space.dtype == np.uint8:
            return (256 * image).astype(np.uint8)
        return image > 0.5 if space.dtype == bool else image.astype(space.dtype)


class Faulty(gym.Env):
    """Episodes of five steps, reward 1 a step, harmless except for one fault: at step `at` of
    this process, or of the reset that follows it, whichever `kind` names.

    Kinds: reward, obs, reset (its observation): these give `value`; step, ValueError; file, an
    OSError; store, what NumPy says of a vector in place of a number; hang, a step that does not
    end. At `at` 0 nothing ever happens.
    """

    steps: ClassVar[int] = 0

    def __init__(
        self,
        kind: str = "reward",
        at: int = 0,
        value: float = float("nan"),
        continuous: bool = False,
    ):
        self.kind, self.at, self.value = kind, at, value
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        box = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = box if continuous else spaces.Discrete(2)

    def _obs(self, bad: bool) -> np.ndarray:
        return np.array([self.value if bad else 0.5, self.t], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        due = self.kind == "reset" and 0 < self.at <= Faulty.steps
        if due:
            self.at = 0
        return self._obs(due), {}

    def step(self, action):
        Faulty.steps += 1
        self.t += 1
        now = Faulty.steps == self.at
        if now and self.kind == "step":
            raise ValueError("the simulator is lost")
        if now and self.kind == "store":
            np.zeros(3)[0] = np.zeros(2)
        if now and self.kind == "hang":
            time.sleep(3600)
        if now and self.kind == "file":
            Path("/nowhere/level_9.map").read_text()
        reward = self.value if now and self.kind == "reward" else 1.0
        return self._obs(now and self.kind == "obs"), reward, self.t == 5, False, {}


class Dial(gym.Env):
    """One step, no state: the reward falls linearly from 1 at `target` with the mean distance
    in units of half the range. A uniformly random policy earns about 0.5. Actions are noted."""

    actions: ClassVar[list[np.ndarray]] = []

    def __init__(self, low=(900.0,), high=(940.0,), target=(931.0,), dtype: str = "float32"):
        self.low, self.high, self.target = (np.array(x, float) for x in (low, high, target))
        self.observation_space = spaces.Box(-1.0, 1.0, (1,))
        self.action_space = spaces.Box(
            self.low.astype(dtype), self.high.astype(dtype), dtype=np.dtype(dtype).type
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        Dial.actions.append(action)
        with np.errstate(invalid="ignore"):
            distance = np.abs(action - self.target) / ((self.high - self.low) / 2)
        return np.zeros(1, np.float32), float(1 - np.mean(distance)), True, False, {}


class Gossip(gym.Env):
    """Episodes of random length whose infos change their type and shape from step to step."""

    def __init__(self, continuous: bool = False):
        self.observation_space = spaces.Box(-1.0, 1.0, (1,))
        self.action_space = spaces.Box(-1.0, 1.0, (1,)) if continuous else spaces.Discrete(2)

    def _info(self) -> dict:
        kinds = [None, self.t, "word", np.zeros((self.t, 2)), {"deep": [self.t]}, object()]
        return {"news": kinds[self.t % len(kinds)], f"key{self.t}": self.t, "final_obs": "mine"}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.length = 0, int(self.np_random.integers(3, 12))
        return np.zeros(1, np.float32), self._info()

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t == self.length, False, self._info()


class Scalar(Gossip):
    """Its observation is one number, a Box of shape ()."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.observation_space = spaces.Box(-1.0, 1.0, ())

    def reset(self, *, seed=None, options=None):
        return np.array(0.5, np.float32), super().reset(seed=seed)[1]

    def step(self, action):
        return np.array(0.5, np.float32), *super().step(action)[1:]


class Odd(Gossip):
    """Its reward is what the test wants: not a scalar."""

    def __init__(self, reward=(1.0, 2.0), **kwargs):
        super().__init__(**kwargs)
        self.reward = np.array(reward)

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, self.reward, *rest


class Endless(Gossip):
    """One episode that never ends, unless `length` is given."""

    def __init__(self, length: int = -1, **kwargs):
        super().__init__(**kwargs)
        self.asked = length

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.length = self.asked
        return obs, info


class Simulator(gym.Env):
    """What simulators do. There is one at a time; seeds are 32-bit signed integers, and noise
    comes from the generators of the process; observations are views with negative strides; the
    constructor and each reset change the working directory. The reward is a part of the next
    observation, which is also noted in `seen`. With `fragile`, close() raises."""

    alive: ClassVar[int] = 0
    seen: ClassVar[list[float]] = []

    def __init__(self, continuous: bool = False, fragile: bool = False):
        if Simulator.alive:
            raise RuntimeError("Address already in use")
        Simulator.alive += 1
        os.chdir(tempfile.gettempdir())
        self.fragile, self.offset = fragile, random.random() + np.random.random()  # noqa: NPY002
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,)) if continuous else spaces.Discrete(2)

    def _obs(self) -> np.ndarray:
        noise = [random.random(), np.random.random(), self.offset]  # noqa: NPY002
        Simulator.seen.append(sum(noise))
        return np.array(noise, np.float32)[::-1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        os.chdir("/")
        if seed is not None:
            np.array(seed, np.int32)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        obs = self._obs()
        return obs, float(obs[0]), False, self.t == 7, {}

    def close(self):
        Simulator.alive -= 1
        if self.fragile:
            raise ConnectionError("the simulator does not answer")


class Marked(gym.Env):
    """Has a file in `folder` from its constructor to its close(), and takes its time."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, folder: str):
        self.mark = Path(tempfile.mkstemp(dir=folder)[1])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        time.sleep(0.01)
        return np.zeros(1, np.float32), 1.0, False, False, {}

    def close(self):
        self.mark.unlink()


class Noise(gym.Env):
    """Rewards that nothing predicts, with std `scale`; observations of that size as well."""

    def __init__(self, continuous: bool = False, scale: float = 1.0):
        self.scale = scale
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,)) if continuous else spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.float32(self.scale * self.np_random.normal(size=2)), {}

    def step(self, action):
        self.t += 1
        obs = np.float32(self.scale * self.np_random.normal(size=2))
        return obs, self.scale * self.np_random.normal(), False, self.t == 10, {}


class Unfit(gym.Env):
    """An environment whose spaces the scripts do not take."""

    def __init__(self, actions: spaces.Space, observations: spaces.Space):
        self.action_space, self.observation_space = actions, observations


class Prose(gym.Space):
    """A space of the user's own, which Gymnasium cannot flatten."""

    def __init__(self):
        super().__init__((), str)

    def sample(self, mask=None, probability=None):
        return "once"

    def contains(self, x):
        return isinstance(x, str)


class BrokenConstructor(gym.Env):
    """A bug of the user's own in __init__, of the kind asked for; or a refusal of the kind."""

    def __init__(self, kind: str, continuous: bool = False):
        if kind == "value":
            raise ValueError("the kind cannot be value")
        if kind == "type":
            settings = None
            settings["width"]
        if kind == "import":
            from math import cubic_root  # noqa: F401
        if kind == "file":
            Path("assets/of_mine.xml").read_text()


class Pixels(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Observations (n,) as images (3, 3, n): nine pixels alike, with n channels."""

    def __init__(self, env: gym.Env):
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        flat = spaces.flatten_space(env.observation_space)
        low, high = (np.tile(bound, (3, 3, 1)) for bound in (flat.low, flat.high))
        self.observation_space = spaces.Box(low, high, dtype=flat.dtype)

    def observation(self, observation):
        space = self.env.observation_space
        return np.tile(spaces.flatten(space, observation), (3, 3, 1))


def register(name: str, entry_point, **kwargs) -> None:
    """All versions of an environment."""
    gym.register(f"{name}-v0", entry_point, kwargs=kwargs)
    pixels = WrapperSpec("Pixels", "envs:Pixels", {})
    gym.register(f"{name}Pixels-v0", entry_point, kwargs=kwargs, additional_wrappers=(pixels,))
    gym.register(f"{name}Box-v0", entry_point, kwargs=kwargs | {"continuous": True})


register("TwoStates", TwoStates)
register("TwoStatesCut", TwoStates, ends="truncated", length=3)
register("TwoStatesInPlace", TwoStates, ends="truncated", length=3, in_place=True)
register("DictObs", DictObs)
register("Tape", Tape)
gym.register("Camera-v0", Camera)
register("Faulty", Faulty)
register("Gossip", Gossip)
register("Odd", Odd)
register("Scalar", Scalar)
register("Endless", Endless)
register("Simulator", Simulator)
register("Noise", Noise)
register("BrokenConstructor", BrokenConstructor)
gym.register("StartAtFive-v0", DictObs, kwargs={"start": 5})
gym.register("Dial-v0", Dial)
gym.register("Marked-v0", Marked)

box, discrete = spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(2)
images = {"observations": spaces.Box(0, 255, (12, 12, 12), np.uint8), "actions": discrete}
gym.register("Images-v0", Unfit, kwargs=images)
unfit = {
    "MultiDiscrete": (spaces.MultiDiscrete([2, 2]), box),
    "Matrix": (spaces.Box(-1.0, 1.0, (2, 2)), box),
    "Nothing": (spaces.Box(-1.0, 1.0, (0,)), box),
    "Number": (spaces.Box(-1.0, 1.0, ()), box),
    "Integer": (spaces.Box(0, 9, (2,), np.int64), box),
    "Byte": (spaces.Box(0, 255, (2,), np.uint8), box),
}
for name, observations in {
    "Sequence": spaces.Sequence(box),
    "NestedSequence": spaces.Dict(a=box, b=spaces.Tuple([spaces.Sequence(box)])),
    "Prose": Prose(),
    "NestedProse": spaces.Dict(a=box, b=spaces.Dict(c=Prose())),
    "Blind": spaces.Box(-1.0, 1.0, (0,)),
}.items():
    unfit |= {name: (discrete, observations), f"{name}Box": (box, observations)}
for name, (actions, observations) in unfit.items():
    spaces_of = {"actions": actions, "observations": observations}
    gym.register(f"{name}-v0", Unfit, kwargs=spaces_of)
