"""The name of the way from bytes to pixels, as a bundle's card gives it. ``dermq.imaging`` does what it says.

It stands apart from ``imaging`` so that reading a card needs no Pillow. Every version can be run, because a bundle must
see the pixels of the version with which it was made.
"""

RECIPE = "squash-bicubic"
"""EXIF orientation, RGB, the whole frame squashed to a square, bicubic, antialiased."""
WITHOUT_PROFILES = 1
"""The first version, which ignores embedded ICC profiles."""
WITH_PROFILES = 2
"""Converts colours from a valid embedded ICC profile to sRGB. Without a profile, pixels are those of version 1."""
VERSIONS = (WITHOUT_PROFILES, WITH_PROFILES)
RECIPE_VERSION = WITH_PROFILES
"""The version of new bundles."""
