"""`full`, taught on by two runs: EfficientNetB1 at 160 px whose targets are mostly what its teachers say.

    python -m training train full           (first, `longer` and `v2b0` as well)
    python -m training soup full longer
    python -m training train taught         (then, after any stop)
    python -m training train taught --resume

Cost: four epochs; one took 45 minutes on two cores that had other work to do. Expected: not known; after one epoch its
accuracy on val is 0.791 and its balanced accuracy 0.693.
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
