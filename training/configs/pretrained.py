"""Pretraining of EfficientNetB1 on HAM10000 and ISIC 2019, all images reduced to 84 px and scaled to 96 px.

    python -m training prepare --further          (once, for the sources of HAM10000 and ISIC 2019)
    python -m training train pretrained
    python -m training train pretrained --resume                (after a stop)

Other runs start from its weights; it is not exported. Cost: 13 minutes per epoch with KERAS_BACKEND=torch, on two cores
of an AMD EPYC without AVX-512 with little other load. Expected on val at 96 px, after two of the three epochs: accuracy
0.787, balanced accuracy 0.632, and log loss 0.650, which is 0.707 as the mean over all sources. A second run, in mixed
bfloat16 from step 399 of 701 of the second epoch on, had 0.776, 0.599, 0.665 and 0.743; it is not known whether the
precision or chance made the difference.
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
