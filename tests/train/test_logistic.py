"""Logistic regressions of many labels against scikit-learn's, one label at a time. N samples, F features, L labels."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rayprob.train.logistic import Task, solve

N, F, L = 120, 6, 4


def a_problem() -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(3)
    features_NF = rng.normal(size=(N, F))
    scores_NL = features_NF @ rng.normal(size=(F, L)) + rng.normal(size=(N, L)) + np.array([-3.0, -1.0, 0.0, 2.0])
    known_NL = rng.random((N, L)) < 0.8
    return torch.from_numpy(features_NF), torch.from_numpy(scores_NL > 0), torch.from_numpy(known_NL)


def solved(features_NF: Tensor, targets_NL: Tensor, known_NL: Tensor, strength: float) -> Tensor:
    inputs_NG = torch.cat([features_NF, torch.ones_like(features_NF[:, :1])], dim=1)
    start_GL = torch.zeros(inputs_NG.shape[1], targets_NL.shape[1], dtype=inputs_NG.dtype)
    return solve(Task.of(inputs_NG, targets_NL, known_NL), start_GL, strength)


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
def test_every_label_gets_what_it_would_get_alone(strength: float) -> None:
    features_NF, targets_NL, known_NL = a_problem()
    weights_GL = solved(features_NF, targets_NL, known_NL, strength).numpy()
    for label in range(L):
        rows = known_NL[:, label].numpy()
        alone = LogisticRegression(C=1 / (strength * rows.sum()), tol=1e-9, max_iter=2000)
        alone.fit(features_NF.numpy()[rows], targets_NL.numpy()[rows, label])
        np.testing.assert_allclose(weights_GL[:-1, label], alone.coef_[0], rtol=5e-3, atol=1e-4)
        np.testing.assert_allclose(weights_GL[-1, label], alone.intercept_[0], rtol=5e-3, atol=1e-4)


def test_a_label_does_not_depend_on_the_others_nor_on_its_unknown_targets() -> None:
    features_NF, targets_NL, known_NL = a_problem()
    together_GL = solved(features_NF, targets_NL, known_NL, 1e-2)
    alone_G1 = solved(features_NF, targets_NL[:, 1:2], known_NL[:, 1:2], 1e-2)
    torch.testing.assert_close(together_GL[:, 1:2], alone_G1)
    assert torch.equal(together_GL, solved(features_NF, targets_NL ^ ~known_NL, known_NL, 1e-2))


def test_a_label_that_is_never_known_as_both_keeps_its_start() -> None:
    features_NF, targets_NL, known_NL = a_problem()
    targets_NL[:, 2], known_NL[:, 0] = True, False
    weights_GL = solved(features_NF, targets_NL, known_NL, 1e-2)
    assert weights_GL.abs().amax(0).bool().tolist() == [False, True, False, True]


def test_separable_labels_in_float32_end_and_are_finite() -> None:
    features_NF, targets_NL, known_NL = a_problem()
    targets_NL[:] = features_NF[:, :L] > 0.5
    weights_GL = solved(features_NF.float(), targets_NL, torch.ones_like(known_NL), 1e-5)
    assert torch.isfinite(weights_GL).all()
    logits_NL = features_NF.float() @ weights_GL[:-1] + weights_GL[-1]
    assert ((logits_NL > 0) == targets_NL).float().mean() > 0.99
