"""Looks into the push folder before TFX looks into its cache."""

import os

from tfx.components.pusher.executor import Executor as StockExecutor
from tfx.dsl.components.base import base_driver
from tfx.orchestration import metadata
from tfx.orchestration.portable import base_driver as portable_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import standard_artifacts

from stillhouse.components.pusher.executor import fingerprint_to_push, push_path_of
from stillhouse.modules.pushes.versions import NONE, proposed_number, version_to_report


class Driver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Puts the version that the model has, or is to get, into the execution properties, hence into the cache key.

    So the push comes from the cache exactly if its version is still there, undamaged, and the newest. A number that the
    metadata store knows is not given to a new version: the push that had it would come from the cache. Both bases, as
    in TFX's own ExampleGen: the component asks for the first, the launcher calls the second.
    """

    def __init__(self, metadata_handle: metadata.Metadata):
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Returns the driver output with `version`; NONE for a model that is not to be pushed."""
        inputs, stock = execution_info.input_dict, StockExecutor()
        version = NONE
        if stock.CheckBlessing(inputs):
            push_path = push_path_of(execution_info.exec_properties)
            version = version_to_report(push_path, fingerprint_to_push(inputs, stock.GetModelPath(inputs)))
            version = version or self._new_version(push_path)
        output = driver_output_pb2.DriverOutput()
        output.exec_properties["version"].string_value = version
        return output

    def _new_version(self, push_path: str) -> str:
        with self._mlmd_connection as handle:
            pushed = handle.store.get_artifacts_by_type(standard_artifacts.PushedModel.TYPE_NAME)
        known = {artifact.custom_properties["pushed_destination"].string_value for artifact in pushed}
        number = proposed_number(push_path)
        while os.path.join(push_path, str(number)) in known:
            number += 1
        return str(number)
