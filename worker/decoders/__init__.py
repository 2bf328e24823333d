"""From the bytes of an image file to pixels, in programs of their own that may be killed at any time.

``program.py`` is a decoder: it gives up its rights (``confinement.py``), refuses files of too many parts
(``structure/``), and decodes by ``dermq.imaging``. ``decoder.py`` is a decoder as its worker sees it, ``frames.py``
what both say to each other, ``pool.py`` the decoders of a worker process, and ``turns.py`` whose image is next.
"""
