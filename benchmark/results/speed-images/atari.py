"""Steps per second of Pong alone: the list of environments that ppo_images.py steps, and
ale-py's own vector environment with 1 and 2 threads, random actions, taken in turns.

python -m benchmark.results.speed-images.atari OUT.csv    # pip install ale-py
"""

import csv
import sys
import time

import numpy as np
from ale_py.vector_env import AtariVectorEnv

import ppo_images

STEPS, REPEATS = 2000, 5  # steps of all environments together


def plain(num_envs: int):
    args = ppo_images.Args(env_id="ale_py:ALE/Pong-v5")
    envs = [ppo_images.make_env(args) for _ in range(num_envs)]
    for i, env in enumerate(envs):
        env.reset(seed=i)

    def step(actions: np.ndarray) -> None:
        for env, action in zip(envs, actions, strict=True):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return step


def vector(num_envs: int, num_threads: int):
    envs = AtariVectorEnv(
        "pong", num_envs, num_threads=num_threads, repeat_action_probability=0.25,
        reward_clipping=False, use_fire_reset=False, full_action_space=False,
    )  # fmt: skip
    envs.reset(seed=0)
    return envs.step


def steps_per_second(step, num_envs: int) -> float:
    rng = np.random.default_rng(0)
    rounds = max(1, STEPS // num_envs)
    begin = time.perf_counter()
    for actions in rng.integers(6, size=(rounds, num_envs)):
        step(actions)
    return rounds * num_envs / (time.perf_counter() - begin)


if __name__ == "__main__":
    rows = []
    for num_envs in (1, 8, 16, 64):
        kinds = {
            "list of environments": plain(num_envs),
            "AtariVectorEnv, 1 thread": vector(num_envs, 1),
            "AtariVectorEnv, 2 threads": vector(num_envs, 2),
        }
        for repeat in range(REPEATS):
            for name, step in kinds.items():
                sps = steps_per_second(step, num_envs)
                rows.append([name, num_envs, repeat, round(sps, 1)])
                print(*rows[-1], flush=True)
    with open(sys.argv[1], "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["environments", "num_envs", "repeat", "steps_per_second"], *rows])
