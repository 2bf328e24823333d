"""Where the bytes of images and archives are kept."""
