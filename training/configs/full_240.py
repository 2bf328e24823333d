"""Continues `full` at 240 px for 6,400 images, to choose between the two sizes on val.

    python -m training train full           (needed first, for the start weights)
    python -m training train full_240
    python -m training train full_240 --resume              (after a stop)

Cost: about 15 minutes on two idle cores with KERAS_BACKEND=torch. Expected on val: accuracy 0.794 and balanced accuracy
0.699, compared with 0.800 and 0.685 of `full` at 160 px; see training/README.md.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="full_240",
    size=240,
    start="shared",
    continues="full",
    plan=Finetune(phases=(Phase(240, 2),), rate=2e-4, warmup_epochs=0.25, epoch_images=3200),
    augmentation=augment.DESCRIPTION,
    description="The whole network was trained, then trained further at a greater input size; for comparison.",
)
