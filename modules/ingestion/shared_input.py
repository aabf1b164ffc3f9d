"""One input pipeline whose batches go to whichever worker asks first, by tf.data service.

Workers of a parameter-server cluster go each at its own pace. With a pipeline of its own each would see all of the
data in one order; here an epoch is one pass over the data, and a slow worker has fewer batches of it.
"""

import tensorflow as tf

JOB = "training"


class SharedInput:
    """A dispatcher with one worker of tf.data service in this process, as long as the object lives."""

    def __init__(self, batches: tf.data.Dataset, host: str):
        """Serves `batches`; other processes reach this one by the name `host`."""
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
        """Returns the batches that come to the worker that reads them; made in the worker."""
        return tf.data.experimental.service.from_dataset_id(
            tf.data.experimental.service.ShardingPolicy.OFF,
            self._service,
            self._id,
            element_spec=self._spec,
            job_name=JOB,
        )
