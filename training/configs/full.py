"""The whole EfficientNetB1, from ../shared/weights, at 128, 160 and 192 px.

    python -m training train full            (then, after any stop)
    python -m training train full --resume

Cost: about 3 hours on two idle cores (27, 17 and 12 images a second). Expected on the lesion-disjoint test split:
better than accuracy 0.815 and balanced accuracy 0.724, which four epochs of a simpler recipe reached.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="full",
    size=192,
    start="shared",
    plan=Finetune(phases=(Phase(128, 12), Phase(160, 8), Phase(192, 6))),
    augmentation=augment.DESCRIPTION,
    description="The whole network was trained; what ships is the moving average of its weights.",
)
