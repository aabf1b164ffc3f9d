"""The run_fn of every Trainer: teachers, baseline and student alike.

Reads from top to bottom: configuration, data, network, objective, loop, export.
"""

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.cluster import members, supervisor
from stillhouse.modules.cluster.strategies import (
    OF_PROCESSES,
    STAGES,
    is_asynchronous,
    is_chief,
    make_strategy,
    tf_config,
)
from stillhouse.modules.distillation.annealing import Schedules, value_at
from stillhouse.modules.distillation.head_per_teacher import CombinedHeads, with_heads
from stillhouse.modules.distillation.hints import Hints
from stillhouse.modules.distillation.objectives import find_objective
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import first_batch
from stillhouse.modules.ingestion.files import example_files
from stillhouse.modules.ingestion.service import input_service
from stillhouse.modules.ingestion.soft_targets import SoftTargetsCard
from stillhouse.modules.ingestion.stream import steps_in
from stillhouse.modules.ingestion.waiting import INPUT_SHARE, typical, verdict
from stillhouse.modules.large_models.fitting import Memory, examples_passing, prepared
from stillhouse.modules.large_models.parallelism import (
    Parallelism,
    micro_batches_of,
    plan_stages,
    stage_devices,
    strategy_of_stages,
)
from stillhouse.modules.models.card import read_card, write_card
from stillhouse.modules.models.export import export_network, export_pretrained
from stillhouse.modules.models.heads import HEADS, Head
from stillhouse.modules.models.task import build_model
from stillhouse.modules.models.teachers import (
    LOGITS,
    Faults,
    Teacher,
    check_widths,
    load_teachers,
    predict_targets,
    target_shapes,
)
from stillhouse.modules.models.weights import copy_weights, last_pushed, pretrained
from stillhouse.modules.peak_memory import forget_peak, peak_mb
from stillhouse.modules.training.checkpoints import Checkpoints, StepCheckpoints
from stillhouse.modules.training.config import TrainingConfig, identity_of
from stillhouse.modules.training.data import (
    check_batches,
    check_labels,
    decide_cache,
    feature_spec_of,
    make_datasets,
    masking_of,
    read_data,
)
from stillhouse.modules.training.event_files import EventFiles
from stillhouse.modules.training.job import job_of
from stillhouse.modules.training.learner import Distillation, Learner
from stillhouse.modules.training.loop import Steps, run_custom, run_fit
from stillhouse.modules.training.precision import layers_compute_in, with_loss_scale
from stillhouse.modules.training.report import EpochReport, EpochSize, draw_step, held_out, ledgers_of, listed

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs

# Steps in one call of the compiled training loop. More of them save the way through Python, which is longer than a
# step of a small model; a Ctrl-C waits for the call to end.
MOST_STEPS_PER_EXECUTION = 32

# Of an epoch, at the least, where calls are handed out to workers.
CALLS_PER_WORKER = 8

# Teachers that are asked online are asked about so many examples before the training starts.
CHECKED_EXAMPLES = 1024

# By class: keras.optimizers.get would give the legacy ones.
OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


def make_optimizer(settings: dict[str, Any], updates: int) -> keras.optimizers.Optimizer:
    """Returns the optimiser of the settings {name, learning_rate, schedule}, its schedule spread over `updates`."""
    rate = settings["learning_rate"]
    if settings["schedule"] == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=updates)
    return OPTIMIZERS[settings["name"]](learning_rate=rate)


