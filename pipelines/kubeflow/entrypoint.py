"""The command of every container: does what open-source Kubeflow Pipelines does not do for TFX, then runs TFX's own.

python -m stillhouse.pipelines.kubeflow.entrypoint --task NAME --outputs NAMES [--same INPUTS]
      [--results URI [--omitted FUNCTIONS]] --executor_class_path CLASS
      --json_serialized_invocation_args '{{$}}' --json_serialized_inputs_spec_args SPEC [Beam's options]

Before:  inputs get the types that the inputs spec names, one artifact also under a second name, and outputs that the
         component does not declare, as the launcher's executor-logs, are left out; minio://, s3:// and gs:// become the
         folders to which the launcher has downloaded them; parameters of the pipeline go into execution properties; the
         driver of an ExampleGen resolves span, version and fingerprint, and the window of spans.
Instead: with --results, what an earlier run of the task has left is taken, if it would do the same.
After:   the folders become URIs again in what is reported, and every declared output exists.
If it fails: nothing is reported, the reason is the last line, the exit code is 1.
"""

import argparse
import copy
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from stillhouse.modules.atomic import remove, write_text
from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.pod import launcher_root, run_task

# The launcher's folders, by scheme.
FOLDERS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}
PAGE = "report.html"  # as stillhouse.components.report.page has it, which imports TFX
UNPUBLISHED = ".executor_output.json"  # TFX's report, beside the file that the launcher reads


def local(uri: str, root: str) -> str:
    """Returns the folder of an artifact's URI.

    Raises:
      UserError: the launcher has no folder for URIs of this kind.
    """
    for scheme, folder in FOLDERS.items():
        if uri.startswith(scheme):
            return root + folder + uri.removeprefix(scheme)
    if not uri.startswith("/"):
        raise UserError(f"found an artifact at {uri!r}; expected a URI that begins with {', '.join(FOLDERS)}")
    return uri


def remote(path: str, root: str) -> str:
    """Returns the URI of an artifact's folder."""
    for scheme, folder in FOLDERS.items():
        if path.startswith(root + folder):
            return scheme + path.removeprefix(root + folder)
    return path


