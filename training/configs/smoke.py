"""A smoke test of training: the whole EfficientNetB1 from random weights at 32 px, one epoch of four steps.

    python -m training train smoke

Cost: under a minute on two cores, most of it for compilation. Expected: the run ends without an error.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="smoke",
    size=32,
    start="none",
    plan=Finetune(phases=(Phase(32, 1),), batch=8, warmup_epochs=0.5, epoch_images=32),
    augmentation=augment.DESCRIPTION,
    description="Trained for a few steps as a test of the program; its predictions have no meaning.",
)
