"""Published definitions: each protocol against the authors' procedure, written out sample by sample."""

import numpy as np
import pytest

from rayprob.errors import MetricError
from rayprob.metrics.protocols import PROTOCOLS, published_metrics

EPSILON = np.finfo(float).eps


def case():
    """Marginals without ties, a label never predicted, one whose first rank is wrong, and rows without any label."""
    rng = np.random.default_rng(3)
    targets_NL = rng.random((200, 6)) < 0.2
    marginals_NL = (1 / (1 + np.exp(2 - 2.5 * targets_NL - rng.normal(size=targets_NL.shape)))).astype(np.float32)
    marginals_NL[:, 4] *= 0.4
    assert not targets_NL.any(axis=1).all()
    return marginals_NL, targets_NL


def ap_ml_gcn(scores_N, targets_N):
    hits, precision = 0, 0.0
    for place, row in enumerate(np.argsort(-scores_N), start=1):
        if targets_N[row]:
            hits += 1
            precision += hits / place
    return precision / hits


def ap_srn(scores_N, targets_N):
    hits_N = np.cumsum(targets_N[np.argsort(-scores_N)])
    recalls = np.concatenate([[0], hits_N / targets_N.sum(), [1]])
    precisions = np.concatenate([[0], hits_N / np.arange(1, len(hits_N) + 1), [0]])
    for i in range(len(precisions) - 2, -1, -1):
        precisions[i] = max(precisions[i], precisions[i + 1])
    return sum((recalls[i] - recalls[i - 1]) * precisions[i] for i in range(1, len(recalls)))


def six_ml_gcn(predicted_NL, targets_NL):
    right, predicted, present = (v.sum(axis=0).astype(float) for v in (predicted_NL & targets_NL, predicted_NL, targets_NL))
    op, recall = right.sum() / predicted.sum(), right.sum() / present.sum()
    predicted[predicted == 0] = 1
    cp, cr = np.mean(right / predicted), np.mean(right / present)
    return op, recall, 2 * op * recall / (op + recall), cp, cr, 2 * cp * cr / (cp + cr)


def six_srn(predicted_NL, targets_NL):
    def prf(predicted, targets):
        right, total, present = (v.sum(axis=0) + EPSILON for v in (predicted & targets, predicted, targets))
        p, r = right / total, right / present
        return p, r, 2 * p * r / (p + r)

    overall = prf(predicted_NL.reshape(-1, 1), targets_NL.reshape(-1, 1))
    return *(v[0] for v in overall), *(v.mean() for v in prf(predicted_NL, targets_NL))


def six_asl(predicted_NL, targets_NL):
    p, r, f = [], [], []
    for predicted, targets in zip(predicted_NL.T, targets_NL.T, strict=True):
        right = (predicted & targets).sum()
        p.append(right / predicted.sum() if right else 0.0)
        r.append(right / targets.sum() if right else 0.0)
        f.append(2 * p[-1] * r[-1] / (p[-1] + r[-1]) if right else 0.0)
    return *six_ml_gcn(predicted_NL, targets_NL)[:3], np.mean(p), np.mean(r), np.mean(f)


def six_salgl(predicted_NL, targets_NL):
    right, predicted, present = (
        np.maximum(v.sum(axis=0), EPSILON) for v in (predicted_NL & targets_NL, predicted_NL, targets_NL)
    )
    cp, cr = np.mean(right / predicted), np.mean(right / present)
    return *six_ml_gcn(predicted_NL, targets_NL)[:3], cp, cr, 2 * cp * cr / (cp + cr)


