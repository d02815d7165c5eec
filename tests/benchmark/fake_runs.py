"""Run directories as the scripts would leave them, made up in no time, for tests and for timing
the report.

python tests/benchmark/fake_runs.py runs/fake --seeds 20    # 300 runs: 3 environments, 5
algorithms
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

EVENT_FILE = "events.out.tfevents.1700000000.host.1.0"


def write_events(
    path: Path,
    start: float,
    scalars: list[tuple[str, int, float, float]],
    purge_step: int | None = None,
):
    """An event file that begins at `start`: scalars are (tag, step, seconds after the start,
    value)."""
    events = [Event(wall_time=start, file_version="brain.Event:2")]
    if purge_step is not None:
        events.append(
            Event(
                wall_time=start,
                step=purge_step,
                session_log=SessionLog(status=SessionLog.START),
            )
        )
    for tag, step, seconds, value in scalars:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        events.append(Event(wall_time=start + seconds, step=step, summary=summary))
    with path.open("wb") as file:
        for event in events:
            data = event.SerializeToString()
            length = len(data).to_bytes(8, "little")
            for part in (length, data):
                file.write(part)
                file.write(masked_crc32c(part).to_bytes(4, "little"))


def write_run(
    run_dir: Path,
    algorithm: str,
    env_id: str,
    seed: int,
    final_return: float = 100.0,
    episodes: int = 200,
    total_timesteps: int = 10_000,
    losses: int = 0,
    finished: bool = True,
) -> None:
    """One run whose returns rise from 0 to final_return halfway and stay there."""
    run_dir.mkdir(parents=True)
    versions = {"python": "3.11.0", "torch": "2.13.0", "gymnasium": "1.4.0", "numpy": "2.4.0"}
    args = {
        "env_id": env_id,
        "seed": seed,
        "total_timesteps": total_timesteps,
        "run_dir": str(run_dir),
        "device": "cpu",
        "script": f"{algorithm}.py",
        "script_sha256": algorithm,
        "versions": versions,
    }
    (run_dir / "args.json").write_text(json.dumps(args))
    progress = np.arange(1, episodes + 1) / max(episodes, 1)
    returns = np.minimum(2 * progress, 1.0) * final_return
    scalars = []
    for part, value in zip(progress, returns, strict=True):
        step, seconds = int(part * total_timesteps), float(part) * 10
        scalars.append(("charts/episodic_return", step, seconds, float(value)))
        scalars.append(("charts/episodic_length", step, seconds, float(value)))
    scalars += [(f"losses/{k % 8}", k, 5.0, 0.5) for k in range(losses)]
    write_events(run_dir / EVENT_FILE, 1.7e9, scalars)
    summary = {
        "env_id": env_id,
        "script": f"{algorithm}.py",
        "seed": seed,
        "global_step": total_timesteps,
        "wall_seconds": 10.0,
        "sps": total_timesteps / 10,
        "train_return_mean": final_return if episodes else None,
        "train_episodes": episodes,
        "eval_return_mean": final_return,
        "eval_return_std": 1.0,
        "eval_episodes": 20,
    }
    if finished:
        (run_dir / "summary.json").write_text(json.dumps(summary))


def write_task_run(
    run_dir: Path,
    algorithm: str,
    task: str,
    seed: int,
    final_return: float = 0.9,
    completions: int = 400,
    log: tuple[tuple[int, float], ...] = (),
    logged: dict[str, dict[int, float]] | None = None,
    further: dict | None = None,
    flags: dict | None = None,
    finished: bool = True,
) -> None:
    """One run of a language model: a completion is an episode and one step, and eight are
    logged together. `log` has its exact success by steps, `logged` other values by tag and
    step; the run takes 10 seconds."""
    write_run(run_dir, algorithm, task, seed, final_return, 0, completions, finished=finished)
    path = run_dir / "args.json"
    args = json.loads(path.read_text())
    del args["env_id"]
    path.write_text(json.dumps(args | {"task": task} | (flags or {})))
    steps = [*range(8, completions, 8), completions]
    scalars = [(step, "charts/episodic_return", final_return) for step in steps]
    scalars += [(step, "eval/exact_success", value) for step, value in log]
    for tag, values in (logged or {}).items():
        scalars += [(step, tag, value) for step, value in values.items()]
    scalars = [(tag, step, 10 * step / completions, y) for step, tag, y in sorted(scalars)]
    write_events(run_dir / EVENT_FILE, 1.7e9, scalars)
    path = run_dir / "summary.json"
    if finished:
        summary = json.loads(path.read_text())
        summary |= {"train_return_mean": final_return, "train_episodes": completions}
        path.write_text(json.dumps(summary | (further or {})))


def write_job(
    root: Path,
    algorithm: str,
    env_id: str,
    seed: int,
    status: str = "done",
    reason: str = "",
    score_range: tuple[float, float] | None = (0.0, 100.0),
    threshold: float | None = None,
    write=write_run,
    **run,
) -> Path:
    """A job's folder with its record, and with its run unless it failed; returns the folder."""
    folder = root / f"{env_id}__{algorithm}__{seed}"
    if status == "failed":
        folder.mkdir(parents=True)
    else:
        write(folder / "run", algorithm, env_id, seed, finished=status == "done", **run)
    record = {
        "algorithm": algorithm,
        "env_id": env_id,
        "seed": seed,
        "flags": {},
        "extra": [],
        "score_range": score_range,
        "threshold": threshold,
        "status": status,
        "reason": reason,
    }
    (folder / "job.json").write_text(json.dumps(record))
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir", type=Path)
    parser.add_argument(
        "--environments", nargs="+", default=["CartPole-v1", "Acrobot-v1", "LunarLander-v3"]
    )
    parser.add_argument("--algorithms", nargs="+", default=["a", "b", "c", "d", "e"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=3000)
    parser.add_argument("--losses", type=int, default=2000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for env_id in options.environments:
        for algorithm in options.algorithms:
            for seed in range(1, options.seeds + 1):
                write_job(
                    options.dir,
                    algorithm,
                    env_id,
                    seed,
                    final_return=rng.normal(100, 10),
                    episodes=options.episodes,
                    losses=options.losses,
                    total_timesteps=300_000,
                )
