"""Whether a run has anything new to learn from: what two tasks of the compiled pipeline run.

  python -m stillhouse.pipelines.kubeflow.changes comparedata '{{$}}'   are data, pipeline, parameters as last time?
  python -m stillhouse.pipelines.kubeflow.changes rememberdata '{{$}}'  they are now

The last run that came to its end is remembered in the push folder, in .stillhouse/PIPELINE.json, whether its student
was pushed or refused: the same would be refused again.
"""

import hashlib
import json
import os
import sys
from typing import Any

from stillhouse.modules.atomic import refuse_links, write_text
from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.pod import run_task

REMEMBER = "rememberdata"  # name of the task
FOLDER = ".stillhouse"
CHANGED, FINGERPRINT, ONLY_IF_CHANGED = "changed", "fingerprint", "only_if_changed"


def fingerprint_of(executor_input: dict[str, Any]) -> str:
    """Returns a hash of the data that ExampleGen has read, of the pipeline's content, and of the parameters.

    Raises:
      UserError: the input does not say which data were read.
    """
    inputs = executor_input["inputs"]
    try:
        data = inputs["artifacts"]["examples"]["artifacts"][0]["metadata"]["input_fingerprint"]
    except (KeyError, IndexError):
        raise UserError("the executor input has no examples with an input_fingerprint") from None
    parameters = {name: value for name, value in inputs["parameterValues"].items() if name != ONLY_IF_CHANGED}
    return hashlib.sha256(json.dumps([data, parameters], sort_keys=True).encode()).hexdigest()


def memory_of(push_path: str, pipeline: str) -> str:
    """Returns the file in which the last run of a pipeline is remembered."""
    return os.path.join(push_path, FOLDER, f"{pipeline}.json")


def compare(executor_input: dict[str, Any]) -> dict[str, str]:
    """Returns the output parameters `changed` ("true" or "false") and `fingerprint`, and tells which it is."""
    import tensorflow as tf

    parameters = executor_input["inputs"]["parameterValues"]
    fingerprint = fingerprint_of(executor_input)
    path = memory_of(parameters["push_path"], parameters["pipeline"])
    changed = True
    if parameters[ONLY_IF_CHANGED] and tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            last = json.load(file)
        changed = last[FINGERPRINT] != fingerprint
        if not changed:
            print(f"unchanged: data, pipeline and parameters are those of the last run ({path}); nothing to do")
    return {CHANGED: "true" if changed else "false", FINGERPRINT: fingerprint}


def remember(executor_input: dict[str, Any]) -> None:
    """Writes down what the run that is ending has learnt from."""
    import tensorflow as tf

    parameters = executor_input["inputs"]["parameterValues"]
    path = memory_of(parameters["push_path"], parameters["pipeline"])
    refuse_links(os.path.dirname(path), below=parameters["push_path"])
    tf.io.gfile.makedirs(os.path.dirname(path))
    write_text(path, json.dumps({FINGERPRINT: parameters[FINGERPRINT]}))


def write_parameters(executor_input: dict[str, Any], values: dict[str, str]) -> None:
    """Writes a task's output parameters where the launcher reads them, each file whole or not at all."""
    for name, value in values.items():
        path = executor_input["outputs"]["parameters"][name]["outputFile"]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_text(path, value)


def main() -> None:
    """Runs one of the two tasks."""
    task, text = sys.argv[1:]

    def work() -> None:
        executor_input = json.loads(text)
        if task == REMEMBER:
            remember(executor_input)
        else:
            write_parameters(executor_input, compare(executor_input))

    run_task(task, work)


if __name__ == "__main__":
    main()
