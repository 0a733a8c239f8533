"""Table III of the paper and the systems published since, each with its source and protocol.

Only numbers that were read in the named source are here; if a source states only mAP, its other numbers are absent.
"""

from dataclasses import dataclass

from rayprob.metrics.counting import PaperMetrics


@dataclass(frozen=True)
class Published:
    """One row: COCO-2014 val, fractions of one; None where the source does not state it."""

    system: str
    model: str
    mAP: float
    protocol: str  # a name of metrics.protocols.PROTOCOLS
    source: str
    sets: PaperMetrics | None = None  # the six numbers of label sets, where stated


PAPER = PaperMetrics(mAP=0.794, OP=0.9947, OR=0.310, OF1=0.473, CP=0.9927, CR=0.255, CF1=0.406)

PUBLISHED = (
    Published("the paper", "ResNet-101, 448 px, sigmoids", 0.794, "paper", "the paper, Table III", PAPER),
    Published("baseline, average pooling", "ResNet-101, 448 px", 0.773, "ML-GCN", "ML-GCN README, update 1"),
    Published("baseline, max pooling", "ResNet-101, 448 px", 0.819, "ML-GCN", "ML-GCN README, update 1"),
    Published("ML-GCN", "ResNet-101, 448 px", 0.830, "ML-GCN", "ML-GCN README, update 1"),
    Published("CSRA", "ResNet-101, 448 px, 4 heads", 0.833, "CSRA", "CSRA README"),
    Published("Query2Label", "ResNet-101, 448 px", 0.849, "Query2Label", "Query2Label README"),
    Published("CSRA", "ResNet-101 from CutMix, 448 px, 6 heads", 0.856, "CSRA", "CSRA README"),
    Published("ASL", "TResNet-L, 448 px", 0.866, "ASL", "ASL MODEL_ZOO"),
    Published("ML-Decoder", "TResNet-L, 448 px", 0.900, "ML-Decoder", "ML_Decoder MODEL_ZOO"),
)