def _assignable_in_replicas(next_creator, **settings):
    # Keras assigns a schedule's learning rate, the same, in every replica; CentralStorage wants to know whose counts.
    return next_creator(**settings | {"aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA})


def make_distillation(
    config: TrainingConfig, network: keras.Model, teachers: list[Teacher], card: SoftTargetsCard | None
) -> Distillation:
    """Returns how the student learns, from the settings in `config.distillation`.

    Raises:
      UserError: teachers or hints do not fit the student.
    """
    settings = config.distillation
    width = HEADS[config.head].width(network.output_shape[-1] // config.heads)
    if card:
        count, outputs = card.shapes[LOGITS]
        check_widths(dict.fromkeys(card.teachers, outputs), width)
        shapes = card.shapes
    else:
        count = len(teachers)
        check_widths({teacher.name: teacher.outputs for teacher in teachers}, width)
        shapes = target_shapes(teachers) if teachers else {}
    if len(settings["weights"]) != count:
        raise UserError(f"{config.name}: {len(settings['weights'])} teachers are wanted, there are {count}")
    return Distillation(
        objective=find_objective(settings["objective"], config.head),
        weights=settings["weights"],
        combination=settings["combination"],
        alpha=value_at(settings["alpha"], 0, config.epochs),
        temperature=value_at(settings["temperature"], 0, config.epochs),
        hints=Hints(settings["hints"], network, shapes) if settings["hints"] else None,
        head_per_teacher=config.heads > 1,
    )


def train(config: TrainingConfig, fn_args: "FnArgs") -> tuple[keras.Model, dict[str, Any]]:
    """Trains the network of `config` and returns it, outside of any strategy, with its model card.

    A training that was stopped goes on from its last checkpoint.

    Raises:
      UserError: task module, labels, teachers, soft targets or strategy do not fit together.
    """
    config = decide_cache(config, fn_args)
    forget_peak()
    before_mb = psutil.Process().memory_info().rss / 1e6
    identity = identity_of(config, fn_args)  # before Keras wraps lists and dicts of the settings in its own
    keras.backend.clear_session()
    keras.utils.set_random_seed(config.seed)
    # Random generators whose states are variables, which checkpoints hold.
    keras.backend.experimental.enable_tf_random_generator()
    parallelism, devices = Parallelism(**config.parallelism), []
    # Before any operation: a cluster is joined here.
    if parallelism.stages > 1:
        devices = stage_devices(parallelism)
        strategy = strategy_of_stages(parallelism, devices)
    else:
        strategy = make_strategy(**config.strategy)
    if config.cluster_kind:
        members.check_versions(fn_args.model_run_dir, tf_config())
    feature_spec = feature_spec_of(config, fn_args)
    head: Head = HEADS[config.head]

    data = read_data(config, fn_args, feature_spec)
    masking = masking_of(config, data)
    check_batches(config, strategy, data.examples)
    memory = Memory(**config.memory)
    passing = examples_passing(config.batch_size, strategy, memory)
    whole_batches = isinstance(strategy, tf.distribute.TPUStrategy)
    steps = steps_in(data.examples, config.batch_size, whole_batches)

    if config.teachers:
        if is_asynchronous(strategy):
            raise UserError(
                f"{config.name}: TensorFlow does not load a SavedModel onto parameter servers, so teachers cannot be "
                "asked online; set student.distillation.targets: cached"
            )
        batch = first_batch(data.source.files.examples, feature_spec, config.label, head, CHECKED_EXAMPLES)
        features, *_ = masking(batch, tf.zeros([2], tf.int32)) if masking else batch
        check_answers(load_teachers(config.teachers, head), features, head)

    def network() -> keras.Model:
        features = {name: spec for name, spec in feature_spec.items() if name != config.label}
        if masking:
            features |= masking.specs(feature_spec[config.label])
        built = build_model(config.task, config.builder, config.hyperparameters, features, masked=bool(masking))
        return with_heads(built, config.heads) if config.heads > 1 else built

    def network_to_train() -> keras.Model:
        with layers_compute_in(config.precision):
            return network()

    if config.start:
        start = pretrained(fn_args.base_model, config.name, network, config.start["layers"])
    else:
        start = last_pushed(fn_args.base_model, config.name, network, fn_args.transform_graph_path)
    with strategy.scope(), tf.variable_creator_scope(_assignable_in_replicas):
        optimizer = with_loss_scale(make_optimizer(config.optimizer, steps * config.epochs), config.precision)
    stages, placed = None, nullcontext()
    if parallelism.stages > 1:
        micro_batches = micro_batches_of(parallelism, config.batch_size, data.examples)
        stages = plan_stages(network_to_train, parallelism, micro_batches, config.batch_size, devices, config.name)
        placed = stages.variables_on_stages()
        keras.utils.set_random_seed(config.seed)  # the same weights as in one piece
    with placed, strategy.scope():
        trained = network_to_train()
    with strategy.scope():
        check_labels(config, trained, data.train_labels, data.eval_labels)
        if start:
            copy_weights(start, trained)
        teachers = load_teachers(config.teachers, head)
        distillation = make_distillation(config, trained, teachers, data.parser.card) if config.distillation else None
        answers = (lambda features: predict_targets(teachers, features)) if teachers else None
        learner = Learner(
            trained,
            head,
            distillation,
            answers,
            config.label_smoothing,
            staleness=is_asynchronous(strategy),
            micro_batches=memory.micro_batches,
            prepare=lambda network: prepared(network, memory, passing, config.name),
            pipeline=(lambda network: stages.pipeline(network, config.name)) if stages else None,
        )
        steps_per_call = min(steps, MOST_STEPS_PER_EXECUTION)
        if is_asynchronous(strategy):  # a call is done by one worker; an epoch has to keep all of them busy
            steps_per_call = max(1, min(steps_per_call, steps // (config.strategy["workers"] * CALLS_PER_WORKER)))
        learner.compile(optimizer=optimizer, steps_per_execution=steps_per_call)

        def settle():
            if is_asynchronous(strategy):
                tf.distribute.coordinator.ClusterCoordinator(strategy).join()

        folder = os.path.join(config.checkpoint_folder, identity) if config.checkpoint_folder else None
        within_epochs = config.loop == "custom" or not is_asynchronous(strategy)
        make_checkpoints = StepCheckpoints if within_epochs else Checkpoints
        checkpoints = make_checkpoints(learner, folder, identity, steps, **config.checkpoints, settle=settle)

    if checkpoints.step:
        progress.note(f"{config.name}: going on at step {checkpoints.step} of {steps * config.epochs}")
    size = EpochSize(data.examples, steps, batches_of_each(strategy, config, steps))
    callbacks = [EpochReport(config.name, config.epochs, size), checkpoints]
    if is_chief(tf_config()):
        callbacks.append(EventFiles(fn_args.model_run_dir, config))
    if config.distillation:
        callbacks.insert(0, Schedules(config.distillation, config.epochs))
    run = run_custom if config.loop == "custom" else run_fit
    with input_service(data.options.service_workers) as service:
        run(
            Steps(
                learner=learner,
                strategy=strategy,
                datasets=make_datasets(config, data, strategy, service),
                first=checkpoints.step,
                per_epoch=steps,
                per_call=steps_per_call,
                epochs=config.epochs,
                callbacks=callbacks,
            )
        )

    if stages:
        draw_step(config, learner, stages, make_datasets(config, data, strategy), fn_args.model_run_dir)

    # A network of its own outside the strategy's scope: what is shipped carries no trace of how it was trained, nor the
    # generators of its dropout.
    keras.backend.experimental.disable_tf_random_generator()
    result = network()
    copy_weights(trained, result)
    speeds = checkpoints.history.pop("examples_per_second", [])
    shares = checkpoints.history.pop(INPUT_SHARE)
    progress.note(verdict(config.name, shares, data.options, config.augment))
    ledgers = ledgers_of(result, learner, stages, passing, config.batch_size)
    for part, kinds in ledgers.items():
        progress.note(f"{config.name}: memory of {part}, MB: {listed({kind: of / 1e6 for kind, of in kinds.items()})}")
    peak = {"process": peak_mb(), "before": before_mb}
    card = {
        "name": config.name,
        "role": config.role,
        "head": config.head,
        "strategy": config.strategy["name"],
        "loop": config.loop,
        "replicas": config.strategy.get("workers") if is_asynchronous(strategy) else strategy.num_replicas_in_sync,
        "updates": int(learner.optimizer.iterations.numpy()),
        "restarts": 0,
        "warm_started": start is not None and not config.start,
        "examples_per_second": typical(speeds) if speeds else None,
        "input_share": typical(shares),
        "cache": data.options.cache,
        "train_examples": data.examples,
        "transfer_examples": data.transfer_examples,
        "memory": {"bytes": ledgers, "peak_mb": peak},
        "history": checkpoints.history,
    }
    if masking:
        card["held_out"] = held_out(result, masking, example_files(fn_args.eval_files), data.parser)
        progress.note(f"{config.name}: masked sub-words of the eval split: {listed(card['held_out'])}")
    if not config.cluster_kind:
        progress.note(f"{config.name}: peak memory, MB: {listed(peak)}")
    return result, card


def check_answers(teachers: list[Teacher], features: dict[str, tf.Tensor], head: Head) -> None:
    """Checks what teachers say about some examples.

    Raises:
      UserError: a teacher says NaN, or probabilities.
    """
    faults = Faults([teacher.name for teacher in teachers], head)
    logits = predict_targets(teachers, features)[LOGITS].numpy()
    # Each masked position counts for itself.
    faults.count(np.moveaxis(logits, 2, 1).reshape(-1, len(teachers), logits.shape[-1]) if logits.ndim > 3 else logits)
    faults.refuse()


def batches_of_each(strategy: tf.distribute.Strategy, config: TrainingConfig, steps: int) -> int:
    """Returns how many batches each input pipeline gives in `steps` updates, all of them at the same time."""
    if is_asynchronous(strategy):
        return -(-steps // config.strategy["workers"])
    pipelines = config.strategy["workers"] if config.strategy["name"] in OF_PROCESSES else 1
    return steps * strategy.num_replicas_in_sync // pipelines


def run_fn(fn_args: "FnArgs") -> None:
    """Trains the model that `fn_args.custom_config` (a TrainingConfig as a dict) describes and exports it.

    A strategy of several processes is run as such: where TF_CONFIG is in the environment, this is one of them and
    joins the others, else they are started on this machine.

    Raises:
      UserError: as `train` does.
    """
    config = decide_cache(TrainingConfig(**fn_args.custom_config), fn_args)
    kind, cluster = config.cluster_kind, tf_config()
    if kind and cluster is None:
        course = supervisor.run_job(job_of(config, fn_args))
        card = read_card(fn_args.serving_model_dir)
        card["restarts"], card["memory"]["peak_mb"] = course.restarts, course.peaks_mb
        write_card(fn_args.serving_model_dir, card)
        progress.note(f"{config.name}: peak memory of its processes, MB: {listed(course.peaks_mb)}")
        forget_checkpoints(config)
        return
    if kind:
        members.check_port(cluster)
        members.announce(fn_args.model_run_dir, cluster)
    if kind in ("parameter_server", STAGES) and cluster["task"]["type"] != "chief":
        members.serve(cluster)
        return
    network, card = train(config, fn_args)
    if kind and not is_chief(cluster):
        return
    export(config, network, card, fn_args)
    if not kind:  # else others may still be writing
        forget_checkpoints(config)


def export(config: TrainingConfig, network: keras.Model, card: dict[str, Any], fn_args: "FnArgs") -> None:
    """Writes the trained network to `fn_args.serving_model_dir`: to be served, or, pre-trained, to start from."""
    path = fn_args.serving_model_dir
    if config.masking:
        export_pretrained(network, path, card, config.hidden_layers)
        return
    if config.heads > 1:
        settings = config.distillation
        combined = CombinedHeads(HEADS[config.head], settings["weights"], settings["combination"])
        network = keras.Model(network.inputs, combined(network.output))
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    export_network(network, transform, config.label, path, card, HEADS[config.head], config.hidden_layers)


def forget_checkpoints(config: TrainingConfig) -> None:
    """Removes the checkpoints of a training that is done."""
    if config.checkpoint_folder and tf.io.gfile.exists(config.checkpoint_folder):
        tf.io.gfile.rmtree(config.checkpoint_folder)
