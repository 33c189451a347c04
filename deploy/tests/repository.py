"""Where things lie in the repository, and how the tests ask other programs. Knows nothing of what is being checked."""

import pathlib
import shutil
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def program(name: str) -> str:
    """The path of a program: from this virtual environment first, then from where Debian puts it."""
    here = pathlib.Path(sys.executable).parent
    for path in (str(here), None, "/usr/sbin:/sbin"):
        if found := shutil.which(name, path=path):
            return found
    raise AssertionError(f"{name} is not installed: `make tools` installs what the tests need")


def run(*command: str, cwd: pathlib.Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end and gives its output, both streams in one."""
    return subprocess.run(
        [program(command[0]) if "/" not in command[0] else command[0], *command[1:]],
        cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100, check=False,
    )


def assert_accepts(*command: str, cwd: pathlib.Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Fails with the program's own words if it does not exit with 0."""
    done = run(*command, cwd=cwd, env=env)
    assert done.returncode == 0, f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


def documents(text: str) -> list[dict]:
    """The documents of a YAML text, without empty ones."""
    return [document for document in yaml.safe_load_all(text) if document]
