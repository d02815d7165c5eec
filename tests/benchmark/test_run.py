"""python -m benchmark run: suites, the pool, and what can go wrong, with scripts that take no
time."""

import csv
import errno
import hashlib
import importlib
import itertools
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro
from harness import PATIENCE, ROOT, benchmark, is_alive, wait_until
from helpers import EVERY

from benchmark import __main__ as program
from benchmark import files, grid, plan, pool
from benchmark.grid import (
    SUITES,
    BadInput,
    load_suite,
    make_jobs,
    parse_numbers,
)
from benchmark.machine import commit_of, runs_same_code
from benchmark.variants import variants

NO_SUMMARY = "exit status 0, but no finite summary.json"
CLASSIC = load_suite("classic")
SUITE = """
seeds = [1, 2]
[environments.CartPole-v1]
total_timesteps = 100
[environments.Acrobot-v1]
total_timesteps = 200
[algorithms.fake]
script = "{script}"
flags = {{ behaviour = "{behaviour}" }}
"""


@pytest.fixture
def suite(tmp_path):
    """Write a suite whose one script behaves as told; return its path."""
    script = tmp_path / "fake_script.py"
    shutil.copy(ROOT / "tests" / "benchmark" / "fake_script.py", script)

    def write(behaviour: str = "ok", text: str = SUITE) -> Path:
        path = tmp_path / "suite.toml"
        path.write_text(text.format(script=script, behaviour=behaviour))
        return path

    return write


@pytest.fixture
def start():
    """Start python -m benchmark; what still runs when the test ends is killed."""
    processes = []

    def start_one(*words: object) -> subprocess.Popen:
        processes.append(subprocess.Popen(
            [sys.executable, "-m", "benchmark", *map(str, words)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ))  # fmt: skip
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()


def one_job(suite_path: Path, directory: Path):
    return make_jobs(load_suite(str(suite_path)), directory, ["CartPole-v1"], seeds=[1])[0]


def run_one(job, **options) -> dict:
    """Run one job in the pool; return its record."""
    records = []
    pool.run_local([job], lambda _, record, __: records.append(record), workers=1, **options)
    return records[0]


def history(job) -> list[str]:
    """'start' or 'resume' for each time that the script was started."""
    return [
        line.split()[0] for line in (job.directory / "history.txt").read_text().splitlines()
    ]


def pids(directory: Path) -> list[int]:
    """The scripts that were ever started under `directory`."""
    return [
        int(line.split()[1])
        for path in directory.rglob("history.txt")
        for line in path.read_text().splitlines()
    ]


# ==============================================================================================
# A suite of suites
# ==============================================================================================
@pytest.fixture
def several(tmp_path, suite):
    """A suite of two suites: `long` has two runs of 3,000 steps, `short` four of 100 or 200;
    stored runs of the script took 0.1 s a step."""
    text = SUITE.format(script=tmp_path / "fake_script.py", behaviour="ok")
    suite()
    (tmp_path / "short.toml").write_text(text)
    one = text.replace("= 100", "= 3000").partition("[environments.Acrobot-v1]")
    (tmp_path / "long.toml").write_text(
        one[0] + "[algorithms" + text.partition("[algorithms")[2]
    )
    path = tmp_path / "several.toml"
    path.write_text('suites = ["long.toml", "short.toml"]')
    return path


def stored(folder: Path, *rows: tuple) -> Path:
    """Stored reports: rows are suite, algorithm, script, environment, steps, seconds."""
    columns = ["algorithm", "script", "env_id", "global_step", "wall_seconds", "status"]
    for suite_name, *row in rows:
        (folder / suite_name).mkdir(parents=True, exist_ok=True)
        path = folder / suite_name / "results.csv"
        before = (
            [list(found.values()) for found in files.read_csv(path)] if path.exists() else []
        )
        files.write_csv(path, columns, [*before, [*row, "done"]])
    return folder


def test_several_suites_run_the_shortest_first_and_are_gone_on_with(
    several, tmp_path, monkeypatch, figures
):
    monkeypatch.setattr(plan, "RESULTS", stored(
        tmp_path / "stored", ("x", "fake", "fake_script.py", "CartPole-v1", 100, 10.0)
    ))  # fmt: skip
    words = ["run", several, "--dir", tmp_path / "runs"]
    lines = benchmark(*words, "--dry-run").stdout.splitlines()
    # 4 s to start each; 2 * (100 + 200) and 2 * 3000 steps
    found = {line.split()[0]: line.split()[1:4] for line in lines[1:4]}
    assert found == {
        "short": ["4", "4", f"{(4 * 4 + 60) / 60:.0f}"],
        "long": ["2", "2", f"{(2 * 4 + 600) / 60:.0f}"],
        "all": ["6", "6", f"{(6 * 4 + 660) / 60:.0f}"],
    }
    assert list(found) == ["short", "long", "all"]
    assert not (tmp_path / "runs").exists()
    result = benchmark(*words)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.index("4 runs done") < result.stdout.index("2 runs done")
    for name, count in (("short", 4), ("long", 2)):
        rows = files.read_csv(tmp_path / "runs" / name / "report" / "results.csv")
        assert len(rows) == count
    shutil.rmtree(tmp_path / "runs" / "long" / "CartPole-v1__fake__2")
    again = benchmark(*words).stdout
    assert re.search(r"long +2 +1 ", again)
    assert "0 runs done, 4 had been done before" in again
    assert "1 runs done, 1 had been done before" in again


def test_the_seconds_of_a_run_are_those_of_what_is_most_like_it(tmp_path):
    known = plan.Seconds(stored(
        tmp_path,
        ("one", "a", "fake_script.py", "CartPole-v1", 100, 100.0),
        ("one", "a", "fake_script.py", "CartPole-v1", 100, 300.0),
        ("two", "a", "fake_script.py", "CartPole-v1", 100, 900.0),
        ("two", "b", "fake_script.py", "Acrobot-v1", 100, 500.0),
    ))  # fmt: skip
    script = ROOT / "tests" / "benchmark" / "fake_script.py"
    job = make_jobs(load_suite("ablations"), tmp_path, seeds=[1])[0]
    job = replace(job, script=script, algorithm="a", flags={"total_timesteps": 50})
    start = plan.START["env-id"]
    assert known.of(job, "one") == start + 50 * 2  # the median of its own suite
    assert known.of(job, "three") == start + 50 * 3  # of all suites
    assert known.of(replace(job, env_id="Acrobot-v1"), "one") == start + 50 * 5
    assert known.of(replace(job, env_id="New-v1"), "one") == start + 50 * 4  # of the script
    other = replace(job, script=ROOT / "ppo.py", algorithm="ppo")
    assert known.of(other, "one") is None
    worker = replace(job, script=ROOT / "a3c.py", flags=job.flags | {"num_workers": 3})
    assert known.of(worker, "one") == 3 * (start + 50 * 2)


@pytest.mark.parametrize(("text", "message"), [
    ("suites = 3", "suites must be a list of names"),
    ('suites = ["smoke"]\nseeds = [1]', "beside suites there is nothing else"),
    ('suites = ["smok"]', "there is no suite smok; did you mean smoke?"),
])  # fmt: skip
def test_a_faulty_suite_of_suites_is_refused(tmp_path, text, message):
    path = tmp_path / "all.toml"
    path.write_text(text)
    result = benchmark("run", path)
    assert result.returncode == 2
    assert message in result.stderr


def test_all_of_the_suites_have_unseen_seeds_and_enough_of_them(tmp_path):
    """Ten, and twenty for ablations, peers and CartPole-v1; tuning has those from 1000 on. For
    MinAtar's Breakout 1 to 7 were looked at, and its other games take long."""
    for name in grid.named_suites("all"):
        if name == "speed":
            continue
        seeds = {}
        for job in make_jobs(load_suite(name), tmp_path):
            seeds.setdefault(job.env_id, set()).add(job.seed)
        for env_id, found in seeds.items():
            twenty = env_id == "CartPole-v1" or name in ("ablations", "peers")
            counts = {"sensitivity": range(1, 6), "minatar": range(1, 4)}
            expected = counts.get(name, range(1, 21) if twenty else range(1, 11))
            if env_id == "MinAtar/Breakout-v1":
                expected = range(8, 18)
            assert found == set(expected), (name, env_id)
    benches = {"all", "smoke", "atari"}  # the last is for a GPU
    assert {path.stem for path in SUITES.glob("*.toml")} - benches == set(
        grid.named_suites("all")
    )


def test_a_language_models_base_is_made_by_the_seed(tmp_path):
    for name in ("language", "grpo", "preferences"):
        for job in make_jobs(load_suite(name), tmp_path):
            assert json.loads(job.flags["task_kwargs"]) == {"base_seed": job.seed}


# ==============================================================================================
# Variants of a script's flags
# ==============================================================================================
def test_variants_are_multiples_of_a_default_or_of_what_it_lacks_to_1():
    factors = [0.5, 2, 3]
    assert variants(0.01, factors, False) == [0.005, 0.02, 0.03]
    assert variants(8, factors, False) == [4, 16, 24]
    assert variants(1, factors, False) == [2, 3]  # half of it is rounded to 1, the default
    assert variants(0.9, factors, True) == [0.95, 0.8, 0.7]
    assert variants(0.6, factors, True) == [0.8, 0.2]  # three times 0.4 would be beyond 0


SENSITIVITY = """
[sensitivity]
factors = [0.5, 2]
lacking = ["gamma"]
[sensitivity.vary.fake]
flags = ["learning_rate", "gamma", "num_envs"]
values = {{ num_steps = [16, 32] }}
"""


def test_a_suite_of_sensitivity_gets_a_variant_for_each_value(tmp_path):
    path, script = tmp_path / "suite.toml", tmp_path / "own.py"
    script.write_text(
        "class Args:\n    learning_rate: float = 1e-3  # Adam's\n    gamma: float = 0.98\n"
        "    num_envs: int = 16\n    num_steps: int = 32\n    norm_adv: bool = True\n"
    )
    text = SUITE.format(script=script, behaviour="ok") + SENSITIVITY.format()
    path.write_text(text.replace('behaviour = "ok"', "num_envs = 4"))
    loaded = load_suite(str(path))
    found = {name: table["flags"] for name, table in loaded["algorithms"].items()}
    # The suite's own num_envs, and else the script's defaults.
    assert found == {"fake": {"num_envs": 4}} | {
        f"fake {flag}={value}": {"num_envs": 4} | {flag: value}
        for flag, value in [
            ("learning_rate", 0.0005), ("learning_rate", 0.002), ("gamma", 0.99),
            ("gamma", 0.96), ("num_envs", 2), ("num_envs", 8), ("num_steps", 16),
        ]
    }  # fmt: skip
    assert loaded["report"] == {"lacking": ["gamma"]}
    for asked in (["fake"], ["fake", "fake num_envs=2"]):  # who asks for fake gets them all
        jobs = make_jobs(loaded, tmp_path, algorithms=asked, seeds=[1])
        assert sorted({job.algorithm for job in jobs}) == sorted(found)
    (job,) = make_jobs(loaded, tmp_path, ["CartPole-v1"], ["fake gamma=0.99"], [1])
    assert job.algorithm == "fake gamma=0.99"
    path.write_text(path.read_text().replace('"gamma", "num_envs"', '"norm_adv"'))
    with pytest.raises(BadInput, match=r"own.py has no numeric default of norm_adv"):
        load_suite(str(path))
    path.write_text(path.read_text().replace("vary.fake", "vary.fak"))
    with pytest.raises(BadInput, match="is no algorithm of the suite; did you mean fake"):
        load_suite(str(path))


def test_the_batches_of_the_sensitivity_suite_can_be_split(tmp_path):
    for job in make_jobs(load_suite("sensitivity"), tmp_path, seeds=[1]):
        args = args_of(job.script)(**job.flags)
        batch = getattr(args, "batch_size", 0) or args.num_envs * args.num_steps
        if hasattr(args, "num_minibatches"):
            assert batch % args.num_minibatches == 0, job.name
            assert batch // args.num_minibatches >= 2, job.name
        assert batch % getattr(args, "num_generations", 1) == 0, job.name


# ==============================================================================================
# The commit of a script
# ==============================================================================================
def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    command = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_runs_name_the_commit_of_their_script_and_whether_it_has_changed(suite, tmp_path):
    words = ["run", suite(), "--seeds"]

    def commit_of_run(seed: int) -> str:
        path = tmp_path / str(seed) / f"CartPole-v1__fake__{seed}" / "job.json"
        return json.loads(path.read_text())["commit"]

    result = benchmark(*words, 1, "--dir", tmp_path / "1")
    assert (result.stderr, commit_of_run(1)) == ("", "")  # no repository
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "fake_script.py")
    git(tmp_path, "commit", "-q", "-m", "x")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    result = benchmark(*words, 2, "--dir", tmp_path / "2")
    assert (result.stderr, commit_of_run(2)) == ("", head)
    with (tmp_path / "fake_script.py").open("a") as file:
        file.write("# changed\n")
    result = benchmark(*words, 3, "--dir", tmp_path / "3")
    what = "not as in the last commit, so these runs cannot be made again"
    assert result.stderr == f"warning: fake_script.py: {what}\n"
    assert commit_of_run(3) == f"{head}-dirty"
    git(tmp_path, "rm", "-q", "--cached", "fake_script.py")
    git(tmp_path, "commit", "-q", "-m", "y")
    assert commit_of(tmp_path / "fake_script.py").endswith("-dirty")  # not in it at all


