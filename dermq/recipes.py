"""The name of the way from bytes to pixels, as a bundle's card gives it. ``dermq.imaging`` does what it says.

It stands apart from ``imaging`` so that reading a card needs no Pillow.
"""

RECIPE = "squash-bicubic"
"""EXIF orientation, RGB, the whole frame squashed to a square, bicubic, antialiased."""
RECIPE_VERSION = 1
