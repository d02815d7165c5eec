"""The recipes of USAGE.md and README.md, tried as they are written, but on shorter runs."""

import importlib.metadata
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from helpers import PATIENCE, ROOT, checkpoint_of, module, networks, scalars, small, summary_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TEXT = (ROOT / "USAGE.md").read_text()
README = (ROOT / "README.md").read_text()
# What makes a run short: the steps are enough for an iteration of each script.
SHORT = "--total-timesteps 1100 --eval-episodes 1"


def section(heading: str) -> str:
    (text,) = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
    return text


def code_of(text: str) -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def blocks(heading: str, changes: dict[str, str] | None = None) -> list[str]:
    """The code of a section, with what the test changes, without the lines that install
    packages. If such a package is not here, the test skips."""
    found = code_of(section(heading))
    for old, new in (changes or {}).items():
        assert any(old in code for code in found), old
        found = [code.replace(old, new) for code in found]
    installed = {canonicalize_name(d.name) for d in importlib.metadata.distributions()}
    for line in re.findall(r"^pip install (.*)$", "\n".join(found), re.MULTILINE):
        for word in shlex.split(line):
            name = (
                not word.startswith("-")
                and not word.endswith(".txt")
                and Requirement(word).name
            )
            if name and canonicalize_name(name) not in installed:
                pytest.skip(f"{name} is not installed")
    return [re.sub(r"^pip install .*\n", "", code, flags=re.MULTILINE) for code in found]


def newcomers(folder: Path) -> Path:
    """A folder with the scripts and the examples."""
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return newcomers(tmp_path)


def with_path(**variables: str) -> dict[str, str]:
    """Environment variables with which `python` is this one."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path} | variables


def run(folder: Path, code: str, status: int = 0, **variables: str) -> str:
    """Run the lines in a folder, in a shell or, if they begin with an import, in Python; what
    they print."""
    python = code.startswith(("import ", "from "))
    words = [sys.executable, "-c"] if python else ["bash", "-euo", "pipefail", "-c"]
    result = subprocess.run(
        [*words, code], cwd=folder, env=with_path(**variables),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == status, result.stderr
    return result.stdout


def logits_of(actor: dict[str, torch.Tensor], obs: np.ndarray) -> np.ndarray:
    """The outputs of a trained network of tanh units, by its weights alone."""
    *hidden, last = zip(*[iter(actor.values())] * 2, strict=True)
    for weight, bias in hidden:
        obs = np.tanh(weight.numpy() @ obs + bias.numpy())
    return last[0].numpy() @ obs + last[1].numpy()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = newcomers(tmp_path_factory.mktemp("trained"))
    run(folder, f"python ppo.py --env-id Acrobot-v1 --run-dir runs/acrobot {SHORT}")
    return folder


@pytest.fixture
def acrobot(trained, tmp_path) -> Path:
    """A copy of a folder with the run runs/acrobot, which several recipes use."""
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


def test_every_section_with_code_has_a_test():
    """Which takes its code from there; Install's is what this environment was made with."""
    taken = re.findall(r'blocks\(\s*"(.*?)"', Path(__file__).read_text())
    for heading in re.findall(r"^## (.*)$", TEXT, re.MULTILINE):
        if "```" in section(heading) and heading != "Install":
            assert heading in taken, heading


def test_the_wheel_without_a_gpu_is_the_version_of_the_requirements():
    _, code = code_of(section("Install"))
    assert code.split()[2] in (ROOT / "requirements.txt").read_text().splitlines()


def test_from_python_and_the_same_in_the_readme(folder):
    (code,) = blocks("From Python", {"300_000": "1_100", "400_000": "2_100"})
    shown = run(folder, code + "print(summary['global_step'], summary['env_id'])")
    assert shown.splitlines()[-1] == "2048 Acrobot-v1"  # two batches of 1,024
    (written,) = blocks("From Python")
    assert written in [re.sub(" *#.*", "", code) for code in code_of(README)]


def test_extras_are_gymnasiums():
    known = importlib.metadata.metadata("gymnasium").get_all("Provides-Extra")
    named = re.findall(r"gymnasium\[([\w-]+)\]", TEXT + README)
    assert {"box2d", "classic-control", "mujoco"} <= set(named) <= set(known)


