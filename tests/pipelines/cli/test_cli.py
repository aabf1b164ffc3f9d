import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import stillhouse
from stillhouse.pipelines.cli.app import _give_home, app

HEAVY = ("tensorflow", "tfx", "apache_beam", "tensorflow_model_analysis", "kfp")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "nowhere.yaml"], ["run", "--help"], ["report", "none"], ["pushed", "nowhere.yaml"]],
)
def test_help_and_mistakes_answer_without_heavy_imports(arguments, tmp_path):
    program = (
        "import sys\n"
        f"sys.argv = ['stillhouse', *{arguments}]\n"
        "from stillhouse.pipelines.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
        (
            ["run", "blobs.yaml", "--set", "student.epochs=0"],
            "student.epochs: found 0; expected a value greater than or eq",
        ),
        (["run", "blobs.yaml", "--set", "data.schema=none.pbtxt"], "data.schema: no file none.pbtxt"),
        (["report", "nowhere"], "nowhere/comparison.json: no such file"),
        (["report"], "runs/: no finished run"),
        (["init", "2fast"], "a task's name has lower-case letters"),
        (
            ["init", "mine", "--recipe", "bert"],
            "expected one of: distilbert, noisy-student, pretrained-teacher, tmkd",
        ),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(project, arguments, message):
    done = project.stillhouse(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_prints_the_dag_and_runs_nothing(project):
    done = project.stillhouse("run", "blobs.yaml", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    nodes = json.loads(done.stdout)["nodes"]
    assert nodes["Student"] == ["SoftTargets", "Transform"]
    assert nodes["SoftTargets"] == ["Teacher-1", "Transform"]
    assert nodes["Pusher"] == ["Blessing", "Evaluator", "ServingCheck", "Student"]
    assert "ExampleValidator" in nodes["Transform"]
    assert not (project.folder / "runs").exists()


def test_init_overwrites_nothing(project):
    (project.folder / "mine.yaml").write_text("precious")
    done = project.stillhouse("init", "mine")
    assert done.returncode == 2
    assert "mine.yaml: exists already" in done.stderr
    assert (project.folder / "mine.yaml").read_text() == "precious"
    assert not (project.folder / "mine_task.py").exists()


def test_the_version_is_that_of_the_package():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"{stillhouse.__version__}\n")


def test_a_user_id_without_a_name_and_a_home_has_a_home():
    """nltk, which TFX's libraries import, refuses to be imported without one."""
    code = (
        "import os, pwd\n"
        "try:\n    pwd.getpwuid(os.getuid())\nexcept KeyError:\n    print('no name')\n"
        "from stillhouse.pipelines.cli.app import _give_home\n"
        "_give_home()\n"
        "import nltk\n"
        "print(os.environ['HOME'])\n"
    )
    command = ["unshare", "--user", "--map-user=54321", sys.executable, "-c", code]
    done = subprocess.run(command, env={"PATH": os.defpath}, capture_output=True, text=True)
    if done.stderr.startswith("unshare"):
        pytest.skip(f"no user id of our own here: {done.stderr}")
    assert done.stdout == "no name\n/\n", done.stderr


def test_a_home_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    _give_home()
    assert os.environ["HOME"] == "/home/me"


def test_a_root_with_a_pattern_is_refused_by_a_dry_run_too(project):
    done = project.stillhouse("run", "blobs.yaml", "--dry-run", "--root", "runs [1]/it")
    assert done.returncode == 2
    assert "error: --root: found '" in done.stderr
    assert "runs [1]/it'; expected a path without * ? [ ]" in done.stderr
