"""Examples per second from real files, against a first attempt, the readers' own limit, and other libraries.

  python -W ignore -m benchmarks.ingestion.real_files [--rounds 3] [--peers PYTHON]

200,000 tf.Examples of 64 floats in 16 shards, gzip'd and plain, are generated. Every measurement is a process of its
own, and the ways take turns: the first epoch with a cold page cache (the files' pages are given up before), then two
with a warm one. PYTHON is the interpreter of an environment with benchmarks/ingestion/peers.txt. Prints the tables as
Markdown.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import typer

EXAMPLES, FLOATS, SHARDS = 200_000, 64, 16
BATCH = 256
KINDS = {"gzip": "GZIP", "plain": ""}
NAIVE, LIMIT, BYTES = "naive", "limit: read and parse", "limit: read the bytes"
OURS = ("cache: none", "cache: disk", "cache: memory (default)")
PEERS = ("PyTorch DataLoader, 2 workers", "Grain, 2 workers")
WARM_EPOCHS = 2
GROWTH = 10


def generate(folder: Path) -> None:
    """Writes the shards of every kind."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    for shard in range(SHARDS):
        names = {kind: folder / kind / f"{shard:02d}-of-{SHARDS}.tfrecord" for kind in KINDS}
        writers = [tf.io.TFRecordWriter(str(names[kind]), compression) for kind, compression in KINDS.items()]
        for row in random.normal(size=(EXAMPLES // SHARDS, FLOATS)).astype(np.float32):
            features = {
                "x": tf.train.Feature(float_list=tf.train.FloatList(value=row)),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(row[0] > 0)])),
            }
            record = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
            for writer in writers:
                writer.write(record)
        for writer in writers:
            writer.close()


def forget_pages(files: list[str]) -> None:
    """Gives up the files' pages, so that they are read from the disk again."""
    for file in files:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_bytes(files: list[str]) -> float:
    """Reads the files as they are, two at a time, and returns the seconds."""
    from concurrent.futures import ThreadPoolExecutor

    began = time.perf_counter()
    with ThreadPoolExecutor(2) as readers:
        list(readers.map(lambda file: len(Path(file).read_bytes()), files))
    return time.perf_counter() - began


def epochs_of(way: str, files: list[str], folder: Path, count: int):
    """Gives a function that reads one epoch to its end."""
    import tensorflow as tf

    from stillhouse.modules.ingestion.examples import ExampleParser
    from stillhouse.modules.ingestion.files import ExampleFiles
    from stillhouse.modules.ingestion.in_memory import Columns
    from stillhouse.modules.ingestion.measure import limit, naive
    from stillhouse.modules.ingestion.on_disk import on_disk
    from stillhouse.modules.ingestion.stream import Source, parsed_batches, record_batches
    from stillhouse.modules.models.heads import HEADS
    from stillhouse.modules.settings import Ingestion

    spec = {"x": tf.io.FixedLenFeature([FLOATS], tf.float32), "label": tf.io.FixedLenFeature([], tf.int64)}
    parser, options = ExampleParser(spec, "label", HEADS["classification"]), Ingestion()
    source = Source(ExampleFiles(files, count=count))
    if way == NAIVE:
        batches = naive(source, parser, BATCH, options)
    elif way == LIMIT:
        batches = limit(source, parser, BATCH, options)
    elif way == OURS[2]:
        batches = Columns.load(source.files, parser).batches(BATCH, 1, options)
    else:
        if way == OURS[1]:
            source = Source(on_disk(source.files, str(folder)))
        batches = parsed_batches(record_batches(source, parser, BATCH, 1, options), parser, 1, options)
    if way in OURS:
        batches = options.applied(batches.prefetch(tf.data.AUTOTUNE))
    iterator = iter(batches)

    def epoch():
        read = 0
        while read < count:
            batch = next(iterator)
            read += len(batch["label"] if isinstance(batch, dict) else batch[1])

    return epoch


