"""The digits pipeline as a script in the style of TFX's penguin template: the anchor of this benchmark.

python benchmarks/local_run/stock.py ROOT

`from tfx import v1`, stock components, stock LocalDagRunner with its defaults; training as the template trains:
data_accessor.tf_dataset_factory, Keras fit, a serving signature. Nodes, networks, epochs and batch sizes are those of
pipelines/examples/digits.yaml. Where no stock component exists (student of several teachers, ensemble, gates, serving
check, report), it takes ours. Its student asks the teachers in every step, as the Keras example of distillation does;
it has no SoftTargets and no DarkKnowledge, which our run has besides.
"""

import json
import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx import v1 as tfx
from tfx_bsl.public import tfxio

from stillhouse.modules.tasks import digits

LABEL = "label"
BATCH = 64


def _input_fn(file_pattern, data_accessor, transform, batch_size):
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, label_key=LABEL)
    return data_accessor.tf_dataset_factory(
        file_pattern, options, schema=transform.transformed_metadata.schema
    ).repeat()


class Distiller(keras.Model):
    """As in the Keras examples: teacher and student forward, weighted losses."""

    def __init__(self, student, teachers, temperature, alpha):
        super().__init__()
        self.student, self.teachers, self.temperature, self.alpha = student, teachers, temperature, alpha

    def train_step(self, data):
        """One update."""
        x, y = data
        soft = tf.reduce_mean(
            [
                tf.nn.softmax(t.signatures["logits"](image=x["image"])["logits"] / self.temperature)
                for t in self.teachers
            ],
            axis=0,
        )
        with tf.GradientTape() as tape:
            z = self.student(x["image"], training=True)
            hard_loss = keras.losses.sparse_categorical_crossentropy(y, z, from_logits=True)
            soft_loss = keras.losses.kl_divergence(soft, tf.nn.softmax(z / self.temperature)) * self.temperature**2
            loss = tf.reduce_mean((1 - self.alpha) * hard_loss + self.alpha * soft_loss)
        self.optimizer.minimize(loss, self.student.trainable_variables, tape=tape)
        return {"loss": loss}