WAS = '"""What it is."""\nx = "a"  # a step\n\ndef f():\n    """Doubles."""\n    return 2 * x\n'


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("", "", True),
        ("What it is.", "In other words.", True),
        ("  # a step", "", True),
        ('    """Doubles."""\n', "", True),
        ("2 * x", "3 * x", False),
        ('"a"', '"b"', False),
        ("return", "yield", False),
    ],
)
def test_a_script_is_the_one_that_ran_whatever_its_comments(tmp_path, old, new, same):
    path, digest = tmp_path / "mine.py", hashlib.sha256(WAS.encode()).hexdigest()
    path.write_text(WAS)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "mine.py")
    git(tmp_path, "commit", "-q", "-m", "x")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD").strip()
    path.write_text(WAS.replace(old, new))
    assert runs_same_code(path, digest, commit) == same
    unchanged = old == new
    for other in ("", f"{commit}-dirty", "0" * 12):  # bytes alone tell
        assert runs_same_code(path, digest, other) == unchanged
    assert not runs_same_code(path, "0" * 64, commit)


# ==============================================================================================
# Suites and the grid
# ==============================================================================================
ORDINARY = [path for path in sorted(SUITES.glob("*.toml")) if path.stem != "all"]


@pytest.mark.parametrize("path", ORDINARY, ids=lambda path: path.stem)
def test_shipped_suites_make_commands_that_the_scripts_understand(path, tmp_path):
    jobs = make_jobs(load_suite(path.stem), tmp_path, seeds=[1])
    # Variants differ in values: one of each flag will do, since parsing takes its time.
    several = {job.algorithm.partition("=")[0]: job for job in jobs if "=" in job.algorithm}
    for job in [job for job in jobs if "=" not in job.algorithm] + list(several.values()):
        args = tyro.cli(args_of(job.script), args=[*job.words(), "--run-dir", str(job.run_dir)])
        environment = getattr(args, job.environment_flag.replace("-", "_"))
        assert (environment, args.seed, args.run_dir) == (job.env_id, 1, job.run_dir)
        assert {name: getattr(args, name) for name in job.flags} == job.flags


