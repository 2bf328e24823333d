"""EfficientNetV2-B0 from its ImageNet weights in ../shared/weights, for comparison and as a teacher, not for export.

    python -m training train v2b0
    python -m training train v2b0 --resume                  (after a stop)

Cost: about five minutes per epoch on two idle cores with KERAS_BACKEND=torch. Expected: an accuracy of 0.775 and a
balanced accuracy of 0.667 on val.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="v2b0",
    size=160,
    start="shared",
    backbone="efficientnetv2b0",
    plan=Finetune(phases=(Phase(160, 5),), rate=6e-4),
    augmentation=augment.DESCRIPTION,
    description="EfficientNetV2-B0, the whole network trained; for comparison.",
)