def run_fn(fn_args):
    """Trains teacher, baseline or student, as custom_config says, and saves it."""
    config = fn_args.custom_config
    transform = tft.TFTransformOutput(fn_args.transform_output)
    dataset = _input_fn(fn_args.train_files, fn_args.data_accessor, transform, BATCH)
    examples = sum(
        1
        for pattern in fn_args.train_files
        for _ in tf.data.TFRecordDataset(tf.io.gfile.glob(pattern), compression_type="GZIP")
    )
    steps = -(-examples // BATCH)
    keras.utils.set_random_seed(config["seed"])
    model = digits.build_teacher(width=32) if config["role"] == "teacher" else digits.build_student(width=8)
    rate = keras.optimizers.schedules.CosineDecay(config["learning_rate"], steps * config["epochs"])
    optimizer = keras.optimizers.Adam(rate)
    if config.get("teachers"):
        teachers = [tf.saved_model.load(path) for path in config["teachers"]]
        trained = Distiller(model, teachers, temperature=config["temperature"], alpha=config["alpha"])
        trained.compile(optimizer=optimizer)
    else:
        trained = model
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trained.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    trained.fit(dataset, epochs=config["epochs"], steps_per_epoch=steps, verbose=0)

    model.tft_layer = transform.transform_features_layer()
    examples_spec = tf.TensorSpec([None], tf.string, name="examples")

    @tf.function(input_signature=[examples_spec])
    def serve(examples):
        spec = transform.raw_feature_spec()
        spec.pop(LABEL)
        features = model.tft_layer(tf.io.parse_example(examples, spec))
        return {"probabilities": tf.nn.softmax(model(features["image"]))}

    @tf.function(input_signature=[examples_spec])
    def transformed_labels(examples):
        features = model.tft_layer(tf.io.parse_example(examples, transform.raw_feature_spec()))
        return {f"transformed_{LABEL}": tf.reshape(features[LABEL], [-1])}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")])
    def logits(image):
        return {"logits": model(image)}

    signatures = {"serving_default": serve, "transformed_labels": transformed_labels, "logits": logits}
    tf.saved_model.save(model, fn_args.serving_model_dir, signatures=signatures)
    # What our ensemble and report want to know of a model.
    card = os.path.join(fn_args.serving_model_dir, "assets.extra", "stillhouse.json")
    os.makedirs(os.path.dirname(card))
    with open(card, "w") as file:
        json.dump({"parameters": model.count_params(), "head": "classification"}, file)


def create_pipeline(root: str) -> tfx.dsl.Pipeline:
    """Returns the pipeline with the nodes of ours."""
    from pathlib import Path

    from stillhouse.components.blessing import Blessing
    from stillhouse.components.blessing.gates import Gate
    from stillhouse.components.distillation_trainer import DistillationTrainer
    from stillhouse.components.ensemble import Ensemble
    from stillhouse.components.evaluator import Evaluator
    from stillhouse.components.last_pushed import LastPushed
    from stillhouse.components.predictions import Predictions
    from stillhouse.components.report import ComparedModel, Report
    from stillhouse.components.serving_check import ServingCheck
    from stillhouse.modules.settings import load_settings
    from stillhouse.pipelines.dag.eval_config import eval_config

    settings = load_settings(Path("pipelines/examples/digits.yaml"))
    example_gen = tfx.components.CsvExampleGen(
        input_base=os.path.abspath("data/digits"),
        output_config=tfx.proto.Output(
            split_config=tfx.proto.SplitConfig(
                splits=[
                    tfx.proto.SplitConfig.Split(name="train", hash_buckets=4),
                    tfx.proto.SplitConfig.Split(name="eval", hash_buckets=1),
                ]
            )
        ),
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = tfx.components.StatisticsGen(examples=examples)
    schema_gen = tfx.components.SchemaGen(statistics=statistics_gen.outputs["statistics"])
    schema = schema_gen.outputs["schema"]
    validator = tfx.components.ExampleValidator(statistics=statistics_gen.outputs["statistics"], schema=schema)
    transform = tfx.components.Transform(
        examples=examples, schema=schema, preprocessing_fn="stillhouse.modules.tasks.digits.preprocessing_fn"
    )
    data = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
    }

    def trainer(name, role, of, seed):
        config = {"role": role, "seed": seed, "epochs": of.epochs, "learning_rate": of.optimizer.learning_rate}
        return tfx.components.Trainer(
            run_fn="benchmarks.local_run.stock.run_fn",
            custom_config=config,
            train_args=tfx.proto.TrainArgs(),
            eval_args=tfx.proto.EvalArgs(),
            **data,
        ).with_id(name)

    kind = settings.teachers[0]
    trainers = [trainer(f"Teacher-{i}", "teacher", kind, i) for i in range(1, kind.copies + 1)]
    teachers = [node.outputs["model"] for node in trainers]
    baseline = trainer("Baseline", "baseline", settings.student, 1)
    of = settings.student
    config = {"role": "student", "seed": 1, "epochs": of.epochs, "learning_rate": of.optimizer.learning_rate}
    config |= {"temperature": of.distillation.temperature.start, "alpha": of.distillation.alpha.start}
    student = DistillationTrainer(
        run_fn="benchmarks.local_run.stock.run_fn", teachers=teachers, custom_config=config, **data
    ).with_id("Student")
    ensemble = Ensemble(
        teachers=teachers,
        transform_graph=data["transform_graph"],
        label=LABEL,
        head="classification",
        ensemble={"weights": [1.0] * len(teachers), "combination": "arithmetic"},
    )
    model = student.outputs["model"]
    push_path = os.path.join(root, "serving")
    last_pushed = LastPushed(push_path=push_path, student=model)

    others = {"teacher": "Ensemble", "baseline": "Baseline", "pushed": "Pushed"}
    gates = [Gate(name, other, "accuracy", False, -1.0) for name, other in others.items()]
    compared = [
        *(ComparedModel(f"Teacher-{i}", "teacher", of) for i, of in enumerate(teachers, start=1)),
        ComparedModel("Ensemble", "ensemble", ensemble.outputs["model"]),
        ComparedModel("Baseline", "baseline", baseline.outputs["model"]),
        ComparedModel("Student", "student", model),
        ComparedModel("Pushed", "pushed", last_pushed.outputs["model"]),
    ]
    models, names = [each.model for each in compared], [each.name for each in compared]
    evaluator = Evaluator(models, names, examples, eval_config(settings))
    evaluation = evaluator.outputs["evaluation"]
    predictions = Predictions(
        models=models,
        names=names,
        examples=examples,
        label=LABEL,
        head="classification",
    )
    blessing = Blessing(
        model=model,
        gates=gates,
        evaluation=evaluation,
        predictions=predictions.outputs["predictions"],
    )
    serving_check = ServingCheck(model=model, examples=examples, evaluation=evaluation, label=LABEL)
    pusher = tfx.components.Pusher(
        model=model,
        model_blessing=blessing.outputs["blessing"],
        infra_blessing=serving_check.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=push_path)
        ),
    )
    report = Report(
        pipeline="stock",
        label=LABEL,
        models=compared,
        examples=examples,
        evaluation=evaluation,
        blessing=blessing.outputs["blessing"],
        infra_blessing=serving_check.outputs["blessing"],
        pushed_model=pusher.outputs["pushed_model"],
        predictions=predictions.outputs["predictions"],
        statistics=statistics_gen.outputs["statistics"],
        schema=schema,
        anomalies=validator.outputs["anomalies"],
        gate_metric="accuracy",
        settings=settings.model_dump_json(by_alias=True),
        commit="",
    )
    return tfx.dsl.Pipeline(
        pipeline_name="stock",
        pipeline_root=os.path.join(root, "artifacts"),
        components=[
            example_gen,
            statistics_gen,
            schema_gen,
            validator,
            transform,
            *trainers,
            baseline,
            student,
            ensemble,
            last_pushed,
            evaluator,
            predictions,
            blessing,
            serving_check,
            pusher,
            report,
        ],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            os.path.join(root, "metadata.sqlite")
        ),
    )


if __name__ == "__main__":
    tfx.orchestration.LocalDagRunner().run(create_pipeline(os.path.abspath(sys.argv[1])))
