"""Looks into the push folder before TFX looks into its cache."""

from tfx.dsl.components.base import base_driver
from tfx.orchestration import metadata
from tfx.orchestration.portable import base_driver as portable_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2

from stillhouse.components.last_pushed.versions import choose_version


class Driver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Puts the version that is chosen into the execution properties, hence into the cache key.

    Both bases, as in TFX's own ExampleGen: the component asks for the first, the launcher calls the second.
    """

    def __init__(self, metadata_handle: metadata.Metadata):
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Returns the driver output with `version`."""
        output = driver_output_pb2.DriverOutput()
        version = choose_version(execution_info.input_dict, execution_info.exec_properties)
        output.exec_properties["version"].string_value = version
        return output
