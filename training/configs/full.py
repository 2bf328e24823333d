"""The whole EfficientNetB1, from ../shared/weights, at 128 and then 160 px.

    python -m training train full
    python -m training train full --resume   (after a stop)

Cost: about an hour on two idle cores (39 and 22 images a second on an AMD EPYC). Expected on the lesion-disjoint test
split: accuracy 0.824 and balanced accuracy 0.728, from one run. More epochs should improve both.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="full",
    size=160,
    start="shared",
    plan=Finetune(phases=(Phase(128, 7), Phase(160, 4))),
    augmentation=augment.DESCRIPTION,
    description="The whole network was trained; the bundle holds the moving average of its weights.",
)
