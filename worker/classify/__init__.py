"""The ``classify`` program: claim images, decode them, predict diagnoses and record them."""
