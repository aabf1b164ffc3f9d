"""Imports TensorFlow without what it writes before its log levels hold."""

import os
import re
import sys
import tempfile

# TensorFlow 2.21 on a machine without a GPU, twice in each process, whatever TF_CPP_MIN_LOG_LEVEL says.
CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\)"
    rb"|I0000 .*cudart_stub\.cc:\d+\] Could not find cuda drivers"
)


def import_tensorflow() -> None:
    """Imports TensorFlow; all but CHATTER is written to stderr afterwards.

    What is written while a process is killed in this import is lost; `--verbose` does not come here.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            for line in file:
                if not CHATTER.match(line):
                    os.write(2, line)
