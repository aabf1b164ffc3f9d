"""The image's name, its build commands, and what its Dockerfile runs; there is no container engine here."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.image import build_commands
from stillhouse.pipelines.kubeflow.image_name import check_image

REPOSITORY = Path(__file__).parents[3]
DOCKERFILE = REPOSITORY / "Dockerfile"
# (sources, target) of each line that copies from the repository.
COPIED = re.findall(r"^COPY ((?!--)[^\n]+) (/build/\S*)$", DOCKERFILE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("image", "doubt"),
    [
        ("stillhouse:1.0", None),
        ("host:5000/team/stillhouse:1.0", None),
        (f"stillhouse@sha256:{'0' * 64}", None),
        ("stillhouse", "has no tag"),
        ("host:5000/team/stillhouse", "has no tag"),
        ("Registry.Example.org/team/still_house:1.0-rc.1", None),
        ("localhost/a__b/c--d:_1", None),
        ("[::1]:5000/a:1", None),
        (f"host:5000/a:1.0@sha256:{'0' * 64}", None),
        (f"{'a' * 255}:{'1' * 128}", None),
    ],
)
def test_an_image_without_a_tag_is_doubtful(image, doubt):
    found = check_image(image)
    assert (found is None) if doubt is None else doubt in found


@pytest.mark.parametrize(
    "image",
    [
        "",
        "two words:1",
        "x@sha256:12",
        "-rf:1",
        "x:1\n",
        "x:1\nRUN true",
        "Team/Stillhouse:1",
        "x:1%s",
        "x\\y:1",
        "x;true:1",
        "x/:1",
        "/x:1",
        "a..b:1",
        "x:-1",
        "x:١",
        f"x:{'1' * 129}",
        f"{'a' * 256}:1",
    ],
)
def test_no_image_is_refused(image):
    with pytest.raises(UserError, match="--image: found"):
        check_image(image)


def test_the_image_is_built_from_the_checkout_with_the_users_tasks_on_top(tmp_path):
    build, *rest = build_commands("team/stillhouse:1.0")
    assert build.startswith("docker build --tag team/stillhouse:1.0 ")
    assert rest == ["docker push team/stillhouse:1.0"]
    with pytest.raises(UserError, match="is not a folder"):
        build_commands("x:1", tmp_path / "none")


def docker_calls(commands, folder):
    """Runs the commands by sh with a docker that writes down its arguments and, where it reads one, the Dockerfile."""
    docker = folder / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "text = sys.stdin.read() if '-' in sys.argv else None\n"
        f"print(json.dumps([sys.argv[1:], text]), file=open({str(folder / 'calls')!r}, 'a'))\n"
    )
    docker.chmod(0o700)
    environment = {"PATH": f"{docker.parent}:{os.defpath}"}
    for command in commands:
        subprocess.run(["sh", "-c", command], check=True, cwd=folder, env=environment, timeout=60)
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


@pytest.mark.parametrize("name", ["tasks", "100% of%s\\n it's", "-f", '$(false) `false` "; false'])
def test_the_layer_of_the_tasks_has_the_same_text_whatever_the_folders_name(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    base, own, push = docker_calls(build_commands("team/stillhouse:1.0", Path(name)), tmp_path)
    assert base == [["build", "--tag", "team/stillhouse:1.0-base", str(REPOSITORY)], None]
    arguments, dockerfile = own
    assert dockerfile == "FROM team/stillhouse:1.0-base\nCOPY . /tasks\n"
    assert arguments[:-1] == ["build", "--tag", "team/stillhouse:1.0", "--file", "-"]
    assert arguments[-1] == ("./-f" if name == "-f" else name)
    assert push == [["push", "team/stillhouse:1.0"], None]


@pytest.mark.parametrize(
    ("image", "name", "message"),
    [
        (f"x@sha256:{'0' * 64}", "tasks", "expected NAME:TAG .the registry gives the digest"),
        (f"x:{'1' * 128}", "tasks", "at most 128"),  # with -base behind it
        ("x:1", "a\nb", r"--tasks: found '.*a\\nb'; expected a path without control characters"),
    ],
)
def test_what_docker_cannot_build_is_refused(tmp_path, image, name, message):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=message):
        build_commands(image, tmp_path / name)


def test_the_dockerfile_has_no_lint():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_docker_sees_what_the_dockerfile_copies():
    seen = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source.split("/")[0] for sources, _ in COPIED for source in sources.split()} == seen


def test_what_the_dockerfile_copies_and_installs_runs_a_task(tmp_path):
    text = DOCKERFILE.read_text()
    build = tmp_path / "build"
    for sources, target in COPIED:
        for source in sources.split():
            to = build / target.removeprefix("/build/")
            if (REPOSITORY / source).is_dir():
                shutil.copytree(REPOSITORY / source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / source, to)
    assert "pip install --no-cache-dir --no-deps --no-build-isolation /build" in text
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", tmp_path / "site", build], check=True)
    code = (
        "from stillhouse.pipelines.kubeflow import changes, entrypoint as e; import stillhouse.pipelines.cli.init; "
        "print(e.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": os.defpath, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    package = tmp_path / "site" / "stillhouse"
    assert done.stdout.strip() == str(package / "pipelines" / "kubeflow" / "entrypoint.py"), done.stderr
    templates = {path.relative_to(REPOSITORY) for path in REPOSITORY.glob("pipelines/**/*.jinja")}
    assert templates == {path.relative_to(package) for path in package.glob("pipelines/**/*.jinja")}
    (entry_point,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    assert entry_point == '["python", "-m", "stillhouse.pipelines.kubeflow.entrypoint"]'
