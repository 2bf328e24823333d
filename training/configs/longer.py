"""What ``full`` made, trained on: ten more epochs at 160 px, the rate rising and falling once more.

    python -m training train full           (first, or no weights to go on from)
    python -m training train longer         (then, after any stop)
    python -m training train longer --resume

Cost: about an hour on two idle cores with KERAS_BACKEND=torch, an hour and a half with TensorFlow. Expected: no better
than `full` by itself, an accuracy of 0.799 on val; see training/README.md.
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
    description="The whole network was trained, in two rounds; what ships is the moving average of its weights.",
)
