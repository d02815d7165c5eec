"""Exported policies act as the scripts' own evaluations do, in processes that have neither
Gymnasium nor this repository."""

import json
import subprocess
import sys
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import BOX, DISCRETE, GAUSSIAN, PIXELS, ROOT, SCRIPTS, module, small

# The end of a program that has loaded `policy`: the actions for the observations of a file.
ACT = """
import numpy as np, sys
np.save("actions.npy", [policy(obs) for obs in np.load("obs.npy")])
files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
assert not any(file.startswith(sys.argv[1]) for file in files)
assert not {"gymnasium", *sys.argv[2:]} & {*sys.modules}
"""
TORCHSCRIPT = """
import torch
module = torch.jit.load("policy.pt")
policy = lambda obs: module(torch.tensor(obs)).numpy()
"""
ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession("policy.onnx")
policy = lambda obs: session.run(None, {"obs": obs})[0]
"""


class Arm(gym.Env):
    """Ten steps with Dict observations, whose parts are defined in another order than the
    alphabet's, some in units of `unit`. What the policy saw and did is noted."""

    steps: ClassVar[list[tuple[dict, np.ndarray]]] = []

    def __init__(self, low=None, high=None, dtype="float32", unit=1.0):
        self.unit = unit
        self.observation_space = spaces.Dict(
            {
                "wrist": spaces.Box(-np.inf, np.inf, (2, 2)),
                "grip": spaces.Discrete(3, start=5),
                "Zone": spaces.Tuple([spaces.MultiBinary(2), spaces.Box(-9, 9, ())]),
            }
        )
        self.action_space = spaces.Discrete(4)
        if low is not None:
            bounds = (np.array(x, dtype) for x in (low, high))
            self.action_space = spaces.Box(*bounds, dtype=np.dtype(dtype).type)

    def look(self) -> dict:
        normal = self.np_random.normal(size=(2, 2))
        self.obs = {
            "grip": self.np_random.integers(5, 8),
            "Zone": (self.np_random.integers(2, size=2).astype(np.int8), np.array(self.t, "f")),
            "wrist": (self.unit * (1 + normal)).astype(np.float32),
        }
        return self.obs

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action):
        Arm.steps.append((self.obs, action))
        self.t += 1
        return self.look(), float(self.np_random.normal()), False, self.t == 10, {}


gym.register("Arm-v0", Arm)


def by_hand(obs: dict) -> list[float]:
    """The flat observation: capitals come first, and a Discrete part is one-hot."""
    bits, t = obs["Zone"]
    return [*bits, t, *(obs["grip"] == k for k in (5, 6, 7)), *obs["wrist"].flat]


FINITE = {"low": [-1.0, 900.0], "high": [1.0, 940.0]}
MIXED = {
    "low": [-np.inf, 0.0, -2.0, -np.inf, 3.0, -3.4e38],
    "high": [np.inf, 10.0, 2.0, 0.3, np.inf, 3.4e38],  # the last counts as infinite
}
CASES = [
    *((script, {}, {}) for script in DISCRETE if script not in PIXELS),
    *((script, FINITE | {"unit": 100.0 if script in GAUSSIAN else 1.0}, {}) for script in BOX),
    *((script, MIXED | {"unit": 0.01}, {}) for script in GAUSSIAN),
    ("ppo_continuous", FINITE | {"dtype": "float64"}, {"norm_obs": False}),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def exported(request, tmp_path_factory):
    """A script's name and run directory, and what its evaluation saw and did. The last layer
    starts with large weights, so that actions reach the bounds."""
    script, kwargs, flags = request.param
    found, run_dir = module(script), tmp_path_factory.mktemp("export") / "run"
    mlp = found.mlp
    flags = small(script) | flags | {"env_kwargs": json.dumps(kwargs), "learning_rate": 1e-5}
    args = found.Args(env_id="Arm-v0", run_dir=run_dir, total_timesteps=400, **flags)
    with pytest.MonkeyPatch.context() as patch:
        if script != "sac":
            patch.setattr(found, "mlp", lambda i, o, out_gain: mlp(i, o, 3.0))
        found.train(args)
    steps = Arm.steps[-10 * args.eval_episodes :]
    pytest.importorskip("examples.export").main(run_dir)
    return script, run_dir, steps


def actions_of(program: str, run_dir, steps) -> np.ndarray:
    np.save(run_dir / "obs.npy", np.array([by_hand(obs) for obs, _ in steps], np.float32))
    words = [sys.executable, "-I", "-c", program + ACT, ROOT, *SCRIPTS]
    result = subprocess.run(
        [str(word) for word in words], cwd=run_dir, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return np.load(run_dir / "actions.npy")


def test_torchscript_acts_as_the_evaluation(exported):
    script, run_dir, steps = exported
    actions = np.array([action for _, action in steps])
    got = actions_of(TORCHSCRIPT, run_dir, steps)
    assert got.dtype == actions.dtype
    np.testing.assert_allclose(got, actions, rtol=1e-6, atol=1e-6)
    assert len(np.unique(actions, axis=0)) > 1
    if script in GAUSSIAN:  # some are clipped, some are not
        assert any(0.1 < (column == column.min()).mean() < 0.9 for column in actions.T)


def test_onnx_acts_as_the_evaluation(exported):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    _, run_dir, steps = exported
    program = ONNX + ACT.replace("sys.argv[2:]", '"torch", *sys.argv[2:]')
    got = actions_of(program.removesuffix(ACT), run_dir, steps)
    actions = np.array([action for _, action in steps])
    assert got.dtype == actions.dtype
    np.testing.assert_allclose(got, actions, rtol=1e-6, atol=5e-6)  # sums in another order


def test_the_layout():
    """As it is flattened by hand."""
    export = pytest.importorskip("examples.export")
    env = Arm()
    obs, _ = env.reset(seed=3)
    lines = [*export.layout(env.observation_space)]
    assert [line.partition(",")[0] for line in lines] == [
        "0:2 obs['Zone'][0]", "2:3 obs['Zone'][1]", "3:6 obs['grip']", "6:10 obs['wrist']"
    ]  # fmt: skip
    assert by_hand(obs) == gym.spaces.flatten(env.observation_space, obs).tolist()


def test_a_network_that_cannot_be_traced_is_refused(tmp_path, monkeypatch):
    """One with a branch that depends on the observation."""
    export, found = pytest.importorskip("examples.export"), module("ppo")
    found.train(found.Args(run_dir=tmp_path / "run", total_timesteps=64, **small("ppo")))

    class Branch(found.Actor):
        def forward(self, obs):
            return super().forward(obs if obs.sum() <= 0 else -1e3 * obs)

    monkeypatch.setattr(found, "Actor", Branch)
    with pytest.warns(torch.jit.TracerWarning), pytest.raises(SystemExit, match="traced"):
        export.main(tmp_path / "run")
    assert not (tmp_path / "run/policy.pt").exists()