def test_the_first_lines_of_the_readme(folder):
    """As they are: the run solves CartPole-v1, that is a return of at least 475."""
    first, *_ = code_of(README)
    (line,) = [line for line in first.splitlines() if "pip install" not in line]
    run(folder, line)
    (path,) = folder.glob("runs/*/summary.json")
    summary = json.loads(path.read_text())
    assert summary["env_id"] == "CartPole-v1"
    assert summary["eval_return_mean"] >= 475


def test_what_the_next_rung_adds_is_shown(folder):
    """diff ends with status 1 if files differ."""
    (code,) = [code for code in code_of(README) if code.startswith("diff")]
    lines = [line.partition("#")[0] for line in code.splitlines()]
    for line, added in zip(lines, ["+def ppo_loss(", "+def grpo_loss("], strict=True):
        assert f"\n{added}" in run(folder, line, status=1)


def test_tensorboard_shows_a_run(trained):
    """Its server names the tags that the text names."""
    (code,) = blocks("The run directory")
    words = [*shlex.split(code), "--port", "0", "--load_fast", "false"]
    with subprocess.Popen(
        words, cwd=trained, env=with_path(), stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            addresses = (re.search(r"http://[^ /]+", line) for line in server.stderr)
            address = next(filter(None, addresses))[0]
            tags, deadline = {}, time.monotonic() + PATIENCE
            while "acrobot" not in tags and time.monotonic() < deadline:
                with urlopen(f"{address}/data/plugin/scalars/tags", timeout=PATIENCE) as page:
                    tags = json.load(page)
        finally:
            server.terminate()
    assert {"charts/SPS", "losses/policy_loss", "eval/episodic_return"} <= set(tags["acrobot"])


def test_a_run_is_resumed_and_leaves_the_files_of_the_table(acrobot):
    (code,) = blocks("Stop and resume", {"400000": "5200"})  # episodes end after 500
    run(acrobot, code)
    assert summary_of(acrobot / "runs/acrobot")["global_step"] == 5120  # five batches
    names = re.findall(r"^\| `(.*?)` \|", section("The run directory"), re.MULTILINE)
    patterns = [re.sub("<.*>", "*", name) for name in names]
    files = [path.name for path in (acrobot / "runs/acrobot").iterdir()]
    assert all(any(fnmatch(file, name) for name in patterns) for file in files), files
    missing = [name for name in patterns if not any(fnmatch(file, name) for file in files)]
    assert missing == ["samples.txt"]  # a language model's
    tags = set(scalars(acrobot / "runs/acrobot"))
    for tag in re.findall(r"`([a-zS]+/[\w*]+)`", section("The run directory")):
        assert any(fnmatch(found, tag) for found in tags), tag


def other(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float) or value is None:
        return 0.3 if value == 0.5 else 0.5
    return {"Acrobot-v1": "CartPole-v1", "{}": '{"a": 1}', "cpu": "cuda"}[value]


def test_the_flags_that_may_change_are_those_that_the_script_accepts(acrobot):
    _, _, text = section("Stop and resume").partition("These flags may change")
    named = set(re.findall(r"`--([\w-]+)`", text.partition("\n\n")[0]))
    ppo, refused = module("ppo"), set()
    own = ppo.check_args(ppo.Args(resume=acrobot / "runs/acrobot"))
    names = {field.name for field in fields(own)} - {"run_dir", "resume"}
    for name in names:
        with suppress(ppo.BadInput):
            ppo.check_args(replace(own, **{name: other(getattr(own, name))}))
            continue
        refused.add(name)
    assert named == {name.replace("_", "-") for name in names - refused}


def test_a_window_is_opened_and_a_film_is_written(acrobot):
    watch, film = blocks("Watch or film an agent")
    assert "return -" in run(acrobot, film)
    (file,) = (acrobot / "videos").iterdir()
    assert file.suffix == ".mp4"
    assert file.stat().st_size > 10_000
    run(acrobot, f"python ppo.py --run-dir runs/cartpole {SHORT}")  # short episodes
    watch = watch.replace("runs/acrobot", "runs/cartpole")
    assert "return " in run(acrobot, watch, SDL_VIDEODRIVER="dummy")
    run(acrobot, watch, status=1, SDL_VIDEODRIVER="none")  # no window without a screen


def test_what_cannot_be_loaded_is_said_in_one_line(acrobot):
    """A folder without a run, a run whose script is not here, and an environment that cannot
    be drawn."""
    run(acrobot, f"python ppo.py --env-id examples.match:Match-v0 --run-dir runs/match {SHORT}")
    (acrobot / "sac.py").rename(acrobot / "mine.py")
    short = SHORT + " --learning-starts 500"
    run(acrobot, f"python mine.py --run-dir runs/mine {short}")
    (acrobot / "mine.py").unlink()
    for name, words in {
        "none": "runs/none is not the directory of a run",
        "mine": "runs/mine needs mine.py here",
        "match": "render_mode",
    }.items():
        shown = run(acrobot, f"python -m examples.watch runs/{name} 2>&1", status=1)
        assert re.fullmatch(f"error: .*{words}.*\n", shown)


@pytest.mark.parametrize("script", ["ppo", "ppo_images", "sac", "trpo_continuous"])
def test_an_agent_that_is_loaded_is_the_one_that_was_evaluated(script, tmp_path):
    """One episode from the evaluation's seed: the same return."""
    watch = pytest.importorskip("examples.watch")
    found = module(script)
    flags = small(script) | {"total_timesteps": 600, "eval_episodes": 1}
    args = found.Args(run_dir=tmp_path / "run", **flags)
    summary = found.train(args)
    env, actor = watch.load(tmp_path / "run")
    (seed,) = np.random.SeedSequence(args.seed, spawn_key=(1,)).generate_state(1)
    (obs, _), total, ended = env.reset(seed=int(seed) // 2), 0.0, False  # below 2^31
    while not ended:
        action = actor(torch.as_tensor(obs, dtype=torch.float32)).mode.detach().numpy()[()]
        obs, reward, terminated, truncated, _ = env.step(action)
        total, ended = total + reward, terminated or truncated
    env.close()
    assert total == pytest.approx(summary["eval_return_mean"], rel=1e-6)


def test_an_agent_in_another_program(acrobot):
    (code,) = blocks("Use an agent in another program")
    """It takes the trained network's most probable action."""
    shown = run(acrobot, code + "env.step(action); print(action, *obs)")
    action, *obs = map(float, shown.split())
    logits = logits_of(checkpoint_of(acrobot / "runs/acrobot")["actor"], np.array(obs))
    assert action == logits.argmax()


def test_a_robot(acrobot):
    """Alone in a folder, the exported files act as the trained network does."""
    export, onnx, torchscript = blocks("A robot, or any program without Gymnasium")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    assert "0:6 obs" in run(acrobot, export)
    robot = acrobot / "robot"
    (robot / "runs/acrobot").mkdir(parents=True)
    for path in (acrobot / "runs/acrobot").glob("policy.*"):
        shutil.copy(path, robot / "runs/acrobot")
    actor = checkpoint_of(acrobot / "runs/acrobot")["actor"]
    for obs in ([0, 1, 0, -1, 3, -8], [-1, 0, -1, 0, -6, 5]):
        for code in (onnx, torchscript):
            given = code.replace("np.zeros(6,", f"np.array({obs},")
            given = given.replace("torch.zeros(6)", f"torch.tensor({obs}).float()")
            assert given != code
            action = int(run(robot, given + "print(action.item())"))
            assert action == logits_of(actor, np.array(obs)).argmax()


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("ppo", ["logits", "value"]),
        ("trpo_continuous", ["mean", "value"]),
        ("sac", ["mean_and_log_std", "q1", "q2"]),
    ],
)
def test_another_network(script, names, tmp_path, monkeypatch):
    """Any module in the place of the text's names: it is trained and saved."""
    found, text = module(script), section("Another network")
    assert all(f"`self.{name}`" in text for name in names)

    def changed(network):
        class Changed(network):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                for name in {*names} & {*self._modules}:
                    old = getattr(self, name)
                    first, last = old[0].in_features, old[-1].out_features
                    new = torch.nn.Sequential(
                        torch.nn.LayerNorm(first), torch.nn.Linear(first, 5), torch.nn.SiLU(),
                        torch.nn.Linear(5, last),
                    )  # fmt: skip
                    setattr(self, name, new)

        return Changed

    monkeypatch.setattr(found, "Actor", changed(found.Actor))
    monkeypatch.setattr(found, "Critic", changed(found.Critic))
    saved, save = [], found.Run.save
    monkeypatch.setattr(found.Run, "save", lambda run: saved.append(networks(run)) or save(run))
    found.train(found.Args(run_dir=tmp_path / "run", total_timesteps=200, **small(script)))
    first, *_, last = saved
    weights = [
        (part, key) for part in first for key in first[part] if key.split(".")[0] in names
    ]
    assert len(weights) == 6 * len(names)
    assert all((first[part][key] != last[part][key]).any() for part, key in weights)


