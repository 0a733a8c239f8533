"""Table III of the paper and the systems published since, each with its source, protocol and pretraining.

Only what was read in the named source is here; if a source states only mAP, its other numbers are absent. Rows differ in more
than the method: in what the backbone was pretrained on, and in image size.
"""

from dataclasses import dataclass

from rayprob.metrics.counting import PaperMetrics
from rayprob.train.assess import PAPER

NOT_STATED = "not stated"
OF_TORCHVISION = "ImageNet-1k, torchvision's weights"


@dataclass(frozen=True)
class Published:
    """One row: COCO-2014 val, fractions of one; None where the source does not state it."""

    system: str
    model: str
    mAP: float
    protocol: str  # a name of metrics.protocols.PROTOCOLS
    source: str
    image_size_px: int | None = None
    weights: str = NOT_STATED  # what the backbone was trained on before
    weights_source: str = ""  # where that is stated
    sets: PaperMetrics | None = None  # the six numbers of label sets, where stated


PUBLISHED = (
    Published("the paper", "ResNet-101, sigmoids", 0.794, "paper", "the paper, Table III", 448, sets=PAPER),
    Published("baseline, average pooling", "ResNet-101", 0.773, "ML-GCN", "ML-GCN README, update 1", 448),
    Published(
        "baseline, max pooling",
        "ResNet-101",
        0.819,
        "ML-GCN",
        "ML-GCN README, update 1, one of its versions; another has 0.815",
        448,
    ),
    Published("ML-GCN", "ResNet-101", 0.830, "ML-GCN", "ML-GCN README, update 1", 448, OF_TORCHVISION, "ML-GCN models.py"),
    Published("CSRA", "ResNet-101, 4 heads", 0.833, "CSRA", "CSRA README", 448, OF_TORCHVISION, "CSRA pipeline/resnet_csra.py"),
    Published(
        "Query2Label",
        "ResNet-101",
        0.849,
        "Query2Label",
        "Query2Label README",
        448,
        OF_TORCHVISION,
        "Query2Label lib/models/backbone.py",
    ),
    Published("CSRA", "ResNet-101, 6 heads", 0.856, "CSRA", "CSRA README", 448, "ImageNet with CutMix", "CSRA README"),
    Published("ASL", "TResNet-L", 0.866, "ASL", "ASL MODEL_ZOO", 448, "ImageNet-1k", "the authors in ASL issue 54"),
    Published(
        "ML-Decoder",
        "TResNet-L",
        0.900,
        "ML-Decoder",
        "ML_Decoder MODEL_ZOO",
        448,
        "Open Images",
        "the authors in ML_Decoder issue 12",
    ),
)
