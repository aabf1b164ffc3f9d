"""tf.data input pipelines over transformed examples: what feeds every Trainer.

files -> records -> batches -> parsed

options      the settings `ingestion`
files        which files, how they are compressed, their records
parquet      Parquet files as records
framing      TFRecord files, record by record, past damaged ones
corruption   records that are damaged, and files without them
examples     records parsed to features, labels and soft targets
labels       one look through a split's labels
choice       cache: auto, decided
in_memory    cache: memory; every epoch is a permutation of columns
stream       cache: disk and none; files interleaved, a shuffle buffer
on_disk      cache: disk; the records in plain files
service      tf.data service: workers that parse, as processes of their own
waiting      how long a training waits for its input
measure      examples per second of each way
"""
