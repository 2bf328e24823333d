"""The whole EfficientNetB1, from the weights of `pretrained`, on all sources of HAM10000, at 128 and then 160 px.

    python -m training train pretrained             (needed first, for the start weights)
    python -m training train from_pretrained
    python -m training train from_pretrained --resume         (after a stop)

Sources and augmentation are those of `full`; a quarter of the images look as if they had been cropped to a square.
Cost: 8 minutes per epoch at 128 px and 12 at 160 px, estimated from the time of a step (see training/README.md).
Expected: not known yet, because the run is not finished.
"""

from training import augment
from training.config import Config, Finetune, Phase

CONFIG = Config(
    name="from_pretrained",
    size=160,
    start="shared",
    continues="pretrained",
    plan=Finetune(
        phases=(Phase(128, 5), Phase(160, 4)), rate=4e-4, final_rate=5e-6, warmup_epochs=0.25, augmentation="framed"
    ),
    augmentation=augment.FRAMED_DESCRIPTION,
    description="The whole network was trained: first on further images, then only on HAM10000, small images first; "
    "the bundle holds the moving average of the weights.",
)
