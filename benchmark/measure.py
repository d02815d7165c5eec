"""Measures one of the scripts from outside, in a process of its own; `python -m benchmark speed` starts it.

python benchmark/measure.py shares ppo.py --run-dir DIR    # trains; DIR/shares.json says where the time went
python benchmark/measure.py bare ppo.py --run-dir DIR      # steps the script's environments with random actions only

What follows the script are its own flags. The script's text is not changed: its functions are wrapped once imported.
"""

import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from itertools import cycle, islice
from pathlib import Path
from types import ModuleType

import tyro

ACTIONS = 1000  # joint actions drawn beforehand, used again and again: drawing one costs as much as a step
WARM_UP = 100  # steps of all environments before the clock starts


def shares(script: ModuleType, args: object) -> None:
    """Train with clocks around the environments' step and reset, Actor.sample and Run's
    record functions and save.

    shares.json gives each its share of the summary's wall_seconds. `update` lasts from the last
    record_step of a rollout to record_iteration, and `rest` is what none of them covers.
    """
    seconds, spent, last_step, recording = Counter(), {}, 0.0, False

    def timed(label: str, function: Callable) -> Callable:
        @wraps(function)
        def wrapper(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[label] += time.perf_counter() - start

        return wrapper

    make_env, start, evaluate = script.make_env, script.Run.start, script.evaluate
    record_step = timed("logging", script.Run.record_step)
    record_iteration = timed("logging", script.Run.record_iteration)
    save, timed_save = script.Run.save, timed("logging", script.Run.save)

    def make_timed_env(*args) -> object:
        env = make_env(*args)
        env.step, env.reset = timed("environment", env.step), timed("environment", env.reset)
        return env

    def start_the_clocks(*args) -> None:
        start(*args)
        seconds["environment"] = 0.0  # what was tried in there is not training

    def stop_the_clocks(*args) -> dict:
        spent.update(seconds)  # wall_seconds ends here
        return evaluate(*args)

    def mark_end_of_step(*args, **kwargs) -> None:
        nonlocal last_step
        record_step(*args, **kwargs)
        last_step = time.perf_counter()

    def mark_end_of_update(*args) -> None:
        nonlocal recording
        seconds["update"] += time.perf_counter() - last_step
        recording = True
        record_iteration(*args)
        recording = False

    def save_once(*args) -> None:  # within record_iteration a clock is running already
        (save if recording else timed_save)(*args)

    script.make_env, script.evaluate = make_timed_env, stop_the_clocks
    script.Actor.sample = timed("policy", script.Actor.sample)
    script.Run.start, script.Run.save = start_the_clocks, save_once
    script.Run.record_step, script.Run.record_iteration = mark_end_of_step, mark_end_of_update
    total = script.train(args)["wall_seconds"]
    names = ("environment", "policy", "update", "logging")
    parts = {name: spent.get(name, 0.0) / total for name in names}
    parts["rest"] = 1 - sum(parts.values())
    (args.run_dir / "shares.json").write_text(json.dumps(parts, indent=2))


def bare(script: ModuleType, args: object) -> None:
    """Step the environments that the script would train in, as it does; summary.json gives the
    steps per second of all together."""
    envs = [script.make_env(args) for _ in range(args.num_envs)]
    for i, env in enumerate(envs):
        env.reset(seed=args.seed + i)
        env.action_space.seed(args.seed + i)
    actions = cycle([[env.action_space.sample() for env in envs] for _ in range(ACTIONS)])

    def step(count: int) -> None:
        for action in islice(actions, count):
            for i, env in enumerate(envs):
                _, _, terminated, truncated, _ = env.step(action[i])
                if terminated or truncated:
                    env.reset()

    step(WARM_UP)
    count = max(args.total_timesteps // args.num_envs, 1)
    start = time.perf_counter()
    step(count)
    seconds, steps = time.perf_counter() - start, count * args.num_envs
    for env in envs:
        env.close()
    args.run_dir.mkdir(parents=True)
    summary = {"global_step": steps, "wall_seconds": seconds, "sps": steps / seconds}
    (args.run_dir / "summary.json").write_text(json.dumps(summary, indent=2))


if __name__ == "__main__":
    what, path = {"shares": shares, "bare": bare}[sys.argv[1]], Path(sys.argv[2]).resolve()
    sys.argv = [str(path), *sys.argv[3:]]
    sys.path[0] = str(path.parent)  # instead of this folder, whose modules have common names
    script = importlib.import_module(path.stem)
    try:
        what(script, script.check_args(tyro.cli(script.Args)))
    except script.BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
