"""The reserved ids of every token vocabulary."""

PADDING, UNKNOWN, BEGIN, END, MASK = range(5)
RESERVED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # by id
