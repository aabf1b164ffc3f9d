"""Chooses the version that LastPushed copies."""

from tfx.orchestration.portable import data_types

from stillhouse.components.last_pushed.versions import choose_version
from stillhouse.components.version_driver import VersionDriver


class Driver(VersionDriver):
    """Puts the version that is chosen into the cache key, so that the cache sees what is in the push folder."""

    def choose(self, execution_info: data_types.ExecutionInfo) -> str:
        """Returns the version, or NONE."""
        return choose_version(execution_info.input_dict, execution_info.exec_properties)