def prepared(
    executor_input: dict[str, Any],
    inputs_spec: dict[str, Any],
    outputs: Collection[str],
    root: str,
    same: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns the ExecutorInput as TFX's entry point wants it: what the component declares, and nothing else.

    Args:
      executor_input: as the launcher gives it.
      inputs_spec: the component's input definitions.
      outputs: names of the artifacts that the component declares to make.
      root: where the launcher's folders stand.
      same: inputs that are the artifact of another one, which alone is in the executor input.

    Raises:
      UserError: an artifact or a parameter is missing, or has a URI that the launcher does not know.
    """
    from stillhouse.pipelines.kubeflow.artifact_types import OWN
    from stillhouse.pipelines.kubeflow.parameters import apply

    inputs, made = executor_input.get("inputs", {}), executor_input.get("outputs", {})
    given, values = inputs.get("artifacts", {}), inputs.get("parameterValues", {})
    artifacts = {}
    for name, definition in inputs_spec.get("artifacts", {}).items():
        artifacts[name] = copy.deepcopy(given.get((same or {}).get(name, name), {"artifacts": []})["artifacts"])
        if not artifacts[name] and not definition.get("isOptional"):
            raise UserError(f"the executor input has no artifact for the input {name!r}")
        for artifact in artifacts[name]:
            artifact["type"] = definition["artifactType"]
    for name, definition in inputs_spec.get("parameters", {}).items():
        if name not in values and "defaultValue" not in definition and not definition.get("isOptional"):
            raise UserError(f"the executor input has no value for the parameter {name!r}")
    missing = set(outputs) - made.get("artifacts", {}).keys()
    if missing:
        raise UserError(f"the executor input has no place for the output {min(missing)!r}")
    declared = {name: made["artifacts"][name]["artifacts"] for name in outputs}
    for artifact in (one for several in (artifacts, declared) for many in several.values() for one in many):
        artifact["uri"] = local(artifact["uri"], root)
        title = _title(artifact["type"])
        if title in OWN:  # TFX imports what it does not know by its title
            artifact["type"] = {"schemaTitle": OWN[title]}
    return {
        "inputs": {
            "artifacts": {name: {"artifacts": many} for name, many in artifacts.items() if many},
            "parameterValues": apply(values),
        },
        "outputs": {
            "artifacts": {name: {"artifacts": many} for name, many in declared.items()},
            "outputFile": os.path.join(os.path.dirname(made["outputFile"]), UNPUBLISHED),
        },
    }


def _title(schema: dict[str, str]) -> str:
    """Returns the name of an artifact type, which is written out, or a whole schema in YAML."""
    import yaml

    text = schema.get("instanceSchema") or schema.get("schemaTitle", "")
    content = yaml.safe_load(text)
    return content.get("title", "") if isinstance(content, dict) else text


def resolve(arguments: argparse.Namespace, executor_input: dict[str, Any]) -> dict[str, Any]:
    """Runs the driver, if the executor is an ExampleGen's, and returns the ExecutorOutput that it has left."""
    from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
    from tfx.orchestration.kubeflow.v2.file_based_example_gen import driver
    from tfx.utils import import_utils

    from stillhouse.components.span_window_example_gen.executor import SpanWindow

    executor = import_utils.import_class_by_path(arguments.executor_class_path)
    if not issubclass(executor, BaseExampleGenExecutor):
        return {}
    driver.main(_for_tfx(arguments, executor_input))
    if issubclass(executor, SpanWindow):
        widen(executor_input)
    return json.loads(Path(executor_input["outputs"]["outputFile"]).read_text())


def execute(
    arguments: argparse.Namespace,
    executor_input: dict[str, Any],
    driver_output: dict[str, Any],
    beam_options: list[str],
) -> dict[str, Any]:
    """Runs the executor and returns its ExecutorOutput, with what the driver has found out."""
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    kubeflow_v2_run_executor.main((_for_tfx(arguments, executor_input), beam_options))
    return with_properties(json.loads(Path(executor_input["outputs"]["outputFile"]).read_text()), driver_output)


def _for_tfx(arguments: argparse.Namespace, executor_input: dict[str, Any]) -> argparse.Namespace:
    return argparse.Namespace(
        executor_class_path=arguments.executor_class_path,
        json_serialized_invocation_args=json.dumps(executor_input),
        json_serialized_inputs_spec_args=arguments.json_serialized_inputs_spec_args,
    )


def widen(executor_input: dict[str, Any]) -> None:
    """Adds the spans before the newest to what the driver of an ExampleGen has left in the ExecutorOutput."""
    from stillhouse.components.span_window_example_gen.window import widened

    output_file = Path(executor_input["outputs"]["outputFile"])
    output = json.loads(output_file.read_text())
    window = widened(executor_input["inputs"]["parameterValues"], int(output["parameterValues"]["span"]))
    output["parameterValues"] |= window
    for artifact in output["artifacts"]["examples"]["artifacts"]:
        artifact["metadata"] |= {"input_fingerprint": window["input_fingerprint"], "custom:span": window["span"]}
    output_file.write_text(json.dumps(output))


def with_properties(output: dict[str, Any], driver_output: dict[str, Any]) -> dict[str, Any]:
    """Returns the executor's ExecutorOutput with what the driver has found out of an artifact: span, fingerprint."""
    for name, artifact_list in driver_output.get("artifacts", {}).items():
        for resolved, artifact in zip(artifact_list["artifacts"], output["artifacts"][name]["artifacts"], strict=True):
            artifact["metadata"] = resolved.get("metadata", {}) | artifact.get("metadata", {})
    return output


def publish(output: dict[str, Any], output_file: str, root: str) -> None:
    """Writes the ExecutorOutput for the launcher, whole or not at all, with URIs in the place of folders.

    The URI of a page is its file's, which Kubeflow shows.
    """
    for artifact_list in output.get("artifacts", {}).values():
        for artifact in artifact_list.get("artifacts", []):
            page = Path(artifact["uri"], PAGE)
            artifact["uri"] = remote(str(page) if page.is_file() else artifact["uri"], root)
    write_text(output_file, json.dumps(output))


def run_component(arguments: argparse.Namespace, beam_options: list[str]) -> None:
    """Runs a component's executor, or takes what an earlier run of it has left, and reports the outputs."""
    executor_input = json.loads(arguments.json_serialized_invocation_args)
    output_file, root = executor_input["outputs"]["outputFile"], launcher_root()
    inputs_spec = json.loads(arguments.json_serialized_inputs_spec_args)
    ready = prepared(executor_input, inputs_spec, json.loads(arguments.outputs), root, json.loads(arguments.same))
    folders = {name: several["artifacts"][0]["uri"] for name, several in ready["outputs"]["artifacts"].items()}
    report = ready["outputs"]["outputFile"]
    for path in (*folders.values(), report, output_file):  # of an attempt that was killed in the same folder
        remove(path)
    os.makedirs(os.path.dirname(output_file), exist_ok=True)  # the launcher makes those of output artifacts only
    try:
        driver_output = resolve(arguments, ready)
        results = EarlierResults(arguments, ready, driver_output) if arguments.results else None
        output = results.take(folders) if results else None
        if output is None:
            output = execute(arguments, ready, driver_output, beam_options)
            for folder in folders.values():
                os.makedirs(folder, exist_ok=True)  # a backend without MLMD wants every declared output
            if results:
                results.remember(output, folders, root)
    finally:
        remove(report)
    publish(output, output_file, root)


class EarlierResults:
    """What earlier runs have left of the task that runs."""

    def __init__(self, arguments: argparse.Namespace, executor_input: dict[str, Any], driver_output: dict[str, Any]):
        """Connects to where records are, and looks at code and inputs; arguments as on the command line."""
        from stillhouse.pipelines.kubeflow import earlier_results
        from stillhouse.pipelines.kubeflow.object_storage import ObjectStorage

        resolved = driver_output.get("parameterValues", {})
        parameters = executor_input["inputs"]["parameterValues"] | {
            name: resolved[name] for name in ("input_config", "span", "version") if name in resolved
        }
        self._storage = ObjectStorage(arguments.results)
        self._task = earlier_results.Task(
            folder=arguments.results,
            executor=arguments.executor_class_path,
            parameters=parameters,
            inputs=earlier_results.local_inputs(executor_input["inputs"]["artifacts"]),
            outputs=tuple(executor_input["outputs"]["artifacts"]),
            outside=earlier_results.outside_files(arguments.executor_class_path, parameters),
            omitted=tuple(json.loads(arguments.omitted)),
        )
        self._facts = self._task.facts()  # before the task runs, which may write into its inputs' folders
        self._results = earlier_results

    def take(self, folders: Mapping[str, str]) -> dict[str, Any] | None:
        """Returns the ExecutorOutput of an earlier run, whose outputs are in the folders then; None: there is none."""
        taken = self._results.take(self._storage, self._task, self._facts, folders)
        if taken is None:
            return None
        artifacts = {
            name: {"artifacts": [{"name": name, "uri": folders[name], "metadata": metadata}]}
            for name, metadata in taken.items()
        }
        return {"artifacts": artifacts}

    def remember(self, output: dict[str, Any], folders: Mapping[str, str], root: str) -> None:
        """Records what the task has made, which is reported by `output` and lies in the folders."""
        made = {
            name: (remote(folder, root), output["artifacts"][name]["artifacts"][0].get("metadata", {}), folder)
            for name, folder in folders.items()
        }
        self._results.remember(self._storage, self._task, self._facts, made)


def main() -> None:
    """Runs one task."""
    parser = argparse.ArgumentParser()
    names = (
        "task",
        "outputs",
        "executor_class_path",
        "json_serialized_invocation_args",
        "json_serialized_inputs_spec_args",
    )
    for name in names:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--results")
    parser.add_argument("--omitted", default="[]")
    parser.add_argument("--same", default="{}")
    arguments, beam_options = parser.parse_known_args()
    run_task(arguments.task, lambda: run_component(arguments, beam_options))


if __name__ == "__main__":
    main()
