"""One update of a network: on hard labels, or on hard labels and what teachers say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.distillation.head_per_teacher import logits_of_heads
from stillhouse.modules.distillation.hints import Hints
from stillhouse.modules.distillation.objectives import Objective
from stillhouse.modules.ingestion.views import PARTNER, SHARE
from stillhouse.modules.ingestion.waiting import INPUT_WAIT
from stillhouse.modules.large_models.accumulation import accumulate
from stillhouse.modules.large_models.pipeline import Pipeline
from stillhouse.modules.large_models.timeline import Timed, clock
from stillhouse.modules.models.autograph import needs_autograph
from stillhouse.modules.models.combination import combine
from stillhouse.modules.models.heads import HEADS, Head
from stillhouse.modules.models.random_generators import generators_of
from stillhouse.modules.models.teachers import LOGITS
from stillhouse.modules.training.precision import scales_loss
from stillhouse.modules.training.step_means import StepMeans

# Name in the training history: mean number of other workers' updates meanwhile.
STALENESS = "staleness"

LABELLED = "labelled"  # among the totals of a pass


@dataclass(frozen=True)
class Distillation:
    """How a student learns from teachers: (1 − alpha) · hard + alpha · soft, and hints."""

    objective: Objective
    weights: list[float]  # of the teachers
    combination: str
    alpha: float  # of the first epoch; `annealing.Annealing` sets the others
    temperature: float
    hints: Hints | None = None
    head_per_teacher: bool = False  # the network has a head for each teacher, which learns from it alone


class Learner(keras.Model):
    """Trains a network.

    The loss of a step is the sum of the per-example losses over all replicas divided by the number of examples
    over all replicas, so that a partial last batch, and replicas with unequal shares of it, weigh every example
    the same. An example without a label has no hard term; its soft term weighs the same as that of the others.
    """

    def __init__(
        self,
        network: keras.Model,
        head: Head = HEADS["classification"],
        distillation: Distillation | None = None,
        predict_targets: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]] | None = None,
        label_smoothing: float = 0.0,
        micro_batches: int = 1,
        prepare_forward: Callable[[keras.Model], Callable] | None = None,
        make_pipeline: Callable[[keras.Model], Pipeline] | None = None,
        reports_staleness: bool = False,
    ):
        """Builds the learner.

        Args:
          network: from transformed features to the outputs of `head`.
          head: what the outputs mean.
          distillation: None trains on hard labels alone.
          predict_targets: the teachers' predictions of a batch of features; None: batches carry cached soft targets.
          label_smoothing: of the hard term.
          micro_batches: parts of a batch that pass one after the other; their gradients are added up to one update.
          prepare_forward: returns what to call for a forward pass instead of the network, such as its rematerialised
            self.
          make_pipeline: returns the network in stages, which micro-batches pass on their devices.
          reports_staleness: also report how many updates others did between reading the weights and applying the
            gradients.
        """
        super().__init__()
        self.network = network
        self._head = head
        self._distillation = distillation
        self._predict_targets = predict_targets
        self._label_smoothing = label_smoothing
        self._hints = distillation.hints if distillation else None
        self._forward = network
        if self._hints:
            self._forward = keras.Model(network.inputs, [network.output, *self._hints.student_layers])
        self._pipeline = make_pipeline(self._forward) if make_pipeline else None
        if prepare_forward:
            self._forward = prepare_forward(self._forward)
        self._micro_batches = micro_batches
        self._losses = ("loss", "hard_loss", "soft_loss") if distillation else ("loss",)
        self._reports_staleness = reports_staleness
        self._means = StepMeans([*self._losses, head.quality, INPUT_WAIT, *([STALENESS] if reports_staleness else [])])
        if distillation:
            self.alpha = tf.Variable(distillation.alpha, trainable=False, dtype=tf.float32)
            self.temperature = tf.Variable(distillation.temperature, trainable=False, dtype=tf.float32)
        self.update = self._update
        if not needs_autograph(network):
            self.update = tf.autograph.experimental.do_not_convert(self._update)

    @property
    def metrics(self):
        """Reset by Keras at the start of each epoch."""
        return [self._means]

    @property
    def means(self) -> StepMeans:
        """Losses and quality of the epoch so far."""
        return self._means

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        parts = {"network": self.network, "optimizer": self.optimizer, "means": self._means}
        if self._hints:
            parts["hints"] = self._hints
        generators = generators_of(self.network)
        return parts | {
            f"random_{number}": generator for number, generator in enumerate(generators) if generator is not None
        }

    @property
    def forward(self) -> Callable:
        """The callable for a forward pass in one piece."""
        return self._forward

    @property
    def learnt(self) -> list[tf.Variable]:
        """What the optimiser changes: the network's weights and the hints' projections."""
        projections = self._hints.trainable_variables if self._hints else []
        return self.network.trainable_variables + projections

    def train_step(self, data):
        """One update; `data` is (({feature: [batch, ...]}, labels, {target: [batch, ...]}), waited).

        `waited` are the seconds, float32, that it took to get the batch.
        """
        return self.update(data)

    def losses_of(self, features, labels, targets, training: bool) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Returns {loss, hard_loss, soft_loss}, float32 [batch] each, and the logits, of one batch.

        hard_loss is 0 where there is no label. The loss does not have the network's own regularisation losses.
        """
        return self._losses_from(self._forward(self._inputs(features), training=training), features, labels, targets)

    def targets_of(self, features, targets) -> dict[str, tf.Tensor]:
        """Returns the cached `targets` of a batch, or with them the online teachers' predictions."""
        if not self._predict_targets:
            return targets
        return targets | tf.nest.map_structure(tf.stop_gradient, self._predict_targets(features))

    def _inputs(self, features):
        return {name: features[name] for name in self.network.input_names}

    def _losses_from(self, output, features, labels, targets):
        """As `losses_of`, from what the forward pass gave."""
        output, *states = output if self._hints else [output]
        distillation, head = self._distillation, self._head
        if distillation is None:
            logits = head.logits(output)
            return {"loss": self._hard_loss(labels, targets, logits)}, logits
        targets = self.targets_of(features, targets)
        if distillation.head_per_teacher:
            head_logits = logits_of_heads(output, head, len(distillation.weights))
            logits = combine(head_logits, distillation.weights, 1.0, distillation.combination, head.name)
            pairs = list(zip(tf.unstack(head_logits, axis=1), tf.unstack(targets[LOGITS], axis=1), strict=True))
            shares = [weight / sum(distillation.weights) for weight in distillation.weights]
        else:
            logits = head.logits(output)
            teacher = combine(
                targets[LOGITS], distillation.weights, self.temperature, distillation.combination, head.name
            )
            pairs, shares = [(logits, teacher)], [1.0]
        temperature = tf.convert_to_tensor(self.temperature)
        hard, soft = 0.0, 0.0
        for (student, teacher), share in zip(pairs, shares, strict=True):
            hard += share * self._hard_loss(labels, targets, student)
            soft += share * head.of_examples(distillation.objective(student, teacher, temperature), labels)
        loss = (1.0 - self.alpha) * hard + self.alpha * soft
        if self._hints:
            loss += self._hints([tf.cast(state, tf.float32) for state in states], targets)
        return {"loss": loss, "hard_loss": hard, "soft_loss": soft}, logits

    def _hard_loss(self, labels, targets, logits) -> tf.Tensor:
        return tf.add_n(
            [
                weight * self._head.hard_loss(safe, logits, self._label_smoothing)
                for weight, safe in self._weighted_labels(labels, targets)
            ]
        )

    def _weighted_labels(self, labels, targets) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Returns the labels of the examples, each with its weight, float32 [batch], 0 where there is none.

        One, or of a batch of mixup two: the example's own and its partner's, with their shares.
        """
        weighted = [(1.0, labels)]
        if PARTNER in targets:
            weighted = [(targets[SHARE], labels), (1.0 - targets[SHARE], targets[PARTNER])]
        head = self._head
        return [
            (share * tf.cast(head.is_labelled(each), tf.float32), head.safe_labels(each)) for share, each in weighted
        ]

    def _update(self, data):
        (features, labels, targets), waited = data
        replicas = tf.distribute.get_replica_context()
        own_examples = examples = tf.cast(tf.shape(labels)[0], tf.float32)
        if replicas.num_replicas_in_sync > 1:
            examples = replicas.all_reduce(tf.distribute.ReduceOp.SUM, own_examples)
        before = self.optimizer.iterations.read_value() if self._reports_staleness else None

        def passed(batch, share=None):
            return self._passed(batch, examples, share, replicas.num_replicas_in_sync)

        batch = (features, labels, targets)
        if self._pipeline:
            gradients, totals = self._piped(self._pipeline, batch, examples, replicas.num_replicas_in_sync)
        elif self._micro_batches == 1:
            gradients, totals = passed(batch)
        else:
            of_pass = [*self._losses, self._head.quality, LABELLED]
            gradients, totals = accumulate(passed, batch, self._micro_batches, self.learnt, of_pass)
        if self._reports_staleness:
            with tf.control_dependencies([part for part in gradients if part is not None]):
                staleness = self.optimizer.iterations.read_value() - before
        if scales_loss(self.optimizer):
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.learnt, strict=True))
        labelled = totals.pop(LABELLED)
        counts = dict.fromkeys(totals, own_examples)
        counts |= dict.fromkeys(["hard_loss", self._head.quality], labelled)
        totals[INPUT_WAIT], counts[INPUT_WAIT] = waited, tf.ones([])
        if self._reports_staleness:
            totals[STALENESS], counts[STALENESS] = tf.cast(staleness, tf.float32), tf.ones([])
        self._means.update_state(totals, counts)
        return self._means.result()

    def _passed(self, batch, examples, share, replicas):
        """One forward and backward pass.

        Args:
          batch: (features, labels, targets), or a part of it.
          examples: float32 [], of the whole batch over all replicas.
          share: float32 [], of this part in the replica's batch; None: it is all of it.
          replicas: their number.

        Returns:
          The gradients of the (scaled) loss by `learnt`, None for what it does not depend on, and {name: float32 []}:
          sums of the losses and the quality over the examples, and LABELLED, the number of examples with a label; an
          example of mixup counts by the shares that have one.
        """
        features, labels, targets = batch
        with tf.GradientTape() as tape:
            losses, logits = self.losses_of(features, labels, targets, training=True)
            loss = tf.reduce_sum(losses["loss"]) / examples
            if self.network.losses:
                of_network = tf.add_n(self.network.losses) / replicas
                loss += of_network if share is None else of_network * share
            loss = self._scaled(loss)
        return tape.gradient(loss, self.learnt), self._totals(losses, logits, labels, targets)

    def _piped(self, pipeline: Pipeline, batch, examples, replicas):
        """As `_passed`, stage by stage."""
        loss_of = self._loss_of_stages(examples)
        gradients, totals = pipeline.gradients(self._inputs(batch[0]), batch, loss_of, self.learnt)
        if self.network.losses:
            with tf.GradientTape() as tape:
                of_network = self._scaled(tf.add_n(self.network.losses) / replicas)
            for number, gradient in enumerate(tape.gradient(of_network, self.learnt)):
                if gradient is not None:
                    gradients[number] = gradient if gradients[number] is None else gradients[number] + gradient
        return gradients, totals

    def _scaled(self, loss):
        return self.optimizer.get_scaled_loss(loss) if scales_loss(self.optimizer) else loss

    def _loss_of_stages(self, examples):
        def loss_of(output, part):
            features, labels, targets = part
            losses, logits = self._losses_from(output, features, labels, targets)
            return self._scaled(tf.reduce_sum(losses["loss"]) / examples), self._totals(losses, logits, labels, targets)

        return loss_of

    def clocked(self, batch) -> list[Timed]:
        """Returns the passes of a step in stages that changes no weight, on `batch`: (features, labels, targets)."""
        assert self._pipeline, "only a network in stages has passes"
        return clock(self._pipeline, self._inputs(batch[0]), batch, self._loss_of_stages(1.0), self.learnt)

    def _totals(self, losses, logits, labels, targets) -> dict[str, tf.Tensor]:
        weighted = self._weighted_labels(labels, targets)
        present = tf.add_n([weight for weight, _ in weighted])
        quality = tf.add_n([weight * self._head.quality_of(safe, logits) for weight, safe in weighted])
        totals = {name: tf.reduce_sum(values) for name, values in (losses | {self._head.quality: quality}).items()}
        return totals | {LABELLED: tf.reduce_sum(present)}
