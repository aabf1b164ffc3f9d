"""From the figures of a run to sentences: what distillation gained, why not more, and what to do about it.

The sentences come in this order, at most MAX_SENTENCES of them: a soft term that does nothing; the outcome against the
baseline; causes, as far as there was something to transfer and the student has not got most of it.
"""

from dataclasses import dataclass

MAX_SENTENCES = 3
# A student with this share of the gap has what there is to get: the goal that the project has for its own examples.
MOST_OF_THE_GAP = 0.8
# Fraction of the maximal entropy below which soft targets are labels in all but name: cached targets of digits hold
# 2 %, and students gained nothing from them (benchmarks/digits_seeds).
REPEATED_LABELS = 0.05
# Agreement with the teachers on its own training inputs below which a student has not learnt what it was taught.
LEARNT = 0.9
# Alpha from which a student is meant to follow its teachers more than the labels.
MOSTLY_TEACHERS = 0.5
# A student that agrees with its teachers on so many of its training inputs has learnt all that these can teach; if it
# agrees on this much less of the eval examples, other inputs would teach it more.
LEARNT_BY_HEART, DROP_ON_EVAL = 0.98, 0.03
# Share of the gradient below which the soft term is lost in the noise of a batch: two batches differ by far more.
MIN_GRADIENT_SHARE = 0.01
# Of the examples on which only one of the reference and the baseline is right, those on which it is the baseline. At
# one half the teachers know other things than the baseline, not more.
OTHER_MISTAKES, MIN_EXAMPLES_TO_TELL = 0.4, 30


@dataclass(frozen=True)
class Change:
    """A change of the metric from one model to another, positive where it gets better, with its paired interval."""

    change: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.change:+.4f}, {self.confidence:.0%} interval {self.low:+.4f} to {self.high:+.4f}"


@dataclass(frozen=True)
class Facts:
    """The figures of a run; None: unknown, or meaningless for the head."""

    metric: str
    reference: str  # name of the ensemble, or of the one teacher
    baseline: str | None  # name; None: it was not trained
    gain: Change | None = None  # student over baseline
    gap: Change | None = None  # reference over baseline
    recovered: float | None = None  # share of the gap
    entropy: float | None = None  # of the soft targets on labelled training inputs, nats at T = 1
    max_entropy: float | None = None
    agreement_train: float | None = None  # of the student with its teachers
    agreement_eval: float | None = None
    soft_gradient_share: float | None = None
    targets_vary: bool = True  # whether the teachers predict different things for different inputs
    more_inputs: bool = False  # whether there are unlabelled examples or new views
    temperature: float = 1.0  # the largest of all epochs
    alpha: float = 0.9  # the largest of all epochs
    pseudo_labels: bool = False  # the targets are pseudo-labels, which fix alpha and temperature
    only_reference_right: int = 0  # eval examples on which the reference is right and the baseline is not
    only_baseline_right: int = 0
    smaller_is_better: bool = False  # the metric's direction

    @property
    def changed(self) -> str:
        """What the sign of a change is about: the metric, or its improvement where smaller values are better."""
        return f"improvement of {self.metric}" if self.smaller_is_better else self.metric


def diagnose(facts: Facts) -> list[str]:
    """Returns at most MAX_SENTENCES sentences, each with the figures that it is based on and what to do."""
    idle = _idle(facts)
    causes = [] if idle or not _has_room(facts) else list(filter(None, (rule(facts) for rule in CAUSES)))
    outcome = _outcome(facts, explained=bool(idle or causes))
    return [*filter(None, [idle, outcome]), *causes][:MAX_SENTENCES]


def _has_room(facts: Facts) -> bool:
    """Whether the teachers are better than the baseline, and the student does not have most of that already."""
    if facts.gain and facts.gap:
        is_better = facts.gain.low > 0 and facts.recovered is not None and facts.recovered >= MOST_OF_THE_GAP
        return facts.gap.low > 0 and not is_better
    return True


def _idle(facts: Facts) -> str | None:
    if not facts.targets_vary:
        return (
            "The teachers predict the same for every training input, so that the soft targets say nothing about the "
            "inputs: check the teachers' training and the features that they get."
        )
    share = facts.soft_gradient_share
    if facts.gain and facts.gain.low > 0:  # the teachers changed something, such as in the student's first stage
        return None
    if facts.alpha > 0 and share is not None and share < MIN_GRADIENT_SHARE:
        return (
            f"The soft term had {share:.2%} of the gradient: the teachers changed next to nothing; raise "
            f"student.distillation.alpha (now {facts.alpha:g}), or check the scale of the teachers' logits."
        )
    return None


