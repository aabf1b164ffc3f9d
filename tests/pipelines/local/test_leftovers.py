from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto.metadata_store_pb2 import Execution, ExecutionType

from stillhouse.pipelines.dag.create import sqlite
from stillhouse.pipelines.local.leftovers import remove_unfinished


def test_what_an_execution_that_never_ended_has_left_is_removed_and_nothing_else(tmp_path):
    store = MetadataStore(sqlite(str(tmp_path / "metadata.sqlite")))
    kind = store.put_execution_type(ExecutionType(name="Trainer"))
    states = [Execution.RUNNING, Execution.COMPLETE, Execution.FAILED]
    unfinished, complete, failed = store.put_executions(
        [Execution(type_id=kind, last_known_state=state) for state in states]
    )
    del store
    folders = [
        *(f"Student/model/{number}" for number in (unfinished, complete, failed)),
        *(f"Student/.system/executor_execution/{number}/.temp" for number in (unfinished, complete)),
        "Student/.system/stateful_working_dir/2026-11-28T13:00:00",
        f"checkpoints/Student/5f{unfinished}/chief-0",
        "input_cache/5f",
    ]
    for folder in folders:
        (tmp_path / "artifacts" / folder).mkdir(parents=True)
    remove_unfinished(tmp_path)
    left = [folder for folder in folders if (tmp_path / "artifacts" / folder).exists()]
    assert left == [folders[1], folders[2], folders[4], *folders[6:]]
    remove_unfinished(tmp_path)


def test_a_root_without_a_store_has_no_leftovers(tmp_path):
    remove_unfinished(tmp_path)
    (tmp_path / "metadata.sqlite").touch()
    remove_unfinished(tmp_path)