def test_images(folder):
    """MinAtar's and Atari's games, CarRacing-v3 and Minigrid; a film of the first."""
    pytest.importorskip("minigrid")
    short = {"--run-dir runs/breakout": "--run-dir runs/breakout --total-timesteps 2048"}
    short |= {"Asterix-v1": "Asterix-v1 --total-timesteps 2048 --eval-episodes 1"}
    cut = """--env-kwargs '{"max_num_frames_per_episode": 400}'"""
    short |= {"1e7": f"128 --eval-episodes 1 {cut}", "--num-envs 8": "--num-envs 1"}
    short |= {"--reward-clip inf\n": "--reward-clip inf --num-steps 16 --total-timesteps 16\n"}
    short |= {'"continuous": false': '"continuous": false, "max_episode_steps": 5'}
    film, games, car, grids = blocks("Images", short)
    for line in film.splitlines():
        run(folder, line)
    (file,) = (folder / "videos").iterdir()
    assert file.suffix == ".mp4"
    shown = "".join(run(folder, line) for line in re.split(r"\n(?=python)", games))
    shown += run(folder, car, SDL_VIDEODRIVER="dummy")
    (folder / "grids.py").write_text(grids)
    shown += run(folder, "python ppo_images.py --env-id grids:Grid-v0 --total-timesteps 2048")
    for size in ("10 x 10, 4", "84 x 84, 4", "96 x 96, 3", "7 x 7, 3"):
        assert f"images {size} channels (last)" in shown


