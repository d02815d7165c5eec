"""A script that keeps the contract and whose return depends on its flags: highest, at 100,
with a learning rate of 0.01, and the less the farther that is away. Seeds add up to 1.

With --behaviour slow it stops at four fifths of its steps and waits for a file `go` beside its
run directory. With --behaviour crash it fails where the learning rate is not the default. With
--behaviour endless no episode ends.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

from fake_runs import EVENT_FILE, write_events

EPISODES = 100


@dataclass
class Args:
    env_id: str = "CartPole-v1"  # any
    seed: int = 1
    total_timesteps: int = 1000
    torch_threads: int = 1
    eval_episodes: int = 20
    device: str = "cpu"
    env_kwargs: str = "{}"
    behaviour: str = "ok"
    learning_rate: float = 0.1  # 10 times too high
    num_envs: int = 4  # without effect
    norm_adv: bool = True  # adds 5
    run_dir: str = ""
    resume: str = ""


def parse() -> Args:
    parser = argparse.ArgumentParser()
    for field in fields(Args):
        name = f"--{field.name.replace('_', '-')}"
        if field.type == "bool" or field.type is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(name, action=action, default=field.default)
        else:
            parser.add_argument(name, type=field.type, default=field.default)
    return Args(**vars(parser.parse_args()))


def write_whole(folder: Path, scalars: list[tuple]) -> None:
    """The event file, so that nobody can read a part of it."""
    write_events(folder / "part", 1.7e9, scalars)
    (folder / "part").replace(folder / EVENT_FILE)


def main() -> None:
    args = parse()
    if args.run_dir and Path(args.run_dir).exists():
        print(f"error: {args.run_dir} exists", file=sys.stderr)
        sys.exit(2)
    if args.resume:
        saved = json.loads((Path(args.resume) / "checkpoint.pt").read_text())
        args = Args(**saved | {"run_dir": args.resume})
    if args.behaviour == "crash" and args.learning_rate != Args.learning_rate:
        sys.exit("Traceback: it crashed")
    folder = Path(args.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    flags = vars(args).copy()
    (folder / "checkpoint.pt").write_text(json.dumps(flags))
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    about = {"script": Path(__file__).name, "script_sha256": digest, "versions": {}}
    (folder / "args.json").write_text(json.dumps(flags | about | {"device": "cpu"}))
    final = 100 * math.exp(-(math.log10(args.learning_rate / 0.01) ** 2)) + 5 * args.norm_adv
    final += args.seed % 10 / 10
    scalars = []
    for k in range(1, EPISODES + 1):
        step = k * args.total_timesteps // EPISODES
        value = final * min(2 * k / EPISODES, 1)
        scalars.append(("charts/episodic_return", step, float(k), value))
    if args.behaviour == "slow":
        write_whole(folder, scalars[: 4 * EPISODES // 5])
        deadline = time.monotonic() + 120
        while not (folder.parent / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    if args.behaviour == "endless":
        scalars = [("charts/SPS", args.total_timesteps, 1.0, 1.0)]
    write_whole(folder, scalars)
    summary = {
        "env_id": args.env_id, "script": Path(__file__).name, "seed": args.seed,
        "global_step": args.total_timesteps, "wall_seconds": 1.0, "sps": 1.0,
        "train_return_mean": final, "train_episodes": EPISODES, "eval_return_mean": final,
        "eval_return_std": 0.0, "eval_episodes": args.eval_episodes,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))


if __name__ == "__main__":
    main()