# The authors' own steps: AP of a label, the six numbers, the threshold, whether images without a label are dropped.
STEPS = {
    "rayprob": (ap_ml_gcn, six_ml_gcn, 0.5, False),
    "paper": (ap_ml_gcn, six_salgl, 0.5, True),
    "ML-GCN": (ap_ml_gcn, six_ml_gcn, 0.5, True),
    "ADD-GCN": (ap_ml_gcn, six_ml_gcn, 0.5, True),
    "CSRA": (ap_ml_gcn, six_ml_gcn, 0.5, True),
    "C-Tran": (ap_ml_gcn, six_ml_gcn, 0.5, True),
    "ML-Decoder": (ap_ml_gcn, None, 0.5, True),
    "ASL": (ap_ml_gcn, six_asl, 0.8, True),
    "mmpretrain": (ap_ml_gcn, six_asl, 0.5, True),
    "SRN": (ap_srn, six_srn, 0.5, False),
    "SSGRL": (ap_srn, None, 0.5, False),
    "Query2Label": (ap_srn, None, 0.5, False),
    "SALGL": (ap_srn, six_salgl, 0.5, True),
}


def test_every_protocol_has_its_steps_and_source():
    assert STEPS.keys() == PROTOCOLS.keys()
    assert all(len(protocol.source) > 10 for protocol in PROTOCOLS.values())


@pytest.mark.parametrize("name", STEPS)
def test_published_numbers_follow_the_authors_steps(name):
    average, six, threshold, drops_unlabelled = STEPS[name]
    marginals_NL, targets_NL = case()
    seven = published_metrics(name, marginals_NL, targets_NL).to_dict()
    kept_N = targets_NL.any(axis=1) | (not drops_unlabelled)
    marginals_NL, targets_NL = marginals_NL[kept_N], targets_NL[kept_N]
    expected = {"mAP": np.mean([average(*column) for column in zip(marginals_NL.T, targets_NL.T, strict=True)])}
    if six:
        assert not (marginals_NL[:, 4] >= threshold).any()
        expected |= dict(zip(("OP", "OR", "OF1", "CP", "CR", "CF1"), six(marginals_NL >= threshold, targets_NL), strict=True))
    assert {metric: seven[metric] for metric in expected} == pytest.approx(expected, abs=1e-9)


def test_the_protocols_really_differ():
    seven = {name: published_metrics(name, *case()) for name in ("rayprob", "ML-GCN", "ASL", "SRN", "SALGL")}
    assert len({round(metrics.mAP, 6) for metrics in seven.values()}) == 4
    assert len({round(metrics.CF1, 6) for metrics in seven.values()}) == 5


def test_top_3_drops_labels_below_the_threshold_where_the_authors_did():
    marginals_NL, targets_NL = case()
    best_NL = np.argsort(np.argsort(-marginals_NL, axis=1), axis=1) < 3
    labelled_N = targets_NL.any(axis=1)
    for name, predicted_NL in (("rayprob", best_NL), ("CSRA", best_NL & (marginals_NL >= 0.5))):
        kept_N = labelled_N | (name == "rayprob")
        expected = six_ml_gcn(predicted_NL[kept_N], targets_NL[kept_N])
        found = published_metrics(name, marginals_NL, targets_NL, top=3).to_dict()
        assert tuple(found[metric] for metric in ("OP", "OR", "OF1", "CP", "CR", "CF1")) == pytest.approx(expected)


def test_an_image_with_unknown_labels_is_not_taken_for_unlabelled():
    marginals_NL, targets_NL = case()
    known_NL = np.ones_like(targets_NL)
    known_NL[~targets_NL.any(axis=1), 0] = False
    kept = published_metrics("ML-GCN", marginals_NL, targets_NL, known_NL)
    assert kept == published_metrics("rayprob", marginals_NL, targets_NL, known_NL)


def test_logits_and_unknown_protocols_are_refused():
    marginals_NL, targets_NL = case()
    with pytest.raises(
        MetricError, match=r"marginals_NL ranges from -3.9.* to 3.7.*, outside \[0, 1\]; convert logits to marginals"
    ):
        published_metrics("ASL", marginals_NL * 8 - 4, targets_NL)
    with pytest.raises(MetricError, match=r"unknown protocol 'MLGCN'.*allowed: rayprob, paper, ML-GCN"):
        published_metrics("MLGCN", marginals_NL, targets_NL)