def test_an_environment_of_ones_own(folder):
    world, code = blocks("An environment of your own")
    (folder / "my_world.py").write_text(world)
    walk, match = code.strip().splitlines()
    run(folder, f"{walk} --run-dir runs/walk --total-timesteps 20480")
    # Ten steps to the right: nine cost 0.01.
    assert summary_of(folder / "runs/walk")["eval_return_mean"] == pytest.approx(0.91)
    run(folder, f"{match} --run-dir runs/match {SHORT}")
    weights = [*checkpoint_of(folder / "runs/match")["actor"].values()]
    assert (weights[0].shape[1], len(weights[-1])) == (3, 27)  # 3 numbers; 3^3 actions


def test_multidiscrete_actions_are_numbered():
    """By counting: the last number changes first."""
    assert "as_discrete" in section("MultiDiscrete actions")
    match = pytest.importorskip("examples.match")
    env = match.as_discrete(match.Match(size=3))
    assert env.action_space == Discrete(27)
    for action, expected in enumerate(itertools.product(range(3), repeat=3)):
        obs, _ = env.reset(seed=action)
        _, reward, *_ = env.step(np.int64(action))
        assert reward == sum(x == y for x, y in zip(obs.tolist(), expected, strict=True))


def test_several_seeds_at_a_time(folder):
    (code,) = blocks("Several cores", {"seq 8": "seq 3", "ppo.py": f"ppo.py {SHORT}"})
    assert "xargs -P 4 " in code  # four at a time
    run(folder, code)
    names = sorted(path.parent.name for path in folder.glob("runs/*/summary.json"))
    assert [name.split("__")[2] for name in names] == ["1", "2", "3"]


