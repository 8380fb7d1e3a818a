"""Networks made ready for machines that have nothing but NumPy: ``npmobilenet pack``.

``record``   a plan as numbers: which of them are addresses, and of what
``layers``   what plans are made of, for networks whose images differ in size
``modules``  which of this package's modules a pack needs
``folder``   all that belongs to a pack, written as a folder or an archive
``texts``    what is written for people
"""
