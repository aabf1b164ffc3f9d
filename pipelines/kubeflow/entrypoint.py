"""The command of every container: does what open-source Kubeflow Pipelines does not do for TFX, then runs TFX's own.

python -m stillhouse.pipelines.kubeflow.entrypoint --executor_class_path CLASS --json_serialized_invocation_args '{{$}}'
      --json_serialized_inputs_spec_args SPEC [Beam's options]

Before:  artifacts of inputs get the types that the inputs spec names; minio://, s3:// and gs:// become the folders to
         which the launcher has downloaded them; parameters of the pipeline go into execution properties; the driver of
         an ExampleGen resolves span, version and fingerprint, and the window of spans.
After:   the folders become URIs again in what is reported.
If it fails: nothing is reported, the error is the last line, the exit code is not zero.
"""

import argparse
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

# The launcher's folders, by scheme.
FOLDERS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}
PAGE = "report.html"  # as stillhouse.components.report.page has it, which imports TFX
LAUNCHER_ROOT = "STILLHOUSE_LAUNCHER_ROOT"  # in the environment: where those folders stand, in tests


def local(uri: str, root: str) -> str:
    """Returns the folder of an artifact's URI."""
    for scheme, folder in FOLDERS.items():
        if uri.startswith(scheme):
            return root + folder + uri.removeprefix(scheme)
    return uri


def remote(path: str, root: str) -> str:
    """Returns the URI of an artifact's folder."""
    for scheme, folder in FOLDERS.items():
        if path.startswith(root + folder):
            return scheme + path.removeprefix(root + folder)
    return path


def prepared(executor_input: dict[str, Any], inputs_spec: dict[str, Any], root: str) -> dict[str, Any]:
    """Returns the ExecutorInput as TFX's entry point wants it.

    Args:
      executor_input: as the launcher gives it.
      inputs_spec: the component's input definitions.
      root: where the launcher's folders stand.
    """
    from stillhouse.pipelines.kubeflow.artifact_types import OWN
    from stillhouse.pipelines.kubeflow.parameters import apply

    inputs = executor_input.setdefault("inputs", {})
    for name, artifact_list in inputs.get("artifacts", {}).items():
        for artifact in artifact_list.get("artifacts", []):
            artifact["type"] = inputs_spec["artifacts"][name]["artifactType"]
    outputs = executor_input.get("outputs", {}).get("artifacts", {})
    for artifact_list in [*inputs.get("artifacts", {}).values(), *outputs.values()]:
        for artifact in artifact_list.get("artifacts", []):
            artifact["uri"] = local(artifact["uri"], root)
            title = _title(artifact["type"])
            if title in OWN:  # TFX imports what it does not know by its title
                artifact["type"] = {"schemaTitle": OWN[title]}
    inputs["parameterValues"] = apply(inputs.get("parameterValues", {}))
    return executor_input


def _title(schema: dict[str, str]) -> str:
    if "schemaTitle" in schema:
        return schema["schemaTitle"]
    import yaml

    return yaml.safe_load(schema["instanceSchema"]).get("title", "")


def run(executor_class_path: str, executor_input: dict[str, Any], inputs_spec: str, beam_options: list[str]) -> None:
    """Runs the driver, if the executor is an ExampleGen's, and the executor."""
    from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor
    from tfx.orchestration.kubeflow.v2.file_based_example_gen import driver
    from tfx.utils import import_utils

    from stillhouse.components.span_window_example_gen.executor import SpanWindow

    arguments = argparse.Namespace(
        executor_class_path=executor_class_path,
        json_serialized_invocation_args=json.dumps(executor_input),
        json_serialized_inputs_spec_args=inputs_spec,
    )
    executor = import_utils.import_class_by_path(executor_class_path)
    if issubclass(executor, BaseExampleGenExecutor):
        driver.main(arguments)
    if issubclass(executor, SpanWindow):
        widen(executor_input)
    output_file = Path(executor_input["outputs"]["outputFile"])
    driver_output = json.loads(output_file.read_text()) if output_file.exists() else {}
    kubeflow_v2_run_executor.main((arguments, beam_options))
    keep_properties(output_file, driver_output)


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


def keep_properties(output_file: Path, driver_output: dict[str, Any]) -> None:
    """Adds to the executor's ExecutorOutput what the driver has found out about an artifact: span, fingerprint."""
    output = json.loads(output_file.read_text())
    for name, artifact_list in driver_output.get("artifacts", {}).items():
        for resolved, artifact in zip(artifact_list["artifacts"], output["artifacts"][name]["artifacts"], strict=True):
            artifact["metadata"] = resolved.get("metadata", {}) | artifact.get("metadata", {})
    output_file.write_text(json.dumps(output))


def publish(output_file: Path, root: str) -> None:
    """Puts URIs in the place of folders in the ExecutorOutput; that of a page is its file's, which Kubeflow shows."""
    output = json.loads(output_file.read_text())
    for artifact_list in output.get("artifacts", {}).values():
        for artifact in artifact_list.get("artifacts", []):
            page = Path(artifact["uri"], PAGE)
            artifact["uri"] = remote(str(page) if page.is_file() else artifact["uri"], root)
    output_file.write_text(json.dumps(output))


def main() -> None:
    """Runs one task."""
    parser = argparse.ArgumentParser()
    for name in ("executor_class_path", "json_serialized_invocation_args", "json_serialized_inputs_spec_args"):
        parser.add_argument(f"--{name}", required=True)
    arguments, beam_options = parser.parse_known_args()
    from stillhouse.modules.errors import UserError
    from stillhouse.modules.visible import visible

    executor_input = json.loads(arguments.json_serialized_invocation_args)
    output_file = Path(executor_input["outputs"]["outputFile"])
    root = os.environ.get(LAUNCHER_ROOT, "")
    spec = arguments.json_serialized_inputs_spec_args
    try:
        ready = prepared(executor_input, json.loads(spec), root)
        run(arguments.executor_class_path, ready, spec, beam_options)
        publish(output_file, root)
    except BaseException as error:
        # The driver reports before the executor has done anything.
        output_file.unlink(missing_ok=True)
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        traceback.print_exc()
        print(f"error: {visible(str(cause))}", file=sys.stderr)
        sys.exit(cause.exit_code)


if __name__ == "__main__":
    main()
