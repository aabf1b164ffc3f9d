"""What the drivers of LastPushed and Pusher share: they look into the push folder before TFX looks into its cache."""

from tfx.dsl.components.base import base_driver
from tfx.orchestration import metadata
from tfx.orchestration.portable import base_driver as portable_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2


class VersionDriver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Puts the version that a subclass chooses into the execution properties, hence into the cache key.

    Both bases, as in TFX's own ExampleGen: the component asks for the first, the launcher calls the second.
    """

    def __init__(self, metadata_handle: metadata.Metadata):
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Returns the driver output with `version`."""
        output = driver_output_pb2.DriverOutput()
        output.exec_properties["version"].string_value = self.choose(execution_info)
        return output

    def choose(self, execution_info: data_types.ExecutionInfo) -> str:
        """Returns the version."""
        raise NotImplementedError
