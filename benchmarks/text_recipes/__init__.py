"""The two recipes on text, DistilBERT and TMKD, re-enacted on questions and passages made of docstrings."""
