"""The whole EfficientNetB1, from ../shared/weights, at 128 and then 160 px.

    python -m training train full            (then, after any stop)
    python -m training train full --resume

Cost: about an hour on two idle cores (39 and 22 images a second on an AMD EPYC). Expected on the lesion-disjoint test
split: accuracy 0.824 and balanced accuracy 0.728, which one run gave; more epochs should give more.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="full",
    size=160,
    start="shared",
    plan=Finetune(phases=(Phase(128, 7), Phase(160, 4))),
    augmentation=augment.DESCRIPTION,
    description="The whole network was trained; what ships is the moving average of its weights.",
)
