"""One input pipeline whose batches go to the worker that requests them first, by tf.data service.

Workers of a parameter-server cluster run at their own pace. With its own pipeline each worker would see all data in one
order; here an epoch is one pass over the data, and a slow worker gets fewer of its batches.
"""

import tensorflow as tf

JOB = "training"


class SharedInput:
    """A dispatcher with one worker of tf.data service in this process, for the lifetime of the object."""

    def __init__(self, batches: tf.data.Dataset, host: str):
        """Serves `batches` to other processes, which reach this one by the name `host`."""
        service = tf.data.experimental.service
        self._dispatcher = service.DispatchServer()
        port = self._dispatcher.target.rpartition(":")[2]
        self._worker = service.WorkerServer(
            service.WorkerConfig(dispatcher_address=f"{host}:{port}", worker_address=f"{host}:%port%")
        )
        self._service = f"grpc://{host}:{port}"
        self._spec = batches.element_spec
        self._id = service.register_dataset(self._service, batches)

    def batches(self) -> tf.data.Dataset:
        """Returns the batches for the calling worker; call it in the worker."""
        return tf.data.experimental.service.from_dataset_id(
            tf.data.experimental.service.ShardingPolicy.OFF,
            self._service,
            self._id,
            element_spec=self._spec,
            job_name=JOB,
        )
