"""Makes an older version the newest again: a copy of it under a new number."""

import os
from dataclasses import dataclass

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.pushes.push import push
from stillhouse.modules.pushes.versions import (
    NONE,
    fingerprint_of_version,
    is_damaged,
    number_of,
    pushed_versions,
    read_record,
    version_to_report,
)


@dataclass(frozen=True)
class Rollback:
    """The version that is served now, and the version whose model it holds; both have one name if nothing was done."""

    version: str
    source: str


def roll_back(push_path: str, to: str | None = None) -> Rollback:
    """Pushes an older version again.

    Args:
      push_path: the push folder.
      to: name of the version; None: the newest one that holds another model than the newest version.

    Raises:
      UserError: there is no such version.
      MachineError: the version is damaged, or the disk is full.
    """
    versions = pushed_versions(push_path)
    if not versions:
        raise UserError(f"push.path: no versions in {push_path}; `stillhouse run` pushes one")
    source = _named(versions, to, push_path) if to else _newest_other_model(versions, push_path)
    path = os.path.join(push_path, source)
    if is_damaged(path):
        raise MachineError(
            f"{path}: the version is damaged (its files differ from its push record); restore it, or choose another "
            "with --to"
        )
    fingerprint = fingerprint_of_version(path)
    if (newest := version_to_report(push_path, fingerprint)) != NONE:
        return Rollback(newest, newest)
    record = {key: value for key, value in (read_record(path) or {}).items() if key != "time"}
    remedy = "it has changed while it was copied; repeat the command"
    return Rollback(push(path, push_path, fingerprint, record | {"copy_of": source}, remedy), source)


def _named(versions: list[str], to: str, push_path: str) -> str:
    for version in versions:
        if version == to or number_of(version) == number_of(to) is not None:
            return version
    raise UserError(f"--to: found {to}; expected a version in {push_path}: {', '.join(versions)}")


def _newest_other_model(versions: list[str], push_path: str) -> str:
    fingerprints = {version: fingerprint_of_version(os.path.join(push_path, version)) for version in versions}
    for version in versions:
        if fingerprints[version] != fingerprints[versions[0]]:
            return version
    raise UserError(f"push.path: {push_path} has no version with another model than {versions[0]}, the newest")
