"""Continues `full` with knowledge distillation: EfficientNetB1 at 160 px, taught by two runs.

    python -m training train full           (needed first, as are `longer` and `v2b0`)
    python -m training soup full longer
    python -m training train taught
    python -m training train taught --resume                (after a stop)

Cost: four epochs; one took 45 minutes on two cores with other load. Expected: not known; after one epoch, accuracy on
val is 0.791 and balanced accuracy is 0.693.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="taught",
    size=160,
    start="shared",
    continues="full",
    plan=Finetune(
        phases=(Phase(160, 4),),
        rate=6e-4,
        warmup_epochs=0.5,
        teachers=("soup-full-longer", "v2b0"),
        label_smoothing=0.0,
    ),
    augmentation=augment.DESCRIPTION,
    description="The whole network was trained, then taught by two networks: one of its kind, and EfficientNetV2-B0.",
)
