"""A user's project, as tests run stillhouse in it."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import forking


@dataclass
class Project:
    """A user's project in a folder, and the command line to run it by."""

    folder: Path
    environment: dict = field(default_factory=lambda: dict(os.environ))
    fresh: bool = False  # a new Python for each command, as a user has, instead of a fork

    def command(self, *arguments: str) -> list[str]:
        if self.fresh:
            return [sys.executable, "-m", "stillhouse", *arguments]
        return forking.command("stillhouse", *arguments)

    def stillhouse(self, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess:
        """Runs the command in the project's folder to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, *arguments: str) -> subprocess.Popen:
        """Starts the command; its progress can be read from stderr."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # As at a terminal. A process that was started in the background may have inherited an ignored Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
