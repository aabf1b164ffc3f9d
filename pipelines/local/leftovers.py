"""Removes what killed runs have left below a run's root, where nobody would look for it or remove it later."""

from pathlib import Path

from ml_metadata.proto.metadata_store_pb2 import Execution

from stillhouse.modules.atomic import remove
from stillhouse.pipelines.local.metadata_check import rows_of
from stillhouse.pipelines.local.paths import ARTIFACTS, METADATA


def remove_unfinished(root: Path) -> None:
    """Removes outputs and working folders of executions that never ended; to be called under the root's lock.

    Such an execution is still noted as running, although nothing runs. Checkpoints, from which training resumes, and
    the input cache are elsewhere.
    """
    artifacts = root / ARTIFACTS
    for execution in _running(root / METADATA):
        # TFX's layout: NODE/OUTPUT/EXECUTION and NODE/.system/KIND/EXECUTION
        for folder in (*artifacts.glob(f"*/*/{execution}"), *artifacts.glob(f"*/.system/*/{execution}")):
            remove(folder)
    for folder in artifacts.glob("*/.system/stateful_working_dir/*"):  # which have names of their own
        remove(folder)


def _running(store: Path) -> list[int]:
    if not store.is_file():
        return []
    query = "SELECT id FROM Execution WHERE last_known_state = ?"
    return [number for (number,) in rows_of(store, "Execution", query, [Execution.RUNNING])]