def args_of(script: Path) -> type:
    """A script's dataclass of flags."""
    module = ".".join(script.relative_to(ROOT).with_suffix("").parts)
    return importlib.import_module(module).Args


# Hyperparameters by which published settings are known.
PUBLISHED = {"num_envs", "num_steps", "num_minibatches", "update_epochs", "learning_rate"}
PUBLISHED |= {"gamma", "gae_lambda", "clip_coef", "ent_coef", "reward_scale", "cg_max_steps"}
PUBLISHED |= {"gradient_steps", "batch_size", "tau", "n_critic_updates"}
OTHERS = r"rl-baselines3-zoo|PPO paper|KL and|\w+ et al"  # how their sources begin


@pytest.mark.parametrize("path", ORDINARY, ids=lambda path: path.stem)
def test_published_settings_are_whole(path):
    """Another default of a script must not change them."""
    suite = load_suite(path.stem)
    for name, entries in suite.get("tuned", {}).items():
        flags = args_of(ROOT / suite["algorithms"][name]["script"]).__dataclass_fields__
        # Of TRPO target_kl is the step size, of PPO a switch that is off.
        named = PUBLISHED | ({"target_kl"} if name.startswith("trpo") else set())
        for env_id, entry in entries.items():
            if re.match(OTHERS, entry["source"]):
                assert named & flags.keys() <= entry.keys(), (name, env_id)


def test_the_suite_of_defaults_gives_the_scripts_defaults(tmp_path):
    for job in make_jobs(load_suite("defaults"), tmp_path, seeds=[1]):
        args = args_of(job.script)()
        assert {name: getattr(args, name) for name in job.flags} == job.flags, job.name
        assert args.env_id == job.env_id


@pytest.mark.parametrize("name", ["language", "preferences", "grpo"])
def test_entries_named_for_a_kl_weight_or_rounds_have_them(name):
    for algorithm, entry in load_suite(name)["algorithms"].items():
        for word, flag in (("kl", "kl_coef"), ("rounds", "preference_rounds")):
            _, found, rest = algorithm.partition(f"-{word}-")
            assert not found or entry["flags"][flag] == float(rest.split("-")[0]), algorithm


def test_smoke_has_every_script_once(tmp_path):
    """Under its name and on its default environment, also those that only "*" stands for."""
    jobs = make_jobs(load_suite("smoke"), tmp_path, seeds=[1])
    assert sorted(job.script.name for job in jobs) == sorted(f"{name}.py" for name in EVERY)
    for job in jobs:
        args = args_of(job.script)()
        assert job.env_id == getattr(args, job.environment_flag.replace("-", "_"))
        assert job.algorithm == job.script.stem


def test_the_entry_for_all_other_scripts(suite, tmp_path, monkeypatch):
    """Flags are those of the entry; a script with an entry of its own is not there twice; what
    takes neither an environment nor a task is no script."""
    monkeypatch.setattr(grid, "ROOT", tmp_path)
    for name, line in (
        ("fake", 'env_id: str = "Acrobot-v1"  # an environment'), ("setup", "version = 3"),
        ("one", 'env_id: str = "CartPole-v1"'), ("two", 'task: str = "Acrobot-v1"'),
    ):  # fmt: skip
        (tmp_path / f"{name}.py").write_text(f"class Args:\n    {line}\n")
    text = SUITE.replace("{script}", "fake.py")
    path = suite(text=text + '[algorithms."*"]\nflags = {{ a = 1 }}\n')
    found = load_suite(str(path))["algorithms"]
    assert set(found) == {"fake", "one", "two"}
    assert found["fake"] == {"script": "fake.py", "flags": {"behaviour": "ok"}}
    assert found["one"] == {"script": "one.py", "only": ["CartPole-v1"], "flags": {"a": 1}}
    assert found["two"] == {"script": "two.py", "only": ["Acrobot-v1"], "flags": {"a": 1}}
    (tmp_path / "odd.py").write_text('class Args:\n    env_id: str = "Odd-v1"\n')
    with pytest.raises(BadInput, match=r"environment of odd\.py, Odd-v1, is not in the suite"):
        load_suite(str(path))


def test_a_module_and_folders_of_the_readers_own_fail_no_test(tmp_path):
    """Only a script at the root must be registered."""
    for path in (p for p in ROOT.iterdir() if p.suffix in (".py", ".toml", ".txt", ".md")):
        shutil.copy(path, tmp_path)
    for name in ("tests", "benchmark", "reader", "tools"):
        ignored = shutil.ignore_patterns("results", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    (tmp_path / "mine.py").write_text("import gymnasium as gym\n")
    (tmp_path / "copies").mkdir()
    shutil.copy(ROOT / "ppo.py", tmp_path / "copies" / "mine.py")
    (tmp_path / "tensorboard").mkdir()  # which a script imports, by another way
    smoke = "tests/benchmark/test_run.py::test_smoke_has_every_script_once"
    words = ["-m", "pytest", "-q", "-n", "0", "tests/algorithms/test_siblings.py", smoke]
    result = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=2 * PATIENCE,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:]


def test_grid_and_overrides(suite, tmp_path):
    loaded = load_suite(str(suite()))
    jobs = make_jobs(loaded, tmp_path)
    names = [
        "CartPole-v1__fake__1",
        "Acrobot-v1__fake__1",
        "CartPole-v1__fake__2",
        "Acrobot-v1__fake__2",
    ]
    assert [job.name for job in jobs] == names
    assert [job.flags["total_timesteps"] for job in jobs] == [100, 200, 100, 200]
    (job,) = make_jobs(
        loaded, tmp_path, ["Pendulum-v1"], ["fake"], [7], 50, ("--eval-episodes", "3")
    )
    assert job.words() == [
        "--env-id",
        "Pendulum-v1",
        "--seed",
        "7",
        "--total-timesteps",
        "50",
        "--torch-threads",
        "1",
        "--behaviour",
        "ok",
        "--eval-episodes",
        "3",
    ]


def test_tuned_flags_win_and_booleans_become_switches(suite, tmp_path):
    text = (
        SUITE
        + "[tuned.fake.Acrobot-v1]\nsource = 'a paper'\nbehaviour = 'x'\n"
        + "anneal_lr = false\nnorm_adv = true\n"
    )
    words = make_jobs(load_suite(str(suite(text=text))), tmp_path, ["Acrobot-v1"], seeds=[1])[
        0
    ].words()
    assert words[-4:] == ["--behaviour", "x", "--no-anneal-lr", "--norm-adv"]


TASKS = """
seeds = [1]
[environments.sums]
flag = "task"
total_timesteps = 64
threshold = 0.95
[algorithms.fake]
script = "{script}"
flags = {{ behaviour = "{behaviour}" }}
"""


def test_a_task_goes_to_the_script_in_the_place_of_an_environment(suite, tmp_path):
    loaded = load_suite(str(suite(text=TASKS)))
    (job,) = make_jobs(loaded, tmp_path)
    assert job.words()[:4] == ["--task", "sums", "--seed", "1"]
    (job,) = make_jobs(loaded, tmp_path, ["mine:letters"], total_timesteps=8)
    assert job.words()[:2] == ["--task", "mine:letters"]
    assert job.name == "mine_letters__fake__1"
    both = TASKS + "[environments.CartPole-v1]\ntotal_timesteps = 100\n"
    jobs = make_jobs(load_suite(str(suite(text=both))), tmp_path)
    words = [job.words()[:2] for job in jobs]
    assert words == [["--task", "sums"], ["--env-id", "CartPole-v1"]]
    for env_id in ("CartPole-v1", "summs"):  # a task is no environment, nor the reverse
        with pytest.raises(BadInput, match=f"there is no task {env_id}"):
            make_jobs(loaded, tmp_path, [env_id], total_timesteps=8)


