"""The ids of every sub-word vocabulary that mean no sub-word."""

PADDING, UNKNOWN, BEGIN, END, MASK = range(5)
RESERVED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # by id
