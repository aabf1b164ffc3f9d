"""The cache on disk, and what must not be taken for one."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from records import example, write

from stillhouse.modules.atomic import UNFINISHED
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.files import ExampleFiles, read
from stillhouse.modules.ingestion.on_disk import CARD, on_disk


@pytest.fixture
def files(tmp_path):
    return ExampleFiles([write(tmp_path / f"{shard}.gz", range(10 * shard, 10 * shard + 10)) for shard in range(3)])


def records(files):
    return list(read(files.examples).as_numpy_iterator())


def test_a_cache_has_the_records_of_its_files_and_is_made_once(files, tmp_path):
    cached = on_disk(files, str(tmp_path / "cache"))
    assert records(cached) == [example(i) for i in range(30)]
    written = {name: os.stat(name).st_mtime_ns for name in cached.examples}
    assert on_disk(files, str(tmp_path / "cache")) == cached
    assert {name: os.stat(name).st_mtime_ns for name in cached.examples} == written


def test_a_cache_of_other_data_is_not_used_and_goes(files, tmp_path):
    first = on_disk(files, str(tmp_path / "cache"))
    write(files.examples[1], range(50, 60))
    second = on_disk(files, str(tmp_path / "cache"))
    assert records(second)[10:20] == [example(i) for i in range(50, 60)]
    assert not Path(first.examples[0]).exists()


@pytest.mark.parametrize("damage", ["shorter", "missing", "card"])
def test_a_damaged_cache_is_made_again(files, tmp_path, damage):
    cached = on_disk(files, str(tmp_path / "cache"))
    first = Path(cached.examples[0])
    if damage == "shorter":
        first.write_bytes(first.read_bytes()[:-5])
    elif damage == "missing":
        first.unlink()
    else:
        (first.parent / CARD).write_text("{")
    assert records(on_disk(files, str(tmp_path / "cache"))) == [example(i) for i in range(30)]


def test_links_in_the_place_of_caches_are_not_followed_when_caches_go(files, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    stale = {"sources": [[["gone", 1, 1]]], "sizes": {"missing.tfrecord": 1}}
    (elsewhere / CARD).write_text(json.dumps(stale))
    cache = Path(on_disk(files, str(tmp_path / "cache")).examples[0]).parent
    cache.rename(tmp_path / "moved")
    for link in (cache, cache.with_name("other"), cache.with_name(f".{cache.name}.unfinished-1-0")):
        link.symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    assert records(on_disk(files, str(tmp_path / "cache"))) == [example(i) for i in range(30)]
    assert not any(path.is_symlink() for path in (tmp_path / "cache").iterdir())
    assert sorted(elsewhere.iterdir()) == before


def _write_slowly(files, folder):
    import tensorflow as tf

    write_record = tf.io.TFRecordWriter.write

    def slow(self, record):
        time.sleep(0.2)
        write_record(self, record)

    tf.io.TFRecordWriter.write = slow
    on_disk(files, folder)


def test_what_a_killed_run_left_half_written_is_not_used(files, tmp_path):
    folder = tmp_path / "cache"
    writing = multiprocessing.get_context("spawn").Process(target=_write_slowly, args=(files, str(folder)))
    writing.start()
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob(f"*{UNFINISHED}*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(writing.pid, signal.SIGKILL)
    finally:
        writing.join()
    assert list(folder.glob(f"*{UNFINISHED}*/*"))
    assert records(on_disk(files, str(folder))) == [example(i) for i in range(30)]
    assert not list(folder.glob(f"*{UNFINISHED}*"))


def test_a_folder_that_cannot_be_written_to_is_named(files, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"ingestion.cache_folder: cannot write to .*file/cache: "):
        on_disk(files, str(tmp_path / "file" / "cache"))


def test_the_card_names_the_sources(files, tmp_path):
    cached = on_disk(files, str(tmp_path / "cache"))
    card = json.loads((Path(cached.examples[0]).parent / CARD).read_text())
    assert [facts[0][0] for facts in card["sources"]] == files.examples
