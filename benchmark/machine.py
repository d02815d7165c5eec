"""The machine that runs are made on, the packages on it, and the versions of a script."""

import ast
import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path


def cpu_model() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def cpus() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_model(visible: str) -> str:
    """The name of the first GPU, of all or in a CUDA_VISIBLE_DEVICES; "" where there is none or
    it is unknown."""
    words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    words += ["-i", visible.split(",")[0]] if visible else []
    with suppress(OSError):
        return subprocess.run(words, capture_output=True, text=True).stdout.partition("\n")[0]
    return ""


def installed_version(module: str) -> str | None:
    """The version of `module` as it is installed here, without a local suffix such as +cpu;
    None if it is not."""
    if module == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(module).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def commit_of(script: Path) -> str:
    """The commit that a script is of, with -dirty where the script is not as it is in there;
    "" outside of a repository."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(script.parent), *words]
        result = subprocess.run(command, capture_output=True, text=True)
        return "" if result.returncode else result.stdout.strip()

    with suppress(OSError):  # no git
        if commit := git("rev-parse", "--short=12", "HEAD"):
            changed = git("status", "--porcelain", "--ignored", "--", script.name)
            return f"{commit}-dirty" if changed else commit
    return ""


def code(text: str) -> str:
    """A script's code alone, without its comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node, clean=False
        ):
            del node.body[0]
    return ast.dump(tree)


@cache
def runs_same_code(script: Path, digest: str, commit: str) -> bool:
    """Whether the script is the one with this sha256, or differs from it in comments and
    docstrings alone, as the repository tells by the commit; False where that is not known."""
    now = script.read_bytes()
    if sha256(now).hexdigest() == digest:
        return True
    if not commit or commit.endswith("-dirty"):
        return False
    words = ["git", "-C", str(script.parent), "show", f"{commit}:./{script.name}"]
    with suppress(OSError):  # no git
        then = subprocess.run(words, capture_output=True).stdout
        return sha256(then).hexdigest() == digest and code(then) == code(now)
    return False