def test_values_reach_weights_and_biases(folder):
    pytest.importorskip("wandb", reason="wandb is not installed")
    (code,) = blocks("Weights & Biases", {"Args()": "Args(total_timesteps=2_000)"})
    run(folder, code, WANDB_MODE="offline")
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert b"charts/episodic_return" in log.read_bytes()


def test_tuned_flags_are_printed(folder):
    """Those of the suite, for each of its scripts."""
    leave_out = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / "benchmark", folder / "benchmark", ignore=leave_out)
    code, _ = blocks("Which flags for my environment?")
    lines = run(folder, code).splitlines()
    suite = (ROOT / "benchmark/suites/classic.toml").read_text()
    for script in ("reinforce", "a2c", "trpo", "ppo"):
        tuned = suite.partition(f"[tuned.{script}.LunarLander-v3]\n")[2].partition("\n[")[0]
        flags = re.findall(r"^(\w+) = ([\d._]+)$", tuned, re.MULTILINE)
        assert flags
        (line,) = [line for line in lines if f" {script}.py" in line.replace("/", " ")]
        for name, value in flags:
            assert float(re.search(rf"--{name.replace('_', '-')} (\S+)", line)[1]) == float(
                value
            )


def test_a_search_for_flags(folder):
    """On an environment that no suite has: one trial, and short runs."""
    leave_out = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / "benchmark", folder / "benchmark", ignore=leave_out)
    seeds = "--seeds 1000 --fresh-seeds 2000 -- --eval-episodes 1"
    short = {"--steps 20000 --trials 20": f"--steps 2048 --trials 1 {seeds}"}
    _, code = blocks("Which flags for my environment?", short)
    output = run(folder, code)
    assert "\npython ppo.py --env-id examples.match:Match-v0 --total-timesteps 2048" in output
    out = folder / "runs" / "benchmark" / "tune-ppo-examples.match_Match-v0"
    assert (out / "best.toml").exists()
    assert "P(tuned > default)" in (out / "report" / "report.md").read_text()


