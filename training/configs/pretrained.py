"""EfficientNetB1 on more images first: ISIC 2019's beside HAM10000's, all brought to 84 px, seen at 96 px.

    python -m training prepare --further          (once: HAM10000's sources and ISIC 2019's)
    python -m training train pretrained           (then, after any stop)
    python -m training train pretrained --resume

A start for other runs, not to ship. Cost: 13 minutes an epoch with KERAS_BACKEND=torch on two cores of an AMD EPYC
without AVX-512 that have little else to do. Expected on val at 96 px, after two of the three epochs: accuracy 0.787,
balanced accuracy 0.632, log loss 0.650, and 0.707 as the mean over all sources.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="pretrained",
    size=96,
    start="shared",
    plan=Finetune(
        phases=(Phase(96, 3),),
        rate=1e-3,
        final_rate=3e-4,
        warmup_epochs=0.25,
        mixup=0.2,
        further=("isic2019",),
        through=84,
    ),
    augmentation=augment.DESCRIPTION,
    description="The whole network was trained on HAM10000 and further images, all at 84 pixels.",
)