def _outcome(facts: Facts, explained: bool) -> str | None:
    gain, gap, reference, baseline = facts.gain, facts.gap, facts.reference, facts.baseline
    if baseline is None:
        return (
            "There is no baseline, so that the gain is unknown: set evaluation.gates.baseline to train the same "
            "network without teachers."
        )
    if gain is None or gap is None:
        return None
    if gain.low > 0:
        better = f"The student is better than {baseline} by {gain.change:.4f} {facts.metric}"
        if gap.low <= 0:
            return (
                f"{better}, but {reference} is not shown to be better than {baseline} ({facts.changed} {gap}): the "
                "gain is not knowledge that only the teachers have; better teachers may add to it."
            )
        part = "" if facts.recovered is None else f" and recovers {facts.recovered:.0%} of the gap to {reference}"
        if facts.recovered is not None and facts.recovered >= MOST_OF_THE_GAP:
            return f"{better}{part}: distillation pays."
        return f"{better}{part}{'.' if explained else ': more inputs, epochs or weights may recover more.'}"
    if gap.high < 0:
        return (
            f"{reference} is worse than {baseline} ({facts.changed} {gap}): there is nothing to transfer; train better "
            "teachers first."
        )
    if gain.high < 0:
        remedy = "" if explained else f"; {_gentler(facts)}, or give the student more weights"
        return f"The student is worse than {baseline} ({facts.changed} {gain}): the soft term harms it{remedy}."
    if gap.low <= 0:
        return (
            f"{reference} is not shown to be better than {baseline} ({facts.changed} {gap}): there is nothing to "
            "transfer; use larger, more or pre-trained teachers, or distil where labels are few and unlabelled inputs "
            "many."
        )
    remedy = "" if explained else "; more seeds or eval examples would show a smaller gain"
    return (
        f"The student is not shown to be better than {baseline} ({facts.changed} {gain}), although {reference} is "
        f"({gap}){remedy}."
    )


def _gentler(facts: Facts) -> str:
    if facts.pseudo_labels:  # they allow no other alpha and temperature
        return "raise student.distillation.pseudo_labels.min_confidence"
    parts = [f"temperature (now {facts.temperature:g})"] if facts.temperature > 1 else []
    return f"lower student.distillation's {' and '.join([*parts, f'alpha (now {facts.alpha:g})'])}"


def _not_learnt(facts: Facts) -> str | None:
    if facts.agreement_train is None or facts.agreement_train >= LEARNT or facts.alpha < MOSTLY_TEACHERS:
        return None
    gentler = f", or {_gentler(facts)}: at the limit of its size the teachers' details harm it"
    return (
        f"The student agrees with its teachers on {facts.agreement_train:.1%} of its own training inputs: it is too "
        f"small or trained too short; give it more weights or epochs{gentler}."
    )


def _labels_repeated(facts: Facts) -> str | None:
    if facts.entropy is None or not facts.max_entropy or facts.more_inputs:
        return None
    if facts.entropy >= REPEATED_LABELS * facts.max_entropy:
        return None
    return (
        f"The soft targets of the train split hold {facts.entropy:.2f} of {facts.max_entropy:.2f} nats: the teachers "
        "repeat the labels; ask them about more inputs: data.transfer, student.augment, student.mixup."
    )


def _learnt_by_heart(facts: Facts) -> str | None:
    train, evaluated = facts.agreement_train, facts.agreement_eval
    if train is None or evaluated is None or _labels_repeated(facts):
        return None  # the remedy would be the same
    if train < LEARNT_BY_HEART or train - evaluated < DROP_ON_EVAL:
        return None
    return (
        f"The student agrees with its teachers on {train:.1%} of its training inputs and on {evaluated:.1%} of the "
        "eval examples: train it on more views (student.augment, mixup, noise, swap) or more unlabelled examples "
        "(data.transfer)."
    )


def _other_mistakes(facts: Facts) -> str | None:
    total = facts.only_reference_right + facts.only_baseline_right
    if total < MIN_EXAMPLES_TO_TELL or facts.only_baseline_right < OTHER_MISTAKES * total:
        return None
    return (
        f"Of the {total:,} eval examples on which only one of {facts.reference} and {facts.baseline} is right, it is "
        f"{facts.baseline} on {facts.only_baseline_right / total:.0%}: the teachers are wrong where the labels teach "
        f"better; {_gentler(facts)}, or add teachers that differ."
    )


CAUSES = (_not_learnt, _labels_repeated, _learnt_by_heart, _other_mistakes)
