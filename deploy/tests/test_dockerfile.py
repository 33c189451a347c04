"""The image: linted, and held against what a hardened container needs. Building it takes a container engine, so only the
runtime stage is built, and only where buildah is at hand."""

import json
import os
import pathlib
import re
import shutil
import tomllib

import pytest
import yaml

from repository import DEPLOY, ROOT, assert_accepts, run

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
# One instruction a line: continued lines joined, comments left out.
LINES = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()


def instructions(name: str) -> list[str]:
    """What follows each instruction of that name in the last stage."""
    start = max(index for index, line in enumerate(LINES) if line.startswith("FROM "))
    return [line.removeprefix(name).strip() for line in LINES[start:] if line.startswith(f"{name} ")]


def test_hadolint_has_nothing_to_say():
    assert_accepts("hadolint", str(DEPLOY / "Dockerfile"))


def test_hadolint_can_fail(tmp_path):
    broken = tmp_path / "Dockerfile"
    broken.write_text(DOCKERFILE.replace("rust:1.95.0-bookworm", "rust:latest"))
    assert run("hadolint", str(broken)).returncode != 0


def test_the_last_stage_is_empty_and_runs_as_a_numbered_user():
    assert instructions("FROM") == ["scratch AS runtime"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions("USER")[-1])
    roots = "/etc/ssl/certs/ca-certificates.crt"
    assert instructions("COPY") == [f"--from=build {roots} {roots}", "--from=build /out/roomcast /roomcast"]


def test_the_binary_is_process_one_and_asks_for_its_own_health():
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["/roomcast"], "exec form, so that SIGTERM arrives"
    health = re.search(r"CMD (\[.*\])", instructions("HEALTHCHECK")[0])
    assert health and json.loads(health[1]) == ["/roomcast", "health"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_compiler_is_that_of_the_tool_chain_file():
    channel = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    assert f"FROM rust:{channel}-bookworm AS build" in LINES


def test_versions_are_that_of_the_workspace():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert f"ARG VERSION={version}" in LINES
    images = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["images"]
    assert [image["newTag"] for image in images] == [version]


def test_what_is_copied_exists_and_reaches_the_builder():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [word for line in LINES if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]]
    for name in copied:
        assert (ROOT / name).exists(), f"{name} is copied but not there"
        assert f"!{name}" in ignored, f"{name} is copied but .dockerignore keeps it out"
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    # A member that lies in another one's folder comes with it.
    missing = [name for name in members if not {name, *map(str, pathlib.PurePath(name).parents)} & set(copied)]
    assert not missing, f"cargo needs every member of the workspace, and {missing} are not copied"


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("buildah"), reason="building the runtime stage takes buildah, and root"
)
def test_the_runtime_stage_builds(tmp_path: pathlib.Path):
    built = tmp_path / "build"
    for name in ("out/roomcast", "etc/ssl/certs/ca-certificates.crt"):
        (built / name).parent.mkdir(parents=True)
        (built / name).write_text("a stand-in")
    store = ["--root", str(tmp_path / "store"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs"]
    assert_accepts(
        "buildah", *store, "bud", "--format", "docker", "--build-context", f"build={built}",
        "-f", str(DEPLOY / "Dockerfile"), "-t", "roomcast:stage", str(ROOT),
    )
    config = json.loads(assert_accepts("buildah", *store, "inspect", "--type", "image", "roomcast:stage"))
    docker = config["Docker"]["config"]
    assert docker["User"] == "65532:65532"
    assert docker["Entrypoint"] == ["/roomcast"]
    assert docker["Healthcheck"]["Test"] == ["CMD", "/roomcast", "health"]
