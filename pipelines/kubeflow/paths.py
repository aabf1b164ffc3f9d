"""Where a run on a cluster reads and writes: only paths that its containers can see."""

from pathlib import Path, PurePosixPath

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Settings
from stillhouse.pipelines.dag.commit import commit_of
from stillhouse.pipelines.dag.nodes import BEAM_OPTIONS, PipelinePaths

# What TensorFlow's and Beam's file systems open from within a container.
SEEN = ("gs://",)
CACHE = "/tmp/stillhouse/input_cache"  # in the container, gone with it
ARTIFACTS = ("minio://", "s3://", "gs://")  # what Kubeflow's launcher can carry


def kubeflow_paths(settings: Settings) -> PipelinePaths:
    """Returns where a run on Kubeflow reads and writes.

    Raises:
      UserError: a path of the settings is one that the cluster cannot see; the message names the key.
    """
    kubeflow = settings.kubeflow
    root = kubeflow.pipeline_root
    if not root.startswith(ARTIFACTS):
        raise UserError(
            f"kubeflow.pipeline_root: found {root!r}; expected a path that begins with {', '.join(ARTIFACTS)}"
        )

    def seen(key: str, path: str) -> str:
        if path.startswith(SEEN):
            return path
        mounts = [volume.mount for volume in kubeflow.volumes]
        if any(PurePosixPath(path).is_relative_to(mount) for mount in mounts):
            return path
        alternative = f"or lies in a mount of kubeflow.volumes ({', '.join(mounts) or 'there is none'})"
        raise UserError(
            f"{key}: the cluster cannot see {path!r}; it sees what begins with {', '.join(SEEN)} {alternative}"
        )

    return PipelinePaths(
        root=root.rstrip("/"),
        data_path=seen("data.path", settings.data.path),
        push_path=seen("push.path", settings.push.path),
        metadata_path="",
        transfer_path=seen("data.transfer", settings.data.transfer) if settings.data.transfer else None,
        saved_models={
            teacher.saved_model: seen(f"teachers[{number}].saved_model", teacher.saved_model)
            for number, teacher in enumerate(settings.teachers)
            if teacher.saved_model
        },
        schema_path=seen("data.schema", settings.data.schema_file) if settings.data.schema_file else None,
        beam_options=settings.beam.options or list(BEAM_OPTIONS),
        checkpoints=seen("kubeflow.checkpoints", kubeflow.checkpoints) if kubeflow.checkpoints else None,
        cache=CACHE,
        commit=commit_of(Path()),
    )
