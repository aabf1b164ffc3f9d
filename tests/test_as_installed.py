"""requirements/as-installed: stillhouse in a folder as it is installed, for tools that read sources."""

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
AS_INSTALLED = REPOSITORY / "requirements" / "as-installed"


def as_installed(script: str) -> subprocess.CompletedProcess:
    return subprocess.run([AS_INSTALLED, "/bin/sh", "-c", script], capture_output=True, text=True, timeout=60)


def test_the_rooms_lie_in_one_package_and_only_the_links_are_removed():
    done = as_installed('test "$PWD" = "$AS_INSTALLED" && cat stillhouse/modules/errors.py stillhouse/py.typed && pwd')
    assert done.returncode == 0, done.stderr
    assert "class UserError" in done.stdout
    assert not Path(done.stdout.splitlines()[-1]).exists()
    assert (REPOSITORY / "modules" / "errors.py").is_file()
    assert (REPOSITORY / "stillhouse" / "__init__.py").is_file()


def test_a_command_that_fails_is_a_failure():
    assert as_installed("exit 3").returncode == 3
