"""The last part of a training job: its model card."""

from typing import Any

import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.cluster.strategies import is_asynchronous
from stillhouse.modules.ingestion.files import example_files
from stillhouse.modules.ingestion.waiting import INPUT_SHARE, median_after_first, verdict
from stillhouse.modules.models.card import read_card
from stillhouse.modules.peak_memory import peak_mb
from stillhouse.modules.training.build import BuiltTraining
from stillhouse.modules.training.config import eval_patterns, first_stage_of
from stillhouse.modules.training.plan import TrainingPlan
from stillhouse.modules.training.report import ledgers_of, listed
from stillhouse.modules.training.soft_term import SOFT_GRADIENT_SHARE
from stillhouse.modules.training.training_fidelity import training_fidelity
from stillhouse.modules.training.validation import PREFIX, best_epoch, evaluation_batches, make_measure


def card_of(
    plan: TrainingPlan,
    built: BuiltTraining,
    history: dict[str, list[float]],
    network: keras.Model,
    megabytes_before: float,
) -> dict[str, Any]:
    """Returns the model card, JSON-able, and reports its main values.

    Args:
      plan: of the training.
      built: what was trained.
      history: {metric: [value of each epoch]}, as `run_training` returns it.
      network: the trained network outside of any strategy.
      megabytes_before: resident set of this process when the training job began.
    """
    config, data, strategy = plan.config, plan.data, plan.strategy
    apart = ("examples_per_second", INPUT_SHARE, SOFT_GRADIENT_SHARE)
    metrics = {name: values for name, values in history.items() if name not in apart}
    speeds, input_shares = history.get("examples_per_second", []), history[INPUT_SHARE]
    progress.note(verdict(config.name, input_shares, data.options, config.augment and not data.parser.views))
    ledgers = ledgers_of(network, built.learner, built.stages, plan.examples_passing, config.batch_size)
    for part, kinds in ledgers.items():
        megabytes = {kind: size / 1e6 for kind, size in kinds.items()}
        progress.note(f"{config.name}: memory of {part}, MB: {listed(megabytes)}")
    peak = {"process": peak_mb(), "before": megabytes_before}
    card = {
        "name": config.name,
        "role": config.role,
        "head": config.head,
        "strategy": config.strategy.name,
        "loop": config.loop,
        "replicas": config.strategy.workers if is_asynchronous(strategy) else strategy.num_replicas_in_sync,
        "updates": int(built.learner.optimizer.iterations.numpy()),
        "first_stage_updates": first_stage_updates(plan),
        "restarts": 0,
        "warm_started": built.warm_started,
        "examples_per_second": median_after_first(speeds) if speeds else None,
        "input_share": median_after_first(input_shares),
        "cache": data.options.cache,
        "train_examples": data.examples,
        "transfer_examples": data.transfer_examples,
        "views": {name: value for name, value in config.input_changes().model_dump().items() if value},
        "memory": {"bytes": ledgers, "peak_mb": peak},
        "history": metrics,
    }
    if data.validation_labels:
        card["validation"] = _validation_of(plan, history)
    fidelity = training_fidelity(plan, built, network)
    if fidelity:
        (share,) = history.get(SOFT_GRADIENT_SHARE, [None])
        card["distillation"] = fidelity | {SOFT_GRADIENT_SHARE: share}
    if plan.masking:
        batches = evaluation_batches(example_files(eval_patterns(plan.fn_args)), data.parser, plan.masking)
        figures = make_measure(network, plan.head)(batches)
        card["held_out"] = figures
        progress.note(f"{config.name}: masked language modelling on the eval split: {listed(figures)}")
    if plan.cluster is None:
        progress.note(f"{config.name}: peak memory, MB: {listed(peak)}")
    return card


def _validation_of(plan: TrainingPlan, history: dict[str, list[float]]) -> dict[str, Any]:
    """Returns which epoch is exported (from 1), of how many, and its figures on the validation split."""
    config, quality = plan.config, plan.head.quality
    losses = history[f"{PREFIX}loss"]
    best = best_epoch(history, quality) if config.keep == "best" else None
    kept = len(losses) - 1 if best is None else best
    figures = {name: history[PREFIX + name][kept] for name in ("loss", quality)}
    progress.note(
        f"{config.name}: weights of epoch {kept + 1} of {len(losses)}"
        f"{', the best' if best is not None else ''} on the validation split: {listed(figures)}"
    )
    return {"metric": quality, "keep": config.keep, "best_epoch": kept + 1, "epochs": len(losses), **figures}


def first_stage_updates(plan: TrainingPlan) -> int:
    """Returns the updates of the student's first stage, on soft targets alone; 0: it has none."""
    start = plan.config.start
    if not start or start.pretraining != first_stage_of(plan.config.name):
        return 0
    return read_card(plan.fn_args.base_model)["updates"]
