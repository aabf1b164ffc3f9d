"""The image's name, its build commands, and what its Dockerfile runs; there is no container engine here."""

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
    ],
)
def test_an_image_without_a_tag_is_doubtful(image, doubt):
    found = check_image(image)
    assert (found is None) if doubt is None else doubt in found


@pytest.mark.parametrize("image", ["", "two words:1", "x@sha256:12"])
def test_no_image_is_refused(image):
    with pytest.raises(UserError, match="--image: found"):
        check_image(image)


def test_the_image_is_built_from_the_checkout_with_the_users_tasks_on_top(tmp_path):
    build, *rest = build_commands("team/stillhouse:1.0")
    assert build.startswith("docker build --tag team/stillhouse:1.0 ")
    assert rest == ["docker push team/stillhouse:1.0"]
    base, own, _ = build_commands("team/stillhouse:1.0", tmp_path)
    assert "--tag team/stillhouse:1.0-base " in base
    assert own.startswith("printf 'FROM team/stillhouse:1.0-base\\nCOPY . /tasks\\n' | docker build")
    with pytest.raises(UserError, match="is not a folder"):
        build_commands("x:1", tmp_path / "none")


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
