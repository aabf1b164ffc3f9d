"""Versions in a push folder. Answers without TensorFlow, except on object stores.

files     the file system of a push folder
versions  which versions there are, whose they are, and whether they are whole
push      adds a version
rollback  makes an older version the newest again
listing   what is known about each version
"""
