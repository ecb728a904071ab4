"""Partitions of planes that do not fit in memory: cut in tasks, by threads, processes or a Ray cluster, into files.

The first operators are cut as usual until there are enough root cells. Each range of root cells is a task, independent
of all others: its finished cells go to a Parquet file of their own. What belongs together across tasks (the two halves
of a side, pieces of the cell of a maximum) is found by integer keys, as within one.
"""

from maxaffine.distributed.reading import CellBatch, PartitionFiles
from maxaffine.distributed.streaming import stream_partition

__all__ = ["CellBatch", "PartitionFiles", "stream_partition"]