def test_an_environment_has_flags_for_all_its_scripts(suite, tmp_path):
    """One base model for every algorithm, which the scripts read as it is written."""
    kwargs = '{"base_model": "a base.pt"}'
    text = f"""
        seeds = [1]
        [environments.addition]
        flag = "task"
        total_timesteps = 64
        flags = {{ task_kwargs = '{kwargs}', kl_coef = 0.5 }}
        [algorithms]
        grpo = {{ script = "grpo.py" }}
        dpo = {{ script = "dpo.py", flags = {{ kl_coef = 0.2 }} }}
    """
    path = tmp_path / "own.toml"
    path.write_text(text)
    for job, kl_coef in zip(
        make_jobs(load_suite(str(path)), tmp_path), (0.5, 0.2), strict=True
    ):
        args = tyro.cli(args_of(job.script), args=job.words())
        assert (args.task_kwargs, args.kl_coef) == (kwargs, kl_coef)
    path.write_text(text.replace("kl_coef = 0.5", "kl_coef = [1]"))
    with pytest.raises(
        BadInput, match=r"\[environments.addition\] flags must be numbers, words"
    ):
        load_suite(str(path))


def test_a_task_is_run_resumed_and_reported(suite, tmp_path, capsys):
    words = ["run", str(suite("flaky", TASKS)), "--dir", str(tmp_path / "runs")]
    assert program.main(words) == 0
    folder = tmp_path / "runs" / "sums__fake__1"
    history = (folder / "history.txt").read_text().splitlines()
    assert [line.split()[0] for line in history] == ["start", "resume"]
    record = json.loads((folder / "job.json").read_text())
    assert (record["env_id"], record["threshold"]) == ("sums", 0.95)
    assert program.main(words) == 0
    assert "0 runs done, 1 had been done before" in capsys.readouterr().out
    assert program.main(["report", str(tmp_path / "runs")]) == 0
    with (tmp_path / "runs" / "report" / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["env_id"], row["status"], row["threshold"]) == ("sums", "done", "0.95")


OUTSIDE = """
seeds = [1]
[environments."world:Walk"]
total_timesteps = 1_024
[environments."world:digits"]
flag = "task"
total_timesteps = 512
[algorithms]
ppo = { script = "ppo.py", only = ["world:Walk"] }
mine = { script = "mine.py", only = ["world:Walk"] }
rloo = { script = "rloo.py", only = ["world:digits"] }
[tuned.rloo."world:digits"]
source = "none"
task_kwargs = '{"path": "prompts.txt"}'
"""
WORLD = """
import gymnasium as gym
gym.register("Walk", lambda: gym.make("CartPole-v1"), max_episode_steps=20)
def digits(path):
    prompts = open(path).read().split()
    return None, prompts, lambda prompts, completions, ended: [len(x) for x in completions]
"""


