"""How published tables are computed: the named definitions behind the rows that a run is compared with.

Taken from the authors' evaluation code, which each entry names. `drops_unlabelled` is whether COCO val2014 means the 40,137
images with a label or all 40,504. Left out, because they change no printed digit: `>` for `>=`, an epsilon in a denominator,
a label never predicted counted as one prediction in OP (ML-GCN, CSRA), ties broken by the order of rows.
"""

from dataclasses import dataclass

from rayprob.arrays import AnyFloats, Bools
from rayprob.errors import MetricError
from rayprob.metrics.counting import HOUSE, Averaging, PaperMetrics, label_sets, paper_metrics, top_k
from rayprob.metrics.inputs import check_marginals
from rayprob.registry import choose


@dataclass(frozen=True)
class Protocol:
    """The choices that make two published numbers of the same predictions differ."""

    ap: str = "exact"  # a name of ranking.VARIANTS
    averaging: Averaging = HOUSE
    threshold: float = 0.5
    top_k_keeps_threshold: bool = False  # whether a top-3 label below the threshold is dropped again
    drops_unlabelled: bool = True  # images without any label
    source: str = "ours"


def published_metrics(
    protocol: str,
    marginals_NL: AnyFloats,
    targets_NL: Bools,
    known_NL: Bools | None = None,
    *,
    top: int | None = None,
    scores_NL: AnyFloats | None = None,
) -> PaperMetrics:
    """Return the seven numbers as the named protocol defines them, for label sets at its threshold or for the `top` labels.

    Labels are ranked by `scores_NL` if given: scores in the order of the marginals that do not saturate at 1. Raises
    MetricError for an unknown protocol, and as `paper_metrics`.
    """
    rules = choose(PROTOCOLS, protocol, "protocol", MetricError)
    check_marginals(marginals_NL, targets_NL, known_NL)
    scores_NL = marginals_NL if scores_NL is None else scores_NL
    if rules.drops_unlabelled:
        labelled_N = targets_NL.any(axis=1) | (False if known_NL is None else ~known_NL.all(axis=1))
        scores_NL, marginals_NL, targets_NL = scores_NL[labelled_N], marginals_NL[labelled_N], targets_NL[labelled_N]
        known_NL = None if known_NL is None else known_NL[labelled_N]
    if top is None:
        predicted_NL = label_sets(marginals_NL, rules.threshold)
    else:
        predicted_NL = top_k(scores_NL, top)
        if rules.top_k_keeps_threshold:
            predicted_NL &= label_sets(marginals_NL, rules.threshold)
    return paper_metrics(scores_NL, predicted_NL, targets_NL, known_NL, averaging=rules.averaging, ap_variant=rules.ap)


_MEAN_OF_F1 = Averaging(cf1="mean_of_f1")
_NEVER_IS_RIGHT = Averaging(never_predicted=1.0)

PROTOCOLS: dict[str, Protocol] = {
    "rayprob": Protocol(drops_unlabelled=False, source="rows as given: the recipe drops unlabelled images, or keeps them"),
    "paper": Protocol(
        averaging=_NEVER_IS_RIGHT, source="inferred: CP .9927 is above 79/80, so a label never predicted counts 1"
    ),
    "ML-GCN": Protocol(top_k_keeps_threshold=True, source="megvii-research/ML-GCN util.py"),
    "ADD-GCN": Protocol(top_k_keeps_threshold=True, source="Yejin0111/ADD-GCN util.py"),
    "CSRA": Protocol(top_k_keeps_threshold=True, source="Kevinz-code/CSRA utils/evaluation"),
    "C-Tran": Protocol(source="QData/C-Tran utils/metrics.py"),
    "ASL": Protocol(averaging=_MEAN_OF_F1, threshold=0.8, source="Alibaba-MIIL/ASL validate.py with its default threshold"),
    "ML-Decoder": Protocol(source="Alibaba-MIIL/ML_Decoder src_files/helper_functions (mAP only)"),
    "mmpretrain": Protocol(averaging=_MEAN_OF_F1, source="open-mmlab/mmpretrain evaluation/metrics/multi_label.py"),
    "SRN": Protocol(
        ap="voc2010",
        averaging=Averaging(cf1="mean_of_f1", never_predicted=1.0),
        drops_unlabelled=False,
        source="zhufengx/SRN_multilabel evaluate.m, tools/precision_recall_f1.m",
    ),
    "SSGRL": Protocol(ap="voc2010", drops_unlabelled=False, source="HCPLab-SYSU/SSGRL utils/metrics.py (mAP only)"),
    "Query2Label": Protocol(ap="voc2010", drops_unlabelled=False, source="SlongLiu/query2labels q2l_infer.py (mAP only)"),
    "SALGL": Protocol(
        ap="voc2010", averaging=_NEVER_IS_RIGHT, top_k_keeps_threshold=True, source="jasonseu/SALGL lib/metrics.py"
    ),
}
