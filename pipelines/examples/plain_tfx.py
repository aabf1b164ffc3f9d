"""SoftTargets and DistillationTrainer in a TFX pipeline of one's own: stock components around them, no settings file.

  python -m stillhouse.pipelines.examples.plain_tfx --data DATA --task MODULE --label COLUMN --root ROOT --push FOLDER

DATA is a folder of CSV files, MODULE is a task module (stillhouse.modules.models.task.Task) of a classification.
"""

import argparse
from pathlib import Path
from typing import Any

from tfx.components import CsvExampleGen, Pusher, SchemaGen, StatisticsGen, Trainer, Transform
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2, trainer_pb2

from stillhouse.components.distillation_trainer import DistillationTrainer
from stillhouse.components.soft_targets import SoftTargets
from stillhouse.modules.code_fingerprint import code_fingerprint
from stillhouse.modules.settings import Optimizer, Schedule, WeightedEnsemble
from stillhouse.modules.training.config import DistillationConfig, TrainingConfig

RUN_FN = "stillhouse.modules.training.launch.run_fn"
EPOCHS = 10


def plain_pipeline(data: str, task: str, label: str, root: str, push: str) -> Pipeline:
    """Returns a pipeline that trains a teacher, caches its logits, distils a student from them and pushes it.

    Args:
      data: folder of CSV files with a header.
      task: import path of a task module.
      label: name of the label column.
      root: folder of artifacts and of the metadata store.
      push: folder that gets a version of the student.
    """
    examples = CsvExampleGen(input_base=data)
    statistics = StatisticsGen(examples=examples.outputs["examples"])
    schema = SchemaGen(statistics=statistics.outputs["statistics"])
    transform = Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn=f"{task}.preprocessing_fn",
        disable_statistics=True,
    )
    transformed: dict[str, Any] = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
    }
    # TFX's cache sees import paths, not the code behind them, so its fingerprint goes along.
    code = code_fingerprint(RUN_FN.rpartition(".")[0]) + code_fingerprint(task)

    teacher_config = TrainingConfig(
        name="Teacher",
        role="teacher",
        task=task,
        label=label,
        builder="build_teacher",
        epochs=EPOCHS,
        optimizer=Optimizer(learning_rate=0.01),
        code=code,
    )
    teacher = Trainer(
        run_fn=RUN_FN,
        custom_config=teacher_config.model_dump(mode="json"),
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        **transformed,
    ).with_id("Teacher")

    soft_targets = SoftTargets(
        teachers=[teacher.outputs["model"]],
        label=label,
        head="classification",
        dtype="float32",
        batch_size=256,
        **transformed,
    )
    student_config = TrainingConfig(
        name="Student",
        role="student",
        task=task,
        label=label,
        builder="build_student",
        epochs=EPOCHS,
        optimizer=Optimizer(learning_rate=0.03),
        code=code,
        distillation=DistillationConfig(
            objective="kl_divergence",
            temperature=Schedule(start=2.0, end=2.0),
            alpha=Schedule(start=0.9, end=0.9),
            ensemble=WeightedEnsemble(weights=[1.0]),
        ),
    )
    student = DistillationTrainer(
        run_fn=RUN_FN,
        custom_config=student_config.model_dump(mode="json"),
        soft_targets=soft_targets.outputs["soft_targets"],
        **transformed,
    ).with_id("Student")

    destination = pusher_pb2.PushDestination(filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=push))
    pusher = Pusher(model=student.outputs["model"], push_destination=destination)
    return Pipeline(
        pipeline_name="plain-tfx",
        pipeline_root=root,
        components=[examples, statistics, schema, transform, teacher, soft_targets, student, pusher],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{root}/metadata.sqlite"),
        # Beam's runner in this process; its default one looks for a binary to download first.
        beam_pipeline_args=["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"],
    )


def main() -> None:
    """Runs the pipeline on this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "task", "label", "root", "push"):
        parser.add_argument(f"--{name}", required=True)
    arguments = vars(parser.parse_args())
    for name in ("data", "root", "push"):
        arguments[name] = str(Path(arguments[name]).absolute())
    LocalDagRunner().run(plain_pipeline(**arguments))


if __name__ == "__main__":
    main()
