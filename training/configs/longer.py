"""Continues `full` for ten more epochs at 160 px; the learning rate rises and falls once more.

    python -m training train full           (needed first, for the start weights)
    python -m training train longer
    python -m training train longer --resume                (after a stop)

Cost: about an hour on two idle cores with KERAS_BACKEND=torch, an hour and a half with TensorFlow. Expected: accuracy
0.799 on val, which is not better than `full`; see training/README.md.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="longer",
    size=160,
    start="shared",
    continues="full",
    plan=Finetune(phases=(Phase(160, 10),), rate=6e-4, warmup_epochs=0.5),
    augmentation=augment.DESCRIPTION,
    description="The whole network was trained, in two rounds; the bundle holds the moving average of its weights.",
)
