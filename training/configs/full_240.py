"""What ``full`` made, brought to 240 px in 6,400 images, to choose between the two sizes on val.

    python -m training train full           (first, or no weights to go on from)
    python -m training train full_240       (then, after any stop)
    python -m training train full_240 --resume

Cost: about a quarter of an hour on two idle cores with KERAS_BACKEND=torch. Expected on val: accuracy
0.794 and balanced accuracy 0.699, where `full` has 0.800 and 0.685 at 160 px; see training/README.md.
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
    description="The whole network was trained, and brought to a greater input size; for comparison.",
)
