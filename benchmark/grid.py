"""From a suite (a TOML file) to the grid of jobs that it stands for."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path

import gymnasium as gym

from .variants import add_variants
from .words import BadInput, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent  # the folder that the scripts lie in
SUITES = Path(__file__).resolve().parent / "suites"
ENVIRONMENT_FLAGS = ("env-id", "task")  # what a script may call what it trains on
RESERVED = (*ENVIRONMENT_FLAGS, "seed", "run-dir", "resume")  # what the benchmark gives itself


@dataclass(frozen=True)
class Job:
    """One run to make: one script on one environment with one seed."""

    algorithm: str
    script: Path
    env_id: str
    seed: int
    flags: dict  # name as in the script's Args -> value
    extra: tuple[str, ...]  # words for the script as the user gave them, after all other flags
    score_range: list[float] | None  # the returns that count as 0 and 1 in averages
    directory: Path  # where the job's record, log and run directory go
    environment_flag: str = "env-id"  # what the script calls env_id
    threshold: float | None = None  # the return that counts as solved, if not Gymnasium's
    folder: Path | None = None  # of a TOML file of the user's, where the run starts

    def variables(self) -> dict[str, str]:
        """What the script's environment must have."""
        paths = [str(self.folder), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths))} if self.folder else {}

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    def words(self) -> list[str]:
        """The flags as the script's command line takes them, without --run-dir."""
        words = [f"--{self.environment_flag}", self.env_id, "--seed", str(self.seed)]
        for name, value in self.flags.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", str(value)]
        return [*words, *self.extra]

    def processes(self) -> int:
        """How many processes learn in it, each on a core: --num-workers where the script has
        that flag, or 1."""
        text = self.script.read_text(encoding="utf-8")
        numbers = re.findall(r"(?m)^    num_workers: int = (\d+)", text)
        numbers += [value for flag, value in pairwise(self.words()) if flag == "--num-workers"]
        return int(numbers[-1]) if numbers and numbers[-1].isdecimal() else 1


def parse_numbers(text: str, flag: str = "--seeds") -> list[int]:
    """'1-5,8' -> [1, 2, 3, 4, 5, 8]."""
    numbers = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and (not last.isdecimal() or int(last) < int(first))):
            what = f"{part!r} is neither a whole number nor a range like 1-5"
            raise BadInput(f"{flag} {text}: {what}")
        numbers += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(numbers))


def parse_gpus(text: str, visible: str | None) -> list[str]:
    """'0,2-3' -> ['0', '2', '3'], or the GPUs that stand there in `visible`, an inherited
    CUDA_VISIBLE_DEVICES."""
    gpus = parse_numbers(text, "--gpus")
    if visible is None:
        return [str(gpu) for gpu in gpus]
    names = list(filter(None, visible.split(",")))
    if max(gpus) >= len(names):
        what = f"CUDA_VISIBLE_DEVICES={visible} leaves {len(names)}, counted from 0"
        raise BadInput(f"--gpus {text}: {what}")
    return [names[i] for i in gpus]


