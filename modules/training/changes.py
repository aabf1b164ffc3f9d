"""The random change of each training batch: masking of a pre-training, or views of the inputs."""

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.stream import Change
from stillhouse.modules.ingestion.views import check_changes, kinds_of, make_views
from stillhouse.modules.models.task import find_augment
from stillhouse.modules.text.masking import Masking
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.data import TrainingData


def masking_of(config: TrainingConfig, data: TrainingData) -> Masking | None:
    """Returns the masking of a pre-training job; None: any other training job."""
    if not config.masking:
        return None
    return Masking(config.label, config.masking.share, largest=int(data.train_labels.largest))


def change_of(config: TrainingConfig, data: TrainingData) -> Change | None:
    """Returns the views of a training job's inputs; None: there are none, or its files have been changed already.

    Raises:
      UserError: a change does not fit the features.
    """
    if not config.changes_inputs() or data.parser.views:
        return None
    augment = find_augment(config.task) if config.augment else None
    spec, files = data.parser.feature_spec, data.source.files.examples
    return make_views(config.input_changes(), spec, config.label, files, augment)


def check_change(config: TrainingConfig, data: TrainingData) -> None:
    """Checks that the changes of a training job fit its features and soft targets.

    Raises:
      UserError: they do not.
    """
    if data.parser.views:
        return
    if config.mixup and data.parser.card:
        raise UserError(f"{config.name}: mixup: not valid with soft targets of unmixed examples; remove it")
    check_changes(config.input_changes(), kinds_of(data.parser.feature_spec, config.label), f"{config.name}: ")
