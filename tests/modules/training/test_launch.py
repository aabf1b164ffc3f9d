"""A training job writes and deletes in its own checkpoint folder only."""

from types import SimpleNamespace

import pytest
from artifacts import training_config

from stillhouse.modules.errors import UserError
from stillhouse.modules.training.launch import forget_checkpoints, run_fn


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    return folder


@pytest.mark.parametrize("link", ["Student", "Student/identity", "Student/identity/chief-0"])
def test_a_link_in_the_checkpoint_folder_is_refused_before_training(tmp_path, elsewhere, link):
    path = tmp_path / "checkpoints" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(elsewhere)
    config = training_config(None, False, checkpoint_folder=str(tmp_path / "checkpoints" / "Student"))
    with pytest.raises(UserError, match=f"{path}: found a symbolic link .to {elsewhere}"):
        run_fn(SimpleNamespace(custom_config=config.model_dump(mode="json")))
    assert [each.name for each in elsewhere.iterdir()] == ["kept"]


def test_forgetting_checkpoints_unlinks_a_link_and_follows_none(tmp_path, elsewhere):
    config = training_config(None, False, checkpoint_folder=str(tmp_path / "checkpoints"))
    (tmp_path / "checkpoints").symlink_to(elsewhere)
    forget_checkpoints(config)
    assert not (tmp_path / "checkpoints").is_symlink()
    (tmp_path / "checkpoints" / "identity").mkdir(parents=True)
    (tmp_path / "checkpoints" / "identity" / "link").symlink_to(elsewhere)
    forget_checkpoints(config)
    assert not (tmp_path / "checkpoints").exists()
    assert [each.name for each in elsewhere.iterdir()] == ["kept"]