def test_a_suite_outside_brings_its_scripts_modules_and_files(tmp_path):
    """Run from a third folder by paths: two scripts of the repository and a copy of one, with
    an environment, a task and its file that lie beside the suite."""
    study, elsewhere = tmp_path / "my study", tmp_path / "else"
    for folder in (study, elsewhere):
        folder.mkdir()
    (study / "suite.toml").write_text(OUTSIDE)
    (study / "world.py").write_text(WORLD)
    (study / "prompts.txt").write_text(
        " ".join(f"{i}+{j}=" for i in range(9) for j in range(9))
    )
    shutil.copy(ROOT / "ppo.py", study / "mine.py")

    def call(*words: str) -> subprocess.CompletedProcess:
        program = os.path.relpath(ROOT / "benchmark", elsewhere)
        words = [sys.executable, program, *words]
        return subprocess.run(words, cwd=elsewhere, capture_output=True, text=True)

    planned = call("run", "../my study/suite.toml", "--dry-run").stdout.splitlines()
    result = call("run", "../my study/suite.toml", "--", "--eval-episodes", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    folder = elsewhere / "runs" / "benchmark" / "suite"
    made = {
        path.parents[1].name: json.loads(path.read_text())
        for path in folder.glob("*/run/args.json")
    }
    assert made.keys() == {"world_Walk__ppo__1", "world_Walk__mine__1", "world_digits__rloo__1"}
    assert made["world_Walk__mine__1"]["script"] == "mine.py"
    result = call("report", "--against", "ppo")
    assert result.returncode == 0, result.stderr
    text = (folder / "report" / "report.md").read_text()
    assert "| mine | world:Walk | 1 | 1 | " in text

    place = shlex.quote(str(study))
    assert len(planned) == 3
    assert all(line.startswith(f"cd {place} && PYTHONPATH={place} ") for line in planned)


def test_the_readmes_suite_of_ones_own_makes_commands_that_the_scripts_understand(tmp_path):
    readme = (ROOT / "benchmark" / "README.md").read_text(encoding="utf-8")
    path = tmp_path / "study.toml"
    path.write_text(readme.partition("```toml\n")[2].partition("```")[0])
    shutil.copy(ROOT / "ppo.py", tmp_path / "ppo_mine.py")
    jobs = make_jobs(load_suite(str(path)), tmp_path / "runs", seeds=[1])
    assert len({(job.algorithm, job.env_id) for job in jobs}) == len(jobs) == 4
    for job in jobs:
        args = tyro.cli(args_of(ROOT / "ppo.py"), args=job.words())
        own = job.env_id == "my_world:Walk-v0"
        assert args.env_kwargs == ('{"length": 20}' if own else "{}")
        assert job.folder == tmp_path


def test_a_script_beside_the_suite_comes_before_one_of_the_repository(tmp_path):
    text = OUTSIDE.replace("mine.py", "a2c.py")
    (tmp_path / "suite.toml").write_text(text)
    (tmp_path / "a2c.py").write_text("")
    jobs = make_jobs(load_suite(str(tmp_path / "suite.toml")), tmp_path)
    assert [job.script for job in jobs] == [
        ROOT / "ppo.py", (tmp_path / "a2c.py").resolve(), ROOT / "rloo.py",
    ]  # fmt: skip
    (tmp_path / "suite.toml").write_text(OUTSIDE)
    with pytest.raises(
        BadInput, match=f"no script mine.py, neither in {tmp_path} nor in {ROOT}"
    ):
        load_suite(str(tmp_path / "suite.toml"))


def test_an_inherited_search_path_stays_behind_the_suites(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    job = one_job(suite(), tmp_path / "runs")
    assert job.variables() == {"PYTHONPATH": f"{tmp_path}{os.pathsep}/somewhere"}
    monkeypatch.delenv("PYTHONPATH")
    assert job.variables() == {"PYTHONPATH": str(tmp_path)}
    assert make_jobs(CLASSIC, tmp_path)[0].variables() == {}


def test_seeds():
    assert parse_numbers("1-3, 8") == [1, 2, 3, 8]
    assert parse_numbers("2,1-3") == [2, 1, 3]
    for text in ("a", "1-", "-3", "1.5", "3-1", "1,", ""):
        with pytest.raises(BadInput):
            parse_numbers(text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "smok"], "there is no suite smok; did you mean smoke?"),
        (
            ["run", "smoke", "--algorithms", "pppo"],
            "no algorithm pppo in this suite; did you mean ppo",
        ),
        (
            ["run", "smoke", "--environments", "Cartpole-v1"],
            "no environment Cartpole-v1; did you mean CartPole-v1",
        ),
        (["run", "smoke", "--seeds", ""], "neither a whole number"),
        (["run", "smoke", "--seeds", "x"], "neither a whole number nor a range"),
        (["run", "smoke", "--steps", "0"], "not a positive whole number"),
        (["run", "smoke", "--timeout", "-1"], "-1 is not a whole number"),
        (["run", "smoke", "--wrokers", "2"], "--wrokers"),
        (
            [
                "run",
                "smoke",
                "--environments",
                "Acrobot-v1",
                "--steps",
                "9",
                "--algorithms",
                "ppo",
            ],
            "nothing would run",
        ),
        (["run", "smoke", "--dir", "pyproject.toml/x"], "cannot use pyproject.toml/x"),
        (
            ["run", "smoke", "--executor", "ray", "--gpus", "0"],
            "--workers and --gpus are for the local pool",
        ),
        (["run", "smoke", "--address", "auto"], "add --executor ray"),
        (["run", "smoke", "--runs-per-gpu", "2"], "--gpus 0,1"),
        (["run", "smoke", "--gpus", "0", "--workers", "2"], "not allowed with argument"),
        (["run", "smoke", "--gpus", "all"], "--gpus all: 'all' is neither a whole number nor"),
        (["run", "smoke", "--gpus", "3-1"], "--gpus 3-1: '3-1' is neither a whole number nor"),
        (["run", "smoke", "--gpus", ""], "--gpus : '' is neither a whole number nor a range"),
        (["run", "smoke", "--", "--seed=3"], "what follows -- must not give seed"),
        (
            ["run", "smoke", "--", "--env_id", "Acrobot-v1"],
            "what follows -- must not give env_id",
        ),
        (["run", "smoke", "--", "--task", "x"], "what follows -- must not give task"),
        (
            ["run", "language", "--environments", "additoin", "--steps", "512"],
            "there is no task additoin; did you mean addition?",
        ),
        (["run", "smoke", "--", "--run-dir", "x"], "what follows -- must not give run-dir"),
        (["run", "smoke", "--", "--resume", "x"], "what follows -- must not give resume"),
        (["report", ".", "--", "--x"], "report takes no flags for scripts"),
        (["walk"], "walk"),
        (["report", "no/such/folder"], "there is no folder no/such/folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, says, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert program.main(words) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert says in line


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_folder_outside_ascii_in_a_posix_locale(suite, tmp_path, locale):
    folder = tmp_path / "läufe"
    for words in (("run", suite(), "--seeds", "1", "--dir", folder), ("report", folder)):
        result = benchmark(*words, env=os.environ | {"LC_ALL": locale, "LANG": locale})
        assert (result.returncode, result.stderr) == (0, "")
        assert str(folder) in result.stdout
    assert (
        (folder / "report" / "report.md").read_text("utf-8").startswith("# Benchmark: läufe\n")
    )


def test_bad_input_to_the_command():
    result = benchmark("run", "smok")
    says = "error: there is no suite smok; did you mean smoke?\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", says)


def test_the_help_has_examples_that_work(capsys):
    with pytest.raises(SystemExit):
        program.main(["run", "--help"])
    examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    commands = [re.split(r"\s{2,}", line.strip())[0].split()[3:] for line in examples]
    assert len(commands) == 3
    assert program.parse_args(commands[-1]).extra[:2] == ("--eval-episodes", "100")
    for words in commands:
        assert make_jobs(load_suite(program.parse_args(words).suite), Path("x"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seeds = [1\nx = 2\n", "line 2"),
        ("seeds = [1]", "lacks algorithms"),
        (SUITE.replace("[1, 2]", "[]"), "there are no seeds"),
        (SUITE.replace("[1, 2]", "[1, 1]"), "seeds must be a list of different whole numbers"),
        (
            SUITE.replace("total_timesteps = 100", "total_timestep = 100"),
            "did you mean total_timesteps",
        ),
        (
            SUITE.replace("flags", "flag"),
            "[algorithms.fake] has an unknown key flag; did you mean flags",
        ),
        (
            SUITE.replace("CartPole-v1", "CartPol-v1"),
            "no environment CartPol-v1; did you mean CartPole-v1",
        ),
        (SUITE.replace('"{script}"', '"no_such.py"'), "there is no script no_such.py"),
        (SUITE + "[tuned.fake.CartPole-v1]\nbehaviour = 'x'\n", "must name the source"),
        (
            "seeds = [1]\nenvironments = ['CartPole-v1']\n[algorithms]\n",
            "environments must be a table",
        ),
        ("seeds = [1]\nalgorithms = 3\n[environments]\n", "algorithms must be a table"),
        ("seeds = [1]\ntuned = 3\n[environments]\n[algorithms]\n", "tuned must be a table"),
        (SUITE + "[tuned]\nfake = 3\n", "[tuned.fake] must be a table"),
        (SUITE + "[tuned.fake]\nCartPole-v1 = 3\n", "[tuned.fake.CartPole-v1] must be a table"),
        (SUITE.replace('"{script}"', "3"), "there is no script 3"),
        (
            SUITE + '[algorithms."*"]\nscript = "x"\n',
            "[algorithms.*] has an unknown key script",
        ),
        (SUITE + '[algorithms."*"]\nflags = 3\n', "[algorithms.*] flags must be a table"),
        (SUITE + "only = 3\n", "only must be a list of environments"),
        (SUITE + "only = [[3]]\n", "only names [3], which is not in the suite"),
        (SUITE.partition("flags")[0] + "flags = 3\n", "flags must be a table"),
        (
            SUITE.partition("flags")[0] + "flags = {{ a = [1] }}\n",
            "flags must be numbers, words or true/false",
        ),
        (
            SUITE.replace(
                "[environments.CartPole-v1]",
                "[environments]\nx = 3\n[environments.CartPole-v1]",
            ),
            "must be a",
        ),
        (
            SUITE.replace("behaviour =", "seed = 3, behaviour ="),
            "the flags of fake on CartPole-v1 must not give seed",
        ),
        (
            SUITE + "[tuned.fake.Acrobot-v1]\nsource = 'x'\nenv_id = 'y'\n",
            "fake on Acrobot-v1 must not give env_id",
        ),
        (SUITE + "[tuned.fak.CartPole-v1]\nsource = 'x'\n", "did you mean fake"),
        (SUITE + "[tuned.fake.Cartpole-v1]\nsource = 'x'\n", "did you mean CartPole-v1"),
        (
            SUITE.replace(
                "total_timesteps = 100", "total_timesteps = 100\nscore_range = [5, 1]"
            ),
            "two rising numbers",
        ),
        (
            SUITE.replace("total_timesteps = 100", "total_timesteps = 100\nflag = 'tsk'"),
            "[environments.CartPole-v1] flag must be env-id or task, not tsk",
        ),
        (
            SUITE.replace("total_timesteps = 100", "total_timesteps = 100\nthreshold = true"),
            "[environments.CartPole-v1] threshold must be a number",
        ),
        (
            SUITE.replace("behaviour =", "task = 'x', behaviour ="),
            "the flags of fake on CartPole-v1 must not give task",
        ),
        (
            SUITE.replace("total_timesteps = 100", "total_timesteps = 100\nthreshold = nan"),
            "threshold must be a number, not nan",
        ),
        (
            SUITE.replace("= 100", "= 100\nscore_range = [0, inf]\nscore_source = 's'"),
            "two rising numbers",
        ),
        (SUITE + "[report]\nlog = 5\n", "[report] log must be a list of tags"),
        (SUITE + "[report]\nlog = 'losses/entropy'\n", "[report] log must be a list of tags"),
        (SUITE + "[report]\nmargin = 'x'\n", "[report] margin must be a share"),
        (SUITE + "[report]\nmargin = -1\n", "above 0, not -1"),
        *(
            (SUITE + f"[sensitivity]\nfactors = [2]\n{text}\n", says)
            for text, says in (
                ("vary = 3", "[sensitivity] vary must be a table"),
                ("lacking = 5\nvary = {{}}", "lacking must be a list of flags"),
                ("vary.fake.flags = 5", "vary.fake flags must be a list of flags"),
                ("vary.fake.flags = 'gamma'", "vary.fake flags must be a list of flags"),
                ("vary.fake.values = 5", "vary.fake values must be a table"),
                ("vary.fake.values.x = 5", "values.x must be a list of numbers"),
            )
        ),
        (
            SUITE + "[algorithms.'fa:ke']\nscript = '{script}'\n"
            "[algorithms.fa_ke]\nscript = '{script}'\n",
            "fa:ke on CartPole-v1 and fa_ke on CartPole-v1 would share CartPole-v1__fa_ke__1",
        ),
    ],
)
def test_malformed_suite_is_named_with_its_place(suite, tmp_path, text, says):
    path = suite(text=text)
    with pytest.raises(BadInput) as error:
        make_jobs(load_suite(str(path)), tmp_path)
    assert says in str(error.value)
    later = (
        "there are no seeds",
        "no environment",
        "must not give",
        "would share",
    )  # seen only when the grid is made
    assert str(path) in str(error.value) or any(words in says for words in later)


def test_gpus_are_those_of_an_inherited_list(suite, tmp_path, monkeypatch, capsys):
    words = ["run", str(suite()), "--dir", str(tmp_path / "runs"), "--runs-per-gpu", "2"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    args = program.parse_args([*words, "--gpus", "0-2,1"])
    assert (args.gpus, args.workers, args.extra) == (["0", "1", "2"], 6, ("--device", "cuda"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-x,7")
    args = program.parse_args([*words, "--gpus", "2,1", "--", "--device=cpu"])
    assert (args.gpus, args.extra) == (["7", "GPU-x"], ("--device=cpu",))
    args = program.parse_args(["run", "x", "--executor", "ray", "--runs-per-gpu", "2"])
    assert args.extra == ("--device", "cuda")
    with pytest.raises(BadInput, match="--gpus 3: CUDA_VISIBLE_DEVICES=5,GPU-x,7 leaves 3,"):
        program.parse_args([*words, "--gpus", "3"])
    assert program.main([*words, "--gpus", "0,2", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = [line.partition(" && ")[2].split()[0].partition("=") for line in lines]
    assert starts == [("CUDA_VISIBLE_DEVICES", "=", gpu) for gpu in ("5", "7", "5", "7")]
    assert all(" --device cuda " in line for line in lines)


def test_the_folder_says_what_was_ever_asked_for(suite, tmp_path):
    words = ["run", str(suite()), "--dir", str(tmp_path / "runs"), "--environments"]
    path = tmp_path / "runs" / "grid.json"
    assert program.main([*words, "Acrobot-v1", "--dry-run"]) == 0
    assert not path.parent.exists()
    assert program.main([*words, "Acrobot-v1", "--seeds", "1-2"]) == 0
    assert program.main([*words, "CartPole-v1", "--seeds", "7"]) == 0
    assert len(list(tmp_path.glob("runs/*/run"))) == 3
    assert json.loads(path.read_text()) == {
        "Acrobot-v1__fake__1": {"algorithm": "fake", "env_id": "Acrobot-v1", "seed": 1},
        "Acrobot-v1__fake__2": {"algorithm": "fake", "env_id": "Acrobot-v1", "seed": 2},
        "CartPole-v1__fake__7": {"algorithm": "fake", "env_id": "CartPole-v1", "seed": 7},
    }
    path.write_text("damaged")
    assert program.main([*words, "CartPole-v1", "--seeds", "7"]) == 0
    assert list(json.loads(path.read_text())) == ["CartPole-v1__fake__7"]


def test_dry_run_prints_commands_and_leaves_nothing(suite, tmp_path):
    result = benchmark(
        "run", suite(), "--dir", tmp_path / "runs", "--dry-run", "--", "--eval-episodes", "3"
    )
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    assert len(lines) == 4
    assert all("--eval-episodes 3 --run-dir" in line for line in lines)
    assert not (tmp_path / "runs").exists()


# ==============================================================================================
# One job: what a script may do
# ==============================================================================================
@pytest.mark.parametrize(
    ("behaviour", "status", "reason", "starts"),
    [
        ("ok", "done", "", ["start"]),
        ("crash", "failed", "exit status 1", ["start", "start"]),
        ("refuse", "failed", "exit status 2", ["start"]),  # bad input stays bad
        ("killed", "failed", "killed by SIGKILL", ["start", "resume"]),
        (
            "no-summary",
            "failed",
            NO_SUMMARY,
            ["start", "resume"],
        ),
        ("nan", "failed", NO_SUMMARY, ["start", "resume"]),
        ("flaky", "done", "", ["start", "resume"]),
        ("no-checkpoint", "done", "", ["start", "start"]),
    ],
)
def test_outcomes(suite, tmp_path, behaviour, status, reason, starts):
    job = one_job(suite(behaviour), tmp_path)
    record = run_one(job, retries=1)
    assert (record["status"], record["reason"]) == (status, reason)
    assert history(job) == starts
    assert json.loads((job.directory / "job.json").read_text())["status"] == status
    assert (job.directory / "log.txt").read_text().count("$ ") == len(starts)


def late_once(monkeypatch, condition) -> None:
    """Let the pool's clock leap by 1000 seconds, again and again, once the condition holds."""
    leaps = itertools.count(1000, 1000)
    clock = SimpleNamespace(monotonic=lambda: next(leaps) if condition() else 0)
    monkeypatch.setattr(pool, "time", clock)
    monkeypatch.setattr(pool, "GRACE", 0.2)


def test_a_hanging_script_and_its_children_are_ended(suite, tmp_path, monkeypatch):
    job, family = one_job(suite("hang"), tmp_path), []
    child = job.directory / "child.txt"

    def it_hangs() -> bool:
        if not family and child.exists() and child.read_text().endswith("\n"):
            family.extend([*pids(tmp_path), int(child.read_text())])
            assert all(map(is_alive, family))
        return bool(family)

    late_once(monkeypatch, it_hangs)
    record = run_one(job, retries=0, timeout=900)
    assert (record["status"], record["reason"]) == ("failed", "timed out after 900 s")
    wait_until(lambda: not any(map(is_alive, family)))


def test_a_script_that_hangs_after_its_summary_is_done(suite, tmp_path, monkeypatch):
    job = one_job(suite("hang-at-the-end"), tmp_path)
    late_once(monkeypatch, lambda: pool.has_summary(job))
    record = run_one(job, retries=0, timeout=900)
    assert (record["status"], record["attempts"]) == ("done", 1)


def test_a_summary_that_is_not_finite_is_made_again(suite, tmp_path):
    job = one_job(suite("flaky"), tmp_path)
    assert run_one(job)["status"] == "done"
    summary = job.run_dir / "summary.json"
    summary.write_text(summary.read_text().replace('"eval_return_mean": 1.0', '"x": Infinity'))
    assert run_one(job)["status"] == "done"
    assert history(job) == ["start", "resume", "resume"]


def test_the_record_counts_over_invocations(suite, tmp_path):
    job = one_job(suite("flaky"), tmp_path)
    assert run_one(job, retries=0)["status"] == "failed"
    assert run_one(job, retries=0)["status"] == "done"
    record = json.loads((job.directory / "job.json").read_text())
    assert (record["attempts"], record["resumes"]) == (2, 1)
    assert record["cpu"] == pool.cpu_model() != ""
    assert record["seconds"] >= 0


def test_a_job_that_cannot_be_claimed_does_not_end_the_grid(suite, tmp_path):
    jobs = make_jobs(load_suite(str(suite())), tmp_path, seeds=[1])
    jobs[0].directory.write_text("a file in its place")
    records = {}
    pool.run_local(jobs, lambda job, record, _: records.update({job.name: record}), workers=1)
    assert records[jobs[0].name] == {
        "status": "failed",
        "reason": "the benchmark could not begin: File exists",
    }
    assert records[jobs[1].name]["status"] == "done"


def test_finished_runs_are_left_alone_until_script_flags_or_versions_change(
    suite, tmp_path, monkeypatch
):
    job = one_job(suite(), tmp_path)
    assert run_one(job)["status"] == "done"
    assert run_one(job)["status"] == "finished"
    longer = make_jobs(
        load_suite(str(suite())), tmp_path, ["CartPole-v1"], seeds=[1], total_timesteps=300
    )[0]
    assert run_one(longer)["status"] == "done"
    assert (job.directory / "superseded-1" / "summary.json").exists()  # kept, not overwritten
    job.script.write_text(job.script.read_text() + "\n# changed\n")
    assert run_one(longer)["status"] == "done"
    assert (job.directory / "superseded-2").exists()
    monkeypatch.setattr(pool, "installed_version", lambda name: "0.0")
    assert run_one(longer)["status"] == "done"
    assert history(job) == ["start"] * 4


def test_what_would_supersede_runs_is_refused_shown_and_checked_first(
    suite, tmp_path, monkeypatch, capsys
):
    def try_to(*words: str) -> str:
        """What `run` says or, where it refuses, why."""
        words = ["run", str(suite()), "--dir", str(tmp_path / "runs"), *words]
        try:
            program.run(program.parse_args(words))
        except BadInput as error:
            return str(error)
        return capsys.readouterr().out

    assert "4 runs done" in try_to()
    shutil.rmtree(tmp_path / "runs" / "Acrobot-v1__fake__2" / "run")  # nothing to lose here
    refused = try_to("--", "--typo", "3")
    assert "3 of 4 runs in" in refused
    assert "flags: -- '--typo 3' instead of '': 3 runs" in refused
    assert "name another --dir, or set them aside and run anew with --replace" in refused
    refused = try_to("--steps", "300")
    assert "flags: total_timesteps 300 instead of 100: 2 runs; flags: total" in refused
    shown = try_to("--dry-run", "--steps", "300").splitlines()
    assert [line.partition("  #")[2] for line in shown] == [
        " supersedes a run: flags: total_timesteps 300 instead of 100",
        " supersedes a run: flags: total_timesteps 300 instead of 200",
        " supersedes a run: flags: total_timesteps 300 instead of 100",
        "",
    ]
    refused = try_to("--replace", "--", "--typo", "3")
    assert refused.startswith("fake_script.py: error: unrecognized arguments: --typo 3 (fake")
    assert not list(tmp_path.rglob("superseded-*")), "nothing was moved"
    assert "1 runs done, 3 had been done before" in try_to(), "nor made again"

    script = tmp_path / "fake_script.py"
    script.write_text(script.read_text() + "\n# changed\n")
    monkeypatch.setattr(pool, "installed_version", lambda name: "0.0")
    refused = try_to()
    assert "4 of 4 runs" in refused
    assert "script: 4 runs" in refused
    assert "versions: numpy 0.0 instead of" in refused
    (tmp_path / "runs" / "Acrobot-v1__fake__1" / "run" / "summary.json").unlink()
    assert "4 of 4 runs" in try_to(), "a half-finished run is worth as much"
    assert "4 runs done, 0 had been done" in try_to("--replace", "--", "--eval-episodes", "5")
    assert len(list(tmp_path.rglob("superseded-1"))) == 4


def test_flags_are_checked_once_each_without_a_start(suite, tmp_path, monkeypatch):
    jobs = make_jobs(load_suite(str(suite())), tmp_path / "runs")
    started, real = [], subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda words, **how: started.append(0) or real(words, **how)
    )
    pool.check_flags(jobs)
    assert len(started) == 2, "one for each length, whatever the seed"
    assert not list(tmp_path.rglob("history.txt"))
    (tmp_path / "fake_script.py").write_text("import no_such_module")
    with pytest.raises(BadInput, match="ModuleNotFoundError: No module named 'no_such_mod"):
        pool.check_flags(jobs)


BOX = """import dataclasses, tyro
@dataclasses.dataclass
class Args:
    learning_rate: float = 0.1
tyro.cli(Args)
"""


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--learning-rat", "3"], "Unrecognized options: --learning-rat, 3"),
        (["--learning-rate", "x" * 60], f"Error parsing --learning-rate: .* '{'x' * 9}.*x'"),
    ],
)
def test_of_a_box_the_cause_is_shown(words, cause):
    words = [sys.executable, "-c", BOX, *words]
    box = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE).stderr
    assert len(box.splitlines()) > 5
    (line,) = pool.ending(f"earlier\n{box}", 5)
    assert re.fullmatch(cause, line)
    assert pool.ending(f"{box}\nTraceback\n  later\n\n", 2) == ["Traceback", "  later"]
    assert pool.ending("", 5) == []


def test_a_finished_run_takes_on_the_suites_new_score_range_and_threshold(suite, tmp_path):
    assert run_one(one_job(suite(), tmp_path))["status"] == "done"
    text = SUITE.replace(
        "total_timesteps = 100",
        "total_timesteps = 100\nscore_range = [0, 9]\nscore_source = 'x'\nthreshold = 7",
    )
    job = one_job(suite(text=text), tmp_path)
    assert run_one(job)["status"] == "finished"
    record = json.loads((job.directory / "job.json").read_text())
    assert (record["score_range"], record["status"]) == ([0, 9], "done")
    assert record["threshold"] == 7


def test_half_finished_run_is_resumed_and_a_damaged_checkpoint_begins_anew(suite, tmp_path):
    job = one_job(suite("flaky"), tmp_path)
    assert run_one(job, retries=0)["status"] == "failed"
    (job.run_dir / "checkpoint.pt").write_text("damaged")
    assert run_one(job, retries=0)["status"] == "done"
    assert history(job) == ["start", "resume", "start"]
    assert (job.directory / "superseded-1" / "checkpoint.pt").read_text() == "damaged"


def test_full_disk_fails_the_run_and_not_the_benchmark(suite, tmp_path, monkeypatch):
    jobs = make_jobs(load_suite(str(suite())), tmp_path)
    real = pool.write_json

    def full(path, data):
        if "CartPole" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(pool, "write_json", full)
    records = {}
    pool.run_local(jobs, lambda job, record, _: records.update({job.name: record}), workers=2)
    assert [record["status"] for _, record in sorted(records.items())] == [
        "done",
        "done",
        "failed",
        "failed",
    ]
    reason = records["CartPole-v1__fake__1"]["reason"]
    assert reason == "the benchmark could not go on: No space left on device"


def test_gpus_are_shared_out(suite, tmp_path):
    jobs = make_jobs(
        load_suite(str(suite("wait"))), tmp_path, ["CartPole-v1"], seeds=list(range(6))
    )
    grid = threading.Thread(
        target=pool.run_local,
        args=(jobs, lambda *_: None, 4),
        kwargs={"gpus": ["0", "3"]},
    )
    grid.start()
    wait_until(lambda: len(list(tmp_path.glob("*/run/checkpoint.pt"))) == 4)
    used = [path.read_text().split()[2] for path in tmp_path.rglob("history.txt")]
    assert sorted(used) == [
        "0",
        "0",
        "3",
        "3",
    ]  # two at a time on each, and the other jobs wait
    (tmp_path / "go").touch()
    grid.join(PATIENCE)
    assert len(list(tmp_path.glob("*/run/summary.json"))) == 6


def test_the_record_names_the_card_that_a_run_had(suite, tmp_path, monkeypatch):
    """As nvidia-smi, here a stand-in, names it; and none for a run on the CPU."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\necho "Card $last"\necho "Card 9"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    names = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for words, gpus in (
        (("--device", "cuda"), ["3"]),
        (("--device=cuda",), ["3"]),
        (("--device", "cuda"), []),  # the script takes the first of all
        (("--device", "cpu"), ["3"]),
    ):
        folder = tmp_path / str(len(names))
        jobs = make_jobs(load_suite(str(suite())), folder, seeds=[1], extra=words)
        pool.run_local(jobs[:1], lambda *_: None, 1, gpus=gpus)
        names.append(json.loads((jobs[0].directory / "job.json").read_text())["gpu"])
    assert names == ["Card 3", "Card 3", "Card --format=csv,noheader", ""]
    program.unlink()
    assert pool.gpu_model("3") == "" or shutil.which("nvidia-smi")


# ==============================================================================================
# The whole program
# ==============================================================================================
def test_a_job_counts_as_its_processes(suite, tmp_path, monkeypatch):
    """Those of --num-workers, or of the script's default; no more run at a time than there are
    workers, nor fewer than could."""
    script = tmp_path / "several.py"
    script.write_text("class Args:\n    num_workers: int = 2  # processes\n")
    job = make_jobs(load_suite(str(suite())), tmp_path / "runs", seeds=[1])[0]
    several = replace(job, script=script)
    assert job.processes() == 1
    assert several.processes() == 2
    assert replace(several, flags={"num_workers": 3}).processes() == 3
    assert (
        replace(several, flags={"num_workers": 3}, extra=("--num-workers", "4")).processes()
        == 4
    )

    now, most, begun, lock = 0, 0, [], threading.Lock()

    def run_job(job, **_):
        nonlocal now, most
        n = min(job.processes(), 3)
        with lock:
            now, most = now + n, max(most, now + n)
            begun.append(job.name)
        time.sleep(0.05)
        with lock:
            now -= n
        return {"status": "done"}

    monkeypatch.setattr(pool, "run_job", run_job)
    jobs = [
        replace(several, flags={"num_workers": n}, directory=tmp_path / "runs" / f"{i}-{n}")
        for i, n in enumerate([2, 2, 1, 9, 1, 1, 2, 1, 3])
    ]
    records = []
    pool.run_local(
        jobs, lambda job, record, _: records.append((job.name, record["status"])), workers=3
    )
    assert sorted(records) == sorted((job.name, "done") for job in jobs)
    assert sorted(begun) == sorted(job.name for job in jobs)
    assert most == 3


def test_failures_are_listed_with_their_log_and_status_1(suite, tmp_path, capsys):
    words = ["run", str(suite("crash")), "--dir", str(tmp_path / "runs"), "--seeds", "1"]
    assert program.main([*words, "--retries", "0"]) == 1
    output = capsys.readouterr().out
    assert "0 runs done, 0 had been done before, 2 failed" in output
    assert output.count("Traceback: it crashed at once") == 2


@pytest.mark.parametrize(
    ("processes", "seconds"), [(1, (45, 85, 93)), (3, (135, 255, 280)), (9, (180, 340, 373))]
)
def test_the_time_left_is_shared_by_the_workers(
    processes, seconds, suite, tmp_path, monkeypatch, capsys
):
    """And a run of several processes takes several, but no more than there are."""

    def run_local(jobs, on_done, workers, gpus, **limits):
        assert (workers, limits["retries"]) == (4, 1)
        on_done(jobs[0], {"status": "finished"}, workers)
        for job, spent in zip(jobs[1:], (10.0, 30.0, 30.0), strict=False):
            on_done(job, {"status": "done", "seconds": spent}, workers)

    monkeypatch.setattr(pool, "run_local", run_local)
    monkeypatch.setattr(grid.Job, "processes", lambda job: processes)
    words = ["run", str(suite()), "--dir", str(tmp_path), "--workers", "4", "--seeds", "1-10"]
    assert program.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    left = ["", *(f"about {n} s left" for n in seconds)]
    assert [line.partition("; ")[2] for line in lines[:4]] == left  # 18 * 10 / 4 and so on


def test_a_script_that_meets_a_full_disk(suite, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = benchmark(
        "run", suite("big"), "--dir", tmp_path / "runs", "--seeds", "1", preexec_fn=limit
    )
    assert result.returncode == 1
    assert "File too large" in result.stdout
    assert "2 failed" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_running_and_goes_on_later(
    suite, tmp_path, start, number
):
    directory = tmp_path / "runs"
    process = start("run", suite("wait"), "--dir", directory, "--workers", "2")
    wait_until(lambda: len(list(directory.glob("*/run/checkpoint.pt"))) == 2)
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert not any(is_alive(pid) for pid in pids(directory))
    (directory / "go").touch()
    result = benchmark("run", suite("wait"), "--dir", directory)
    assert result.returncode == 0, result.stdout
    histories = [path.read_text() for path in directory.rglob("history.txt")]
    assert sorted(text.count("resume") for text in histories) == [0, 0, 1, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="rests on PR_SET_PDEATHSIG")
def test_killed_outright_it_leaves_nothing_running(suite, tmp_path, start):
    directory = tmp_path / "runs"
    process = start("run", suite("wait"), "--dir", directory, "--workers", "2")
    wait_until(lambda: len(list(directory.glob("*/run/checkpoint.pt"))) == 2)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(is_alive(pid) for pid in pids(directory)))


def test_two_writers_of_one_file_both_come_through(tmp_path, monkeypatch):
    """A second one writes while the first has written half of it: two reports at once."""
    path, second = tmp_path / "report.md", threading.Thread()

    def fsync(_) -> None:
        nonlocal second
        if second.ident is None:
            second = threading.Thread(target=files.write_atomically, args=(path, b"second"))
            second.start()
            second.join()
            assert path.read_bytes() == b"second"

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_atomically(path, b"first")
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]


def test_two_invocations_do_no_job_twice(suite, tmp_path, start):
    directory = tmp_path / "runs"
    words = ("run", suite("wait"), "--dir", directory, "--workers", "2")
    both = [start(*words), start(*words)]
    wait_until(
        lambda: len(list(directory.glob("*/run/checkpoint.pt"))) == 4
    )  # each is at two jobs
    (directory / "go").touch()
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [len(path.read_text().splitlines()) for path in directory.rglob("history.txt")] == [
        1
    ] * 4
    assert "left to the invocation that is at them" in "".join(outputs)


def test_what_runs_is_shown_with_its_steps_and_return(suite, tmp_path, monkeypatch, capsys):
    jobs = make_jobs(load_suite(str(suite("wait"))), tmp_path / "runs", seeds=[1, 2])
    shown, show = [], pool.show

    def look(running):
        show(running)
        shown.append(capsys.readouterr().out)
        if shown[-1].count("step 81,920") == 2:
            (tmp_path / "runs" / "go").touch()

    monkeypatch.setattr(pool, "SHOW", 0.05)
    monkeypatch.setattr(pool, "show", look)
    pool.run_local(jobs, lambda *_: None, workers=2)
    assert "  CartPole-v1__fake__1: step 81,920, return 1.5, 100 steps/s\n" in "".join(shown)
    assert all(pool.has_summary(job) for job in jobs)
