"""Going back to an older version."""

import pytest
from test_versions import saved_model

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.pushes.rollback import roll_back
from stillhouse.modules.pushes.versions import is_damaged, model_fingerprint, newest_version, read_record


def test_the_newest_other_model_becomes_the_newest_version_and_the_old_one_stays(tmp_path):
    saved_model(tmp_path / "1", "one", record={"run_id": "r", "metrics": {"auc": 1.0}, "time": "then"})
    saved_model(tmp_path / "2", "two", record={})
    saved_model(tmp_path / "3", "two", record={})
    done = roll_back(str(tmp_path))
    assert done.source == "1"
    assert newest_version(str(tmp_path)) == done.version
    new = str(tmp_path / done.version)
    assert not is_damaged(new)
    assert model_fingerprint(new) == model_fingerprint(str(tmp_path / "1"))
    record = read_record(new)
    assert (record["copy_of"], record["run_id"], record["metrics"]) == ("1", "r", {"auc": 1.0})
    assert record["time"] != "then"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["1", "2", "3", done.version])


def test_a_named_version_is_taken_and_the_newest_is_not_copied(tmp_path):
    for name in ("1", "2", "9000000000000"):
        saved_model(tmp_path / name, name, record={})
    assert roll_back(str(tmp_path), "1").version == "9000000000001"
    again = roll_back(str(tmp_path), "01")  # its model is the newest already
    assert again.version == again.source == "9000000000001"
    assert roll_back(str(tmp_path), "9000000000000").version == "9000000000002"


def test_what_cannot_be_gone_back_to_is_said(tmp_path):
    with pytest.raises(UserError, match=f"no versions in {tmp_path}; `stillhouse run` pushes one"):
        roll_back(str(tmp_path))
    version = saved_model(tmp_path / "1", "one", record={})
    with pytest.raises(UserError, match="no version with another model than 1, the newest"):
        roll_back(str(tmp_path))
    saved_model(tmp_path / "2", "two", record={})
    for name in ("3", "one", "²", ".."):
        with pytest.raises(UserError, match=f"--to: found {name}; expected a version in {tmp_path}: 2, 1"):
            roll_back(str(tmp_path), name)
    (version / "saved_model.pb").write_text("on")
    with pytest.raises(MachineError, match=f"{version}: the version is damaged .* choose another with --to"):
        roll_back(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
