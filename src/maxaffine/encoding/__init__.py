"""The codes of whole data sets, in files: encoded some rows at a time, stopped and continued, by one process or many.

A folder holds `manifest.json`, which says what was to be encoded and by what, and shards of rows as Parquet files: id,
label, name (of images in files) and the packed code of each operator. A shard appears when it is whole; its metadata
say the network and carry a checksum.
"""

from maxaffine.encoding.job import Outcome, encode
from maxaffine.encoding.lookup import described, index_codes, rows_of
from maxaffine.encoding.reading import CodeFolder, Encoded, iterate_codes, open_codes, read_codes

__all__ = [
    "CodeFolder",
    "Encoded",
    "Outcome",
    "described",
    "encode",
    "index_codes",
    "iterate_codes",
    "open_codes",
    "read_codes",
    "rows_of",
]
