"""Collections of photographs through a network, from file to result: :func:`stream`, and tables that can be resumed.

``entries``
    What there is to read: a name, and how to get at the bytes.
``files``
    Where files, folders, globs and lists lead; ``tar`` and ``zips`` the same of archives. :class:`~sources.Sources` is
    all of them together, in their order.
``ahead``
    Work done by several threads, handed over in order.
``batches``
    :func:`stream`: sources, threads and a task together.
``tables``
    What rows are written as: Parquet, CSV, JSON lines, NumPy's files.
``parts``
    The folder in which a table grows, part by part, so that no end of the process loses or doubles a row.
``collecting``
    :class:`~collecting.Collection`: a stream into a table.
"""

from npmobilenet import lazily

__getattr__ = lazily(
    __name__,
    Batch="batches",
    Collection="collecting",
    Entry="entries",
    Sources="sources",
    stream="batches",
)
