"""Chooses the version that the Pusher reports, or is to write."""

import os

from tfx.components.pusher.executor import Executor as StockExecutor
from tfx.orchestration.portable import data_types
from tfx.types import standard_artifacts

from stillhouse.components.pusher.executor import fingerprint_to_push, push_path_of
from stillhouse.components.version_driver import VersionDriver
from stillhouse.modules.pushes.versions import NONE, proposed_number, version_to_report


class Driver(VersionDriver):
    """Puts the version that the model has, or is to get, into the execution properties, hence into the cache key.

    So the push comes from the cache exactly if its version is still there, undamaged, and the newest. A number that the
    metadata store knows is not given to a new version: the push that had it would come from the cache.
    """

    def choose(self, execution_info: data_types.ExecutionInfo) -> str:
        """Returns the version; NONE for a model that is not to be pushed."""
        inputs, stock = execution_info.input_dict, StockExecutor()
        if not stock.CheckBlessing(inputs):
            return NONE
        push_path = push_path_of(execution_info.exec_properties)
        version = version_to_report(push_path, fingerprint_to_push(inputs, stock.GetModelPath(inputs)))
        return version or self._new_version(push_path)

    def _new_version(self, push_path: str) -> str:
        with self._mlmd_connection as handle:
            pushed = handle.store.get_artifacts_by_type(standard_artifacts.PushedModel.TYPE_NAME)
        known = {artifact.custom_properties["pushed_destination"].string_value for artifact in pushed}
        number = proposed_number(push_path)
        while os.path.join(push_path, str(number)) in known:
            number += 1
        return str(number)