def read_suite(name: str) -> tuple[dict, Path]:
    """What the suite called `name` in suites/, or the TOML file at that path, says, and its
    path.

    Raises BadInput naming the file, and the line where the file is no TOML.
    """
    path = Path(name) if name.endswith(".toml") else SUITES / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), path
    except FileNotFoundError:
        hint = did_you_mean(name, [p.stem for p in SUITES.glob("*.toml")])
        raise BadInput(f"there is no suite {name}; {hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from None


def named_suites(name: str) -> list[str]:
    """The suites that a suite of suites names; none where it is an ordinary one."""
    suite, path = read_suite(name)
    names = suite.get("suites", [])
    if not isinstance(names, list) or not all(isinstance(x, str) for x in names):
        raise BadInput(f"{path}: suites must be a list of names")
    if names and suite.keys() != {"suites"}:
        raise BadInput(f"{path}: beside suites there is nothing else in a suite of suites")
    return [str(path.parent / x) if x.endswith(".toml") else x for x in names]


def load_suite(name: str) -> dict:
    """The suite of that name or path, with its structure checked, and the folder of a TOML
    file. Raises BadInput where something is wrong with it."""
    suite, path = read_suite(name)
    if "suites" in suite:
        raise BadInput(f"{path} is a suite of suites, which is for run alone")
    check_suite(suite, path)
    name_scripts(suite, path)
    if "sensitivity" in suite:
        entries = suite["algorithms"].items()
        add_variants(
            suite, {x: find_script(table["script"], path.parent) for x, table in entries}
        )
    return suite | ({"folder": path.resolve().parent} if name.endswith(".toml") else {})


def name_scripts(suite: dict, path: Path) -> None:
    """In place of the entry "*": every script beside benchmark/ that no other names, on its
    default environment."""
    if "*" not in suite["algorithms"]:
        return
    algorithms = suite["algorithms"]
    shared, named = algorithms.pop("*"), {table["script"] for table in algorithms.values()}
    for file in sorted(ROOT.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        default = re.search(r'(?m)^    (?:env_id|task): str = "(.+?)"', text)
        if default and file.name not in named:
            if default[1] not in suite["environments"]:
                what = (
                    f"the default environment of {file.name}, {default[1]}, is not in the suite"
                )
                how = "add it, or name the script with only = [...]"
                raise BadInput(f"{path}: {what}; {how}")
            algorithms[file.stem] = shared | {"script": file.name, "only": [default[1]]}


def find_script(name: str, folder: Path) -> Path:
    """The script of that name in the suite's folder, or else in that of the scripts."""
    beside = folder / name
    return (beside if beside.is_file() else ROOT / name).resolve()


def find_path(name: str) -> Path:
    """The script of a command line: a path, here or beside benchmark/, or a name there."""
    for path in (Path(name), ROOT / name, ROOT / f"{name}.py"):
        if path.is_file():
            return path.resolve()
    hint = did_you_mean(name, [path.stem for path in ROOT.glob("*.py")])
    raise BadInput(f"there is no script {name}; {hint}")


def parse_flags(words: Sequence[str]) -> dict[str, bool | str]:
    """['--gamma', '0.9', '--no-anneal-lr', '--norm-adv'] -> flags as a suite has them."""
    refuse_reserved_words(words)
    flags: dict[str, bool | str] = {}
    unvalued = ""  # the flag before, if it may still get a value
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name, unvalued = name.replace("-", "_"), ""
            if equals:
                flags[name] = value
            elif name.startswith("no_"):
                flags[name.removeprefix("no_")] = False
            else:
                flags[name], unvalued = True, name
        elif unvalued:
            flags[unvalued], unvalued = word, ""
        else:
            raise BadInput(f"what follows --: {word} belongs to no flag")
    return flags


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return type(value) in (int, float) and isfinite(value)


def is_word(value: object) -> bool:
    """Whether it is a string."""
    return isinstance(value, str)


def check_suite(suite: dict, path: Path) -> None:
    """Refuse keys that would be ignored and values that cannot work, naming the place."""

    def need(condition: object, message: str) -> None:
        if not condition:
            raise BadInput(f"{path}: {message}")

    def check_keys(table: object, place: str, required: set[str], optional: set[str]) -> None:
        need(isinstance(table, dict), f"{place} must be a table")
        for key in table:
            check_name(key, required | optional, f"{place} has an unknown key {key}")
        for key in sorted(required - table.keys()):
            need(False, f"{place} lacks {key}")

    def check_flags(flags: object, place: str) -> None:
        need(isinstance(flags, dict), f"{place} must be a table")
        good = all(isinstance(value, (bool, int, float, str)) for value in flags.values())
        need(good, f"{place} must be numbers, words or true/false")

    def check_name(name: object, names: Iterable[str], message: str) -> None:
        need(name in list(names), f"{message}; {did_you_mean(str(name), list(names))}")

    def check_list(values: object, is_good: Callable, message: str) -> None:
        need(isinstance(values, list) and all(map(is_good, values)), message)

    def check_seeds(seeds: object, place: str) -> None:
        whole = isinstance(seeds, list) and all(type(x) is int and x >= 0 for x in seeds)
        good = whole and len(set(seeds)) == len(seeds)
        need(good, f"{place} must be a list of different whole numbers")

    def check_environment_table(table: object, place: str) -> None:
        optional = {"score_range", "score_source", "flag", "flags", "threshold", "seeds"}
        check_keys(table, place, {"total_timesteps"}, optional)
        check_seeds(table.get("seeds", []), f"{place} seeds")
        check_flags(table.get("flags", {}), f"{place} flags")
        steps, ends = table["total_timesteps"], table.get("score_range", [0, 1])
        what = f"must be a positive whole number, not {steps}"
        need(type(steps) is int and steps > 0, f"{place} total_timesteps {what}")
        two = isinstance(ends, list) and len(ends) == 2
        good = two and all(map(is_number, ends)) and ends[0] < ends[1]
        need(good, f"{place} score_range must be two rising numbers, not {ends}")
        sourced = "score_range" not in table or table.get("score_source")
        need(sourced, f"{place} gives score_range no score_source")
        flag, threshold = table.get("flag", "env-id"), table.get("threshold", 0)
        what = f"must be {' or '.join(ENVIRONMENT_FLAGS)}, not {flag}"
        need(flag in ENVIRONMENT_FLAGS, f"{place} flag {what}")
        good = is_number(threshold)
        need(good, f"{place} threshold must be a number, not {threshold}")

    def check_algorithm_table(table: object, place: str) -> None:
        check_keys(table, place, {"script"}, {"only", "flags"})
        script, only = table["script"], table.get("only", [])
        found = isinstance(script, str) and find_script(script, path.parent).is_file()
        where = f"neither in {path.parent} nor in {ROOT}"
        need(found, f"{place} there is no script {script}, {where}")
        check_flags(table.get("flags", {}), f"{place} flags")
        need(isinstance(only, list), f"{place} only must be a list of environments")
        for env_id in only:
            what = f"{place} only names {env_id}, which is not in the suite"
            check_name(env_id, suite["environments"], what)

    def check_sensitivity(table: object) -> None:
        if table is None:
            return
        place = "[sensitivity]"
        check_keys(table, place, {"factors", "vary"}, {"lacking"})
        factors = table["factors"]
        check_list(factors, is_number, f"{place} factors must be a list of numbers")
        lacking = table.get("lacking", [])
        check_list(lacking, is_word, f"{place} lacking must be a list of flags")
        need(isinstance(table["vary"], dict), f"{place} vary must be a table")
        for algorithm, own in table["vary"].items():
            check_name(algorithm, suite["algorithms"], f"{place} is no algorithm of the suite")
            where = f"{place} vary.{algorithm}"
            check_keys(own, where, set(), {"flags", "values"})
            check_list(own.get("flags", []), is_word, f"{where} flags must be a list of flags")
            need(isinstance(own.get("values", {}), dict), f"{where} values must be a table")
            for flag, values in own.get("values", {}).items():
                what = f"{where} values.{flag} must be a list of numbers"
                check_list(values, is_number, what)

    required = {"seeds", "environments", "algorithms"}
    check_keys(suite, "the suite", required, {"tuned", "report", "sensitivity"})
    check_seeds(suite["seeds"], "seeds")
    report = suite.get("report", {})
    check_keys(report, "[report]", set(), {"log", "margin", "against"})
    check_list(report.get("log", []), is_word, "[report] log must be a list of tags")
    margin = report.get("margin", 1)
    what = f"[report] margin must be a share of the score_range above 0, not {margin}"
    need(is_number(margin) and margin > 0, what)
    for key in ("environments", "algorithms", "tuned"):
        need(isinstance(suite.get(key, {}), dict), f"{key} must be a table")
    for env_id, table in suite["environments"].items():
        check_environment_table(table, f"[environments.{env_id}]")
    for algorithm, table in suite["algorithms"].items():
        if algorithm == "*":
            check_keys(table, "[algorithms.*]", set(), {"flags"})
            check_flags(table.get("flags", {}), "[algorithms.*] flags")
        else:
            check_algorithm_table(table, f"[algorithms.{algorithm}]")
    if against := report.get("against"):
        check_name(against, suite["algorithms"], f"[report] against names {against}")
    check_sensitivity(suite.get("sensitivity"))
    for algorithm, tables in suite.get("tuned", {}).items():
        place = f"[tuned.{algorithm}]"
        check_name(algorithm, suite["algorithms"], f"{place} is no algorithm of the suite")
        need(isinstance(tables, dict), f"{place} must be a table")
        for env_id, flags in tables.items():
            place = f"[tuned.{algorithm}.{env_id}]"
            what = f"{place} is no environment of the suite"
            check_name(env_id, suite["environments"], what)
            check_flags(flags, place)
            named = flags.get("source")
            need(named, f"{place} must name the source of its values: source = '...'")


def check_environment(env_id: str, flag: str, tasks: list[str]) -> None:
    """Refuse an environment that Gymnasium does not know, or a task that the suite does not
    name; 'module:name' and 'MinAtar/name' are left to the script."""
    known = list(gym.registry) if flag == "env-id" else tasks
    if ":" not in env_id and not env_id.startswith("MinAtar/") and env_id not in known:
        what = "environment" if flag == "env-id" else "task"
        raise BadInput(f"there is no {what} {env_id}; {did_you_mean(env_id, known)}")


def refuse_reserved(names: Iterable[str], place: str) -> None:
    """Refuse flags that would override what the benchmark records of a run."""
    for name in names:
        if name.replace("_", "-") in RESERVED:
            what = f"{place} must not give {name}: the benchmark gives every run its own"
            raise BadInput(what)


def refuse_reserved_words(words: Iterable[str]) -> None:
    """Refuse such flags among words for the scripts."""
    flags = (word[2:].partition("=")[0] for word in words if word.startswith("--"))
    refuse_reserved(flags, "what follows --")


def make_jobs(
    suite: dict,
    directory: Path,
    environments: list[str] | None = None,
    algorithms: list[str] | None = None,
    seeds: list[int] | None = None,
    total_timesteps: int | None = None,
    extra: tuple[str, ...] = (),
) -> list[Job]:
    """The grid of a suite, with what the command line gave in place of the suite's own values.

    Seeds are the outermost loop, so that a grid cut short has few seeds of everything rather
    than all of a few.
    """
    for algorithm in algorithms or []:
        if algorithm not in suite["algorithms"]:
            hint = did_you_mean(algorithm, list(suite["algorithms"]))
            raise BadInput(f"there is no algorithm {algorithm} in this suite; {hint}")
    chosen = algorithms or list(suite["algorithms"])
    variants = [x for x in suite["algorithms"] if "=" in x and x.split(" ")[0] in chosen]
    refuse_reserved_words(extra)
    environments = environments or list(suite["environments"])
    own = {env_id: x.get("flag", "env-id") for env_id, x in suite["environments"].items()}
    common = "task" if set(own.values()) == {"task"} else "env-id"  # of what it lacks
    tasks = [name for name, flag in own.items() if flag == "task"]
    for env_id in environments:
        check_environment(env_id, own.get(env_id, common), tasks)
    several = {x: suite["environments"].get(x, {}) for x in environments}
    seeds_of = {
        env_id: table.get("seeds", suite["seeds"]) if seeds is None else seeds
        for env_id, table in several.items()
    }
    seeds = list(dict.fromkeys(seed for some in seeds_of.values() for seed in some))
    if not seeds:
        raise BadInput("there are no seeds, so nothing would run; name some with --seeds 1-5")

    jobs = []
    for seed in seeds:
        for env_id, environment in several.items():
            if seed not in seeds_of[env_id]:
                continue
            steps = total_timesteps or environment.get("total_timesteps")
            if steps is None:
                what = f"{env_id} is not in the suite, so its length is unknown; give --steps"
                raise BadInput(what)
            for algorithm in dict.fromkeys([*chosen, *variants]):
                entry = suite["algorithms"][algorithm]
                if env_id not in entry.get("only", [env_id]):
                    continue
                tuned = dict(suite.get("tuned", {}).get(algorithm, {}).get(env_id, {}))
                tuned.pop("source", None)
                flags = {"total_timesteps": steps, "torch_threads": 1}
                flags |= environment.get("flags", {}) | entry.get("flags", {}) | tuned
                refuse_reserved(flags, f"the flags of {algorithm} on {env_id}")
                if total_timesteps:
                    flags["total_timesteps"] = total_timesteps
                flags = {
                    flag: x.replace("{seed}", str(seed)) if isinstance(x, str) else x
                    for flag, x in flags.items()
                }
                script = find_script(entry["script"], suite.get("folder", ROOT))
                place = directory / job_name(env_id, algorithm, seed)
                jobs.append(Job(
                    algorithm, script, env_id, seed, flags, extra,
                    environment.get("score_range"), place, own.get(env_id, common),
                    environment.get("threshold"), suite.get("folder"),
                ))  # fmt: skip
    if not jobs:
        what = "no algorithm of these takes any of these environments, so nothing would run"
        raise BadInput(what)
    first: dict[Path, Job] = {}
    for job in jobs:
        if (other := first.setdefault(job.directory, job)) is not job:
            both = (f"{x.algorithm} on {x.env_id}" for x in (other, job))
            raise BadInput(f"{' and '.join(both)} would share {job.name}; rename one")
    return jobs


def job_name(env_id: str, algorithm: str, seed: int) -> str:
    """What a job's directory is called."""
    return f"{env_id}__{algorithm}__{seed}".replace("/", "_").replace(":", "_")