def measure(way: str, files: list[str], folder: Path) -> dict:
    """Returns seconds of the first epoch, cold, and of later ones, warm; and the peak resident set in bytes."""
    if way == BYTES:
        forget_pages(files)
        return {"cold": read_bytes(files), "warm": statistics.median(read_bytes(files) for _ in range(WARM_EPOCHS))}
    count = EXAMPLES * len(files) // SHARDS
    # TensorFlow is imported, and has started its threads, before the clock does.
    epochs_of(NAIVE, files[:1], folder, 1)()
    forget_pages(files)
    began = time.perf_counter()
    epoch = epochs_of(way, files, folder, count)
    epoch()
    cold = time.perf_counter() - began
    warm = []
    for _ in range(WARM_EPOCHS):
        began = time.perf_counter()
        epoch()
        warm.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"cold": cold, "warm": statistics.median(warm), "peak": peak}


def child(way: str, files: list[str], folder: Path, peers: Path | None) -> dict:
    """Measures in a process of its own."""
    given = json.dumps({"way": way, "files": files, "folder": str(folder), "batch": BATCH, "epochs": WARM_EPOCHS})
    if way in PEERS:
        forget_pages(files)
        command = [str(peers), str(Path(__file__).with_name("peers.py")), given]
    else:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ingestion.real_files", "--given", given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(rounds: int = 3, peers: Path | None = None, given: str | None = None) -> None:
    """Without `given`: generates, measures every way in turn, prints the tables."""
    if given:
        asked = json.loads(given)
        if asked["way"] == "generate":
            generate(Path(asked["folder"]))
            print("{}")
        else:
            print(json.dumps(measure(asked["way"], asked["files"], Path(asked["folder"]))))
        return
    base = Path(tempfile.mkdtemp())
    try:
        child("generate", [], base / "data", None)
        for kind in KINDS:
            tables(kind, sorted(map(str, (base / "data" / kind).iterdir())), base, rounds, peers)
        growth(sorted(map(str, (base / "data" / "gzip").iterdir())), base)
    finally:
        shutil.rmtree(base)


def tables(kind: str, files: list[str], base: Path, rounds: int, peers: Path | None) -> None:
    """Measures one kind of files and prints its table."""
    ways = (NAIVE, *OURS, LIMIT, BYTES, *(PEERS if peers else ()))
    found: dict[str, list[dict]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            folder = Path(tempfile.mkdtemp(dir=base))
            found[way].append(child(way, files, folder, peers))
            shutil.rmtree(folder)
            print(kind, number, way, found[way][-1], file=sys.stderr, flush=True)
    print(f"\n{kind}: {sum(map(os.path.getsize, files)) / 1e6:.0f} MB\n")
    print("| method | warm, thousand examples/s, median (spread) | × naive | of the limit | cold | peak MB |")
    print("|---|---|---|---|---|---|")
    warm = {way: [EXAMPLES / one["warm"] for one in rows] for way, rows in found.items()}
    middle = {way: statistics.median(rates) for way, rates in warm.items()}
    for way, rates in warm.items():
        cold = statistics.median(EXAMPLES / one["cold"] for one in found[way])
        peak = f"{statistics.median(one['peak'] for one in found[way]) / 1e6:.0f}" if "peak" in found[way][0] else ""
        print(
            f"| {way} | {middle[way] / 1e3:.0f} ({min(rates) / 1e3:.0f} to {max(rates) / 1e3:.0f}) | "
            f"{middle[way] / middle[NAIVE]:.1f} | {middle[way] / middle[LIMIT]:.2f} | {cold / 1e3:.0f} | {peak} |"
        )


def growth(files: list[str], base: Path) -> None:
    """Prints the peak memory of streaming as the data grows."""
    more = base / "more"
    more.mkdir()
    grown = [str(more / f"{copy}-{Path(file).name}") for copy in range(GROWTH) for file in files]
    for name, file in zip(grown, files * GROWTH, strict=True):
        os.link(file, name)
    print("\n| cache: none | peak MB |\n|---|---|")
    for given in (files, grown):
        found = child(OURS[0], given, base, None)
        print(f"| {EXAMPLES * len(given) // SHARDS:,} examples | {found['peak'] / 1e6:.0f} |")


if __name__ == "__main__":
    typer.run(main)
