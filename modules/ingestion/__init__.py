"""tf.data input pipelines over transformed examples, for every Trainer.

files -> records -> batches -> parsed

options      the settings `ingestion`
files        example files, their compression and records
parquet      Parquet files as records
framing      TFRecord files, record by record, past corrupt ones
corruption   detection and removal of corrupt records
examples     records parsed to features, labels and soft targets
labels       a scan of a split's labels
choice       the decision of cache: auto
in_memory    cache: memory; every epoch is a permutation of columns
stream       cache: disk and none; files interleaved, a shuffle buffer
on_disk      cache: disk; the records in plain files
service      tf.data service: parsing in worker processes
waiting      the time that training waits for input
measure      examples per second of each method
"""
