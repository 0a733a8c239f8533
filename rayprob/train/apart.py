"""Binary relevance in the literature's sense: one classifier per label, each fitted alone on frozen features.

`rayprob refit RUN --set head.apart=true`: a logistic regression per label, with the penalty that suits this label's holdout
samples best. N samples, F features, G = F + 1, L labels, S strengths of the penalty.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from rayprob.models.heads import average
from rayprob.models.heads.bernoulli import BernoulliHead
from rayprob.models.heads.head import log_odds
from rayprob.train.features import Features
from rayprob.train.fitting import Fitting, predictions_of
from rayprob.train.logistic import Task, solve

# Of the mean loss over samples, for features of unit variance; strong to weak, so that each solution starts the next.
STRENGTHS = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
LABELS_AT_ONCE = 256  # bounds the memory for logits, N x this
CONSTANT = 1e-6  # a feature with a standard deviation below this share of its size does not vary
UNUSED = "head.apart fits each label to convergence: optimizer, schedule, epochs, global_batch and patience are not used"


@dataclass(frozen=True)
class Inputs:
    """The features of an epoch's samples with mean 0 and variance 1 and a last column of ones [N, G], and what undoes that."""

    inputs_NG: Tensor
    mean_F: Tensor
    scale_F: Tensor

    @classmethod
    def of(cls, features_NF: Tensor) -> "Inputs":
        """Standardise the features; one that does not vary becomes 0."""
        mean_F, scale_F = features_NF.mean(dim=0), features_NF.std(dim=0)
        scale_F = scale_F.masked_fill(scale_F <= CONSTANT * features_NF.abs().mean(dim=0), torch.inf)
        return cls(pad((features_NF - mean_F) / scale_F, (0, 1), value=1.0), mean_F, scale_F)


class FittingApart(Fitting):
    """A refit of each label alone. A step is a strength of the penalty; the last one takes each label's best.

    The best is the strength with the lowest holdout NLL of the label. A label that is not known to be both present and absent
    in holdout takes the strength that is best for all labels together; one that training does not show as both answers with
    its prevalence.
    """

    @property
    def total_steps(self) -> int:
        return len(STRENGTHS) + 1

    @property
    def steps_per_epoch(self) -> int:
        return 1

    def train(self) -> None:
        """Fit with each strength and evaluate it, then the choice."""
        self.record("start", {**self.start_facts(), "notes": [UNUSED]})
        inputs = Inputs.of(average(self.train_split.features_NF)[torch.from_numpy(self.epochs.rows(0))])
        weights_GL, found = self._prevalence_only(inputs), []
        for strength in STRENGTHS:
            weights_GL = self._solved(inputs, weights_GL, strength)
            found.append((weights_GL, self._evaluated(inputs, weights_GL)))
        weights_SGL, nll_SL = (torch.stack(parts) for parts in zip(*found, strict=True))
        choice_L = best_strength(nll_SL, self.holdout)
        labels_L = torch.arange(len(choice_L))
        # The choice is kept, even if rounding favours a single strength.
        self.progress = replace(self.progress, best_score=None)
        self._evaluated(inputs, weights_SGL[choice_L, :, labels_L].T)
        strengths = [STRENGTHS[choice] for choice in choice_L.tolist()]
        self.facts = {"strengths": dict(zip(self.label_space.names, strengths, strict=True))}

    def _prevalence_only(self, inputs: Inputs) -> Tensor:
        """Return weights of 0, and biases with which every label answers with its prevalence [G, L]."""
        targets_NL, known_NL = self._labels()
        prevalence_L = (targets_NL & known_NL).sum(0) / known_NL.sum(0).clamp(min=1)
        weights_GL = torch.zeros(inputs.inputs_NG.shape[1], len(prevalence_L), device=inputs.inputs_NG.device)
        weights_GL[-1] = torch.from_numpy(log_odds(prevalence_L.cpu().numpy())).to(weights_GL)
        return weights_GL

    def _labels(self) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(self.epochs.rows(0))
        return self.train_split.targets_NL[rows], self.train_split.known_NL[rows]

    def _solved(self, inputs: Inputs, weights_GL: Tensor, strength: float) -> Tensor:
        parts = [torch.split(table, LABELS_AT_ONCE, dim=1) for table in (*self._labels(), weights_GL)]
        tasks = (
            (Task.of(inputs.inputs_NG, targets_Nl, known_Nl), start_Gl)
            for targets_Nl, known_Nl, start_Gl in zip(*parts, strict=True)
        )
        return torch.cat([solve(task, start_Gl, strength) for task, start_Gl in tasks], dim=1)

    @torch.no_grad()
    def _evaluated(self, inputs: Inputs, weights_GL: Tensor) -> Tensor:
        """Put weights into the head and evaluate it as a step; return the holdout NLL of each label [L]."""
        head = self.classifier.head
        assert isinstance(head, BernoulliHead)
        weight_FL = weights_GL[:-1] / inputs.scale_F[:, None]
        head.linear.weight.copy_(weight_FL.T)
        head.linear.bias.copy_(weights_GL[-1] - inputs.mean_F @ weight_FL)
        self.progress = replace(self.progress, step=self.progress.step + 1)
        self.evaluate()
        outputs = predictions_of(self.classifier, self.holdout, self.label_space, {}).outputs
        known_NL = self.holdout.known_NL.float().cpu()
        targets_NL = self.holdout.targets_NL.float().cpu()
        logits_NL = torch.from_numpy(outputs["logits"])
        return binary_cross_entropy_with_logits(logits_NL, targets_NL, known_NL, reduction="none").sum(0)


def best_strength(nll_SL: Tensor, holdout: Features) -> Tensor:
    """Return for each label the index of the strength with its lowest NLL [L], or with that of all labels together."""
    present_NL, known_NL = holdout.targets_NL.cpu(), holdout.known_NL.cpu()
    is_judged_L = (present_NL & known_NL).any(0) & (~present_NL & known_NL).any(0)
    return torch.where(is_judged_L, nll_SL.argmin(dim=0), nll_SL.sum(dim=1).argmin())