def test_the_addition_with_another_base_model(folder):
    """The second run starts from the base model of the first, bit for bit: another teacher,
    whom the test gives it, has no part in it."""
    changes = {".py": f".py {SHORT}", '{"base_model"': '{"carelessness": 0.9, "base_model"'}
    (code,) = blocks("The addition with another base model", changes)
    run(folder, code)
    first, second = (path.parent for path in sorted(folder.glob("runs/*/summary.json")))
    a, b = (checkpoint_of(path)["reference"] for path in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert summary_of(first)["base_exact_success"] > 0.6  # 0.42 if every second carry is lost


TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The folder of a tiny GPT-2 whose tokens are bytes."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp("model")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: k for k, letter in enumerate([*letters, "<end>"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", chat_template=TEMPLATE
    ).save_pretrained(path)
    torch.manual_seed(0)
    end = len(letters)
    config = transformers.GPT2Config(
        vocab_size=end + 1, n_positions=128, n_embd=16, n_layer=1, n_head=2,
        eos_token_id=end, bos_token_id=end,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return path


def test_a_hugging_face_model(folder, model):
    code, _ = blocks(
        "A Hugging Face model",
        {"PATH": str(model), "640": "32", "--log-interval": "--run-dir run --log-interval"},
    )
    run(folder, code)
    summary = summary_of(folder / "run")
    assert (summary["env_id"], summary["global_step"]) == ("examples.reviews:cheerful", 32)
    assert len((folder / "run/samples.txt").read_text().splitlines()) > 2


def test_the_path_of_smollm2_is_a_file():
    _, code = blocks("A Hugging Face model")
    assert Path(run(ROOT, code).strip()).stat().st_size > 1e7


@pytest.fixture
def brief(folder, model) -> Path:
    """The run runs/brief of the recipe, and its folder."""
    changes = {"640": "32", "length 12": "length 5 --learning-rate 0.01", "PATH": str(model)}
    task, code = blocks("A text task of your own", changes)
    (folder / "brief.py").write_text(task)
    run(folder, code)
    return folder


def test_a_text_task_of_ones_own(brief):
    """Its held-out reward is logged during training."""
    summary = summary_of(brief / "runs/brief")
    assert summary["global_step"] == 32
    assert -200 <= summary["eval_return_mean"] <= 0
    assert json.loads((brief / "runs/brief/args.json").read_text())["task"] == "brief:brief"
    steps = [event.step for event in scalars(brief / "runs/brief")["eval/episodic_return"]]
    assert steps == [16, 32]


def test_use_a_trained_language_model(brief, model):
    """The folder holds the trained model, which transformers loads: another than the base."""
    (code,) = blocks("Use a trained language model")
    assert run(brief, code).startswith("What is a film?")
    auto = pytest.importorskip("transformers").AutoModelForCausalLM
    code = (
        "import torch\nfrom examples.generate import go_on, load\n"
        "policy = load('runs/brief')\n"
        "print(policy(torch.arange(9).view(1, 9)).tolist(), go_on(policy, 'What', 3) != '')"
    )
    theirs = auto.from_pretrained(brief / "models/brief").eval()
    with torch.no_grad():
        logits = theirs(torch.arange(9).view(1, 9)).logits
        base = auto.from_pretrained(model).eval()(torch.arange(9).view(1, 9)).logits
    shown = run(brief, code).splitlines()[-1]
    expected = torch.tensor(json.loads(shown.rpartition(" ")[0]))
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
    assert (logits - base).abs().max() > 1e-3
    assert not any("lora" in name for name in theirs.state_dict())


def test_questions_with_known_answers(folder, model):
    """Asked in the words of the chat template; one of the two is held out."""
    (code,) = blocks("Questions with known answers", {"PATH": str(model), "640": "32"})
    run(folder, code)
    assert summary_of(folder / "runs/questions")["global_step"] == 32
    _, sample, _ = (folder / "runs/questions/samples.txt").read_text().splitlines()
    assert sample.startswith("<user>Answer in one word. What is ")
    assert "?<assistant> " in sample


def test_the_answers_of_questions_are_rewarded(tmp_path, model):
    chat = pytest.importorskip("examples.chat")
    rows = [{"question": "2 + 2?", "answer": "4"}, {"question": "3 + 4?", "answer": "7"}]
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    _, (two, three), reward = chat.questions(str(model), str(tmp_path / "rows"))
    texts = ["4", "It is 4.", "5", "4", ""]
    assert reward([two] * 5, texts, [True, True, True, False, True]) == [1, 1, 0, 0, 0]
    assert reward([three, two], ["4", "4"], [True, True]) == [0, 1]


def test_preferences_of_ones_own(folder, model):
    """In the end every pair is ordered rightly: of the saved model the chosen completion has
    become more probable, measured against the base model, than the rejected one."""
    (code,) = blocks("Preferences of your own", {"PATH": str(model)})
    assert run(folder, code).splitlines()[-1] == "ordered rightly: 1.000"
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    rows = [json.loads(x) for x in (folder / "pairs.jsonl").read_text().splitlines()]
    for row in rows:
        scores = []
        for path in (folder / "models/joyful", model):
            network = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
            for name in ("chosen", "rejected"):
                prompt, whole = (
                    tokenizer.encode(text, return_tensors="pt")
                    for text in (row["prompt"], row["prompt"] + row[name] + "<end>")
                )
                with torch.no_grad():
                    log_pi = network(whole).logits[0, :-1].log_softmax(-1)
                log_probs = log_pi.gather(1, whole[0, 1:, None])[prompt.shape[1] - 1 :]
                scores.append(log_probs.sum().item())
        assert scores[0] - scores[2] > scores[1] - scores[3] + 1e-4


def test_the_policys_methods_are_the_adapters():
    adapter = pytest.importorskip("examples.hugging_face").HuggingFace
    names = re.findall(r"`policy\.(\w+)", section("A text task of your own"))
    assert len(names) > 6
    known = set(dir(adapter)) | set(adapter.__init__.__code__.co_names) | {"eos"}
    assert set(names) <= known
