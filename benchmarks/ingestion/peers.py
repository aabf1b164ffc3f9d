"""The same records by other libraries, in an environment of their own: peers.txt. Run by real_files.py."""

import gzip
import json
import resource
import statistics
import sys
import time

import numpy as np
from tfrecord import example_pb2

WORKERS = 2
SHUFFLE = 10_000  # records of the buffer, as the default of stillhouse
GZIP = b"\x1f\x8b"


def records(file):
    """Gives the records of a TFRecord file."""
    with open(file, "rb") as raw:
        compressed = raw.read(2) == GZIP
    with gzip.open(file) if compressed else open(file, "rb", buffering=1 << 20) as opened:
        while head := opened.read(12):
            yield opened.read(int.from_bytes(head[:8], "little"))
            opened.read(4)


def parsed(record):
    """Returns features and label of a record."""
    features = example_pb2.Example.FromString(record).features.feature
    return np.array(features["x"].float_list.value, np.float32), features["label"].int64_list.value[0]


def torch_epochs(files, batch):
    """Returns a function that reads one epoch with PyTorch's DataLoader."""
    import random

    from torch.utils.data import DataLoader, IterableDataset, get_worker_info

    class Records(IterableDataset):
        """The parsed records of this worker's files, shuffled through a buffer."""

        def __iter__(self):
            info = get_worker_info()
            own = files[info.id :: info.num_workers]
            random.shuffle(own)
            buffer = []
            for file in own:
                for record in records(file):
                    if len(buffer) < SHUFFLE // info.num_workers:
                        buffer.append(record)
                        continue
                    place = random.randrange(len(buffer))
                    buffer[place], record = record, buffer[place]
                    yield parsed(record)
            random.shuffle(buffer)
            yield from map(parsed, buffer)

    loader = DataLoader(Records(), batch_size=batch, num_workers=WORKERS, persistent_workers=True)
    return lambda: sum(len(labels) for _, labels in loader)


def grain_epochs(files, batch):
    """Returns a function that reads one epoch with Grain, its workers processes."""
    import grain

    class Records(grain.sources.RandomAccessDataSource if hasattr(grain, "sources") else object):
        """The records of all files, by their number; read whole when a worker starts, as Grain wants random access."""

        def __init__(self):
            self._records = None
            self._count = sum(1 for file in files for _ in records(file))

        def __len__(self):
            return self._count

        def __getitem__(self, number):
            if self._records is None:
                self._records = [record for file in files for record in records(file)]
            return self._records[number]

    dataset = grain.MapDataset.source(Records()).shuffle(seed=1).map(parsed).batch(batch)
    options = grain.MultiprocessingOptions(num_workers=WORKERS)
    iterators = {"one": None}

    def epoch():
        iterators["one"] = iter(dataset.to_iter_dataset().mp_prefetch(options))
        return sum(len(labels) for _, labels in iterators["one"])

    return epoch


def main():
    """Prints seconds of the first epoch and of later ones."""
    given = json.loads(sys.argv[1])
    make = torch_epochs if given["way"].startswith("PyTorch") else grain_epochs
    began = time.perf_counter()
    epoch = make(given["files"], given["batch"])
    count = epoch()
    cold = time.perf_counter() - began
    warm = []
    for _ in range(given["epochs"]):
        began = time.perf_counter()
        assert epoch() == count
        warm.append(time.perf_counter() - began)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + WORKERS * children) * 1024
    print(json.dumps({"cold": cold, "warm": statistics.median(warm), "peak": peak, "examples": count}))


if __name__ == "__main__":
    main()
