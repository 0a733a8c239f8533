"""The key numbers, and the table that compares the run with published systems."""

from dataclasses import dataclass

from rayprob.arrays import Bools
from rayprob.labels import COCO_80
from rayprob.metrics.counting import PaperMetrics, label_sets, paper_metrics, top_k
from rayprob.metrics.protocols import PROTOCOLS, Protocol, published_metrics
from rayprob.metrics.reliability import Honesty, honesty
from rayprob.probability.decisions.conformal import AT_RANDOM, EVERY, RiskControl, mean_missed_share
from rayprob.probability.decisions.rules import RECALL
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.report.run.files import RunFiles
from rayprob.report.run.judged import Judged
from rayprob.report.run.published import PUBLISHED, Published

COCO_VAL_SAMPLES = (40_137, 40_504)
TOP = 3


@dataclass(frozen=True)
class SetsRow:
    """This run's label sets by one rule."""

    rule: str
    words: str
    numbers: PaperMetrics
    labels_per_image: float
    missed_share: float


@dataclass(frozen=True)
class PublishedRow:
    """A published row, its protocol, and this run's mAP under the same protocol."""

    published: Published
    protocol: Protocol
    counting: str
    ours: float | None


@dataclass(frozen=True)
class Headline:
    """The key numbers of the page."""

    rows: tuple[SetsRow, ...]
    published: tuple[PublishedRow, ...]
    is_coco_val: bool
    before: Honesty
    after: Honesty | None

    @property
    def at_half(self) -> SetsRow:
        """Label sets at 0.5, before calibration: what the paper reports."""
        return self.rows[0]

    @property
    def tuned(self) -> SetsRow:
        """Label sets at the single tuned threshold."""
        return self.rows[1]


def headline(files: RunFiles, judged: Judged) -> Headline:
    """Return the key numbers. Raises MetricError if no label of the split has a positive."""
    is_coco_val = (
        files.split == "val" and judged.predictions.label_space == COCO_80 and len(judged.predictions) in COCO_VAL_SAMPLES
    )
    return Headline(
        rows=tuple(_sets_rows(judged)),
        published=tuple(_published_rows(judged)),
        is_coco_val=is_coco_val,
        before=_honesty(judged.before, judged),
        after=_honesty(judged.after, judged) if judged.after is not None else None,
    )


def _sets_rows(judged: Judged) -> list[SetsRow]:
    rows = [
        _sets_row("0.5", "at 0.5, as in the paper", judged, label_sets(judged.raw_marginals_NL, 0.5)),
        _sets_row(
            "tuned",
            f"at {judged.tuned_threshold:.3f}, best OF1 on {judged.tuned_on}",
            judged,
            label_sets(judged.marginals_NL, judged.tuned_threshold),
        ),
    ]
    words = {
        "label_OF1": "one threshold per label, for OF1",
        "label_CF1": "one threshold per label, for CF1",
        "global_CF1": "one threshold, for CF1",
    }
    words |= {f"{RECALL}{alpha}": _promise(control) for alpha, control in judged.rules.guarantees.items()}
    for rule in judged.rules.fitted:
        if rule != "global_OF1":
            described = words.get(rule, rule.replace("_", " "))
            rows.append(_sets_row(rule, described, judged, judged.rules.decide(judged.marginals_NL, rule)))
    k = min(TOP, len(judged.names))
    return [*rows, _sets_row(f"top {k}", f"the {k} most probable labels", judged, top_k(judged.scores_NL, k))]


def _sets_row(rule: str, words: str, judged: Judged, sets_NL: Bools) -> SetsRow:
    targets_NL, known_NL = judged.targets_NL, judged.known_NL
    numbers = paper_metrics(judged.scores_NL, sets_NL, targets_NL, known_NL)
    missed = mean_missed_share(sets_NL, targets_NL, known_NL)
    return SetsRow(rule, words, numbers, float((sets_NL & known_NL).sum(axis=1).mean()), missed)


def _promise(control: RiskControl) -> str:
    covered = {EVERY: "", AT_RANDOM: f", if {control.known_rate:g} of labels are stated at random"}
    return f"misses on average at most {control.alpha:g}{covered.get(control.covers, ' of the labels stated')}"


def _published_rows(judged: Judged) -> list[PublishedRow]:
    ours: dict[str, float] = {}
    # Before calibration, which may change the ranking.
    marginals_NL, scores_NL = judged.raw_marginals_NL, judged.scores_NL
    for name in {row.protocol for row in PUBLISHED}:
        ours[name] = published_metrics(name, marginals_NL, judged.targets_NL, judged.known_NL, scores_NL=scores_NL).mAP
    return [
        PublishedRow(row, PROTOCOLS[row.protocol], _counting(PROTOCOLS[row.protocol]), ours[row.protocol]) for row in PUBLISHED
    ]


def _counting(protocol: Protocol) -> str:
    images = "40,137 images" if protocol.drops_unlabelled else "40,504 images"
    ap = "exact AP" if protocol.ap == "exact" else "VOC 2010 AP"
    return f"{ap}, {images}"


def _honesty(distribution: LabelDistribution, judged: Judged) -> Honesty:
    marginals_NL = judged.raw_marginals_NL if distribution is judged.before else judged.marginals_NL
    log_prob_N = distribution.log_prob(judged.targets_NL, judged.known_NL)
    return honesty(marginals_NL, log_prob_N, judged.targets_NL, judged.known_NL)
