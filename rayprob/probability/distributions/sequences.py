"""Label sets as sequences of their labels, from a recurrent network. B images, L labels in the order of the sequences.

Labels are taken in one fixed order, so every label set is exactly one sequence of its labels, which ends with END. After label
j, with logits u of the state that the labels so far have led to, the next label is l with probability

    sigmoid(u_l) * prod_(j < m < l) sigmoid(-u_m),        and END comes with  prod_(m > j) sigmoid(-u_m).

This is a softmax over END and the labels after j, and sums to 1 over all 2^L label sets. M states of size H; vectors of size E;
D draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

SHARED = ("embedding", "cell_input", "cell_state", "cell_bias", "start", "project")


@dataclass(frozen=True, eq=False)
class LabelNetwork:
    """A gated recurrent unit (Cho et al., EMNLP 2014) that reads labels, and what its state adds to the logits of an image."""

    embedding_EL: Tensor
    input_3EH: Tensor  # of the reset gate, the update gate and the new state
    state_3HH: Tensor
    bias_3H: Tensor
    start_H: Tensor
    project_HE: Tensor

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Tensor]) -> "LabelNetwork":
        """Return the network that a head's shared outputs state."""
        return cls(*(outputs[name] for name in SHARED))

    def start(self, num_states: int) -> Tensor:
        """Return the states [M, H] before the first label."""
        return self.start_H.expand(num_states, -1)

    def advance(self, state_MH: Tensor, label_M: Tensor) -> Tensor:
        """Return the states after one more label each."""
        read_3MH = self.embedding_EL.T[label_M] @ self.input_3EH + self.bias_3H[:, None]
        kept_3MH = state_MH @ self.state_3HH
        reset_MH, update_MH = torch.sigmoid(read_3MH[:2] + kept_3MH[:2])
        new_MH = torch.tanh(read_3MH[2] + reset_MH * kept_3MH[2])
        return torch.lerp(new_MH, state_MH, update_MH)

    def logits(self, logits_ML: Tensor, context_ME: Tensor, state_MH: Tensor) -> Tensor:
        """Return the logits u of all labels in these states."""
        return logits_ML + torch.tanh(context_ME + state_MH @ self.project_HE) @ self.embedding_EL


@dataclass(frozen=True, eq=False)
class SequenceInputs:
    """What the network knows of some images, and their labels known to be present or absent, which may be none."""

    network: LabelNetwork
    logits_BL: Tensor
    context_BE: Tensor
    values_BL: Tensor
    known_BL: Tensor

    def __len__(self) -> int:
        return len(self.logits_BL)

    @property
    def num_labels(self) -> int:
        """L."""
        return self.logits_BL.shape[1]

    def log_states(self, image_M: Tensor, last_M: Tensor, state_MH: Tensor) -> tuple[Tensor, Tensor]:
        """Return log P(present) and log P(absent) [M, L] of the labels after `last_M`, and 0 for the others."""
        logits_ML = self.network.logits(self.logits_BL[image_M], self.context_BE[image_M], state_MH)
        is_open_ML = torch.arange(self.num_labels) > last_M[:, None]
        return logsigmoid(logits_ML) * is_open_ML, logsigmoid(-logits_ML) * is_open_ML


def logits_of_sets(network: LabelNetwork, logits_BL: Tensor, context_BE: Tensor, present_BL: Tensor) -> Tensor:
    """Return the logit of each label [B, L] in the state that the labels present before it lead to.

    log p(label set) is the sum over labels of log sigmoid of this logit, or of its negative for those that are absent.
    """
    num_before_BL = present_BL.long().cumsum(dim=1) - present_BL.long()
    num_steps = int(present_BL.sum(dim=1).max()) if len(present_BL) else 0
    column_BT = torch.argsort(~present_BL, dim=1, stable=True)[:, :num_steps]
    states = [network.start(len(present_BL))]
    for column_B in column_BT.T:
        states.append(network.advance(states[-1], column_B))
    logits_BTL = network.logits(logits_BL[:, None], context_BE[:, None], torch.stack(states, dim=1))
    return logits_BTL.gather(1, num_before_BL[:, None])[:, 0]


@dataclass(frozen=True, eq=False)
class Draws:
    """D label sets of each image that agree with what is known, sampled by likelihood weighting.

    Labels are drawn one after another, each given those before it; known labels are not drawn, and the weight is the product of
    their probabilities. So the mean weight is an unbiased estimate of the probability of what is known, and weighted means
    estimate expectations given it. `chance_BDL` is the probability that each label had when it was drawn.
    """

    sets_BDL: Tensor
    log_weight_BD: Tensor
    log_prob_BD: Tensor
    chance_BDL: Tensor

    @classmethod
    def none(cls, num_draws: int, num_labels: int) -> "Draws":
        """Return draws of one axis, before the first step."""
        empty_RL, zero_R = torch.zeros(num_draws, num_labels, dtype=torch.float64), torch.zeros(num_draws, dtype=torch.float64)
        return cls(empty_RL.bool(), zero_R, zero_R.clone(), empty_RL)

    def add(
        self,
        draw_R: Tensor,
        state_R: Tensor,
        next_R: Tensor,
        last_M: Tensor,
        log_states: tuple[Tensor, Tensor],
        known_ML: Tensor,
    ) -> None:
        """Add the next label of some draws, L for END, and what the labels passed on the way to it contribute."""
        log_present_ML, log_absent_ML = log_states
        num_labels = known_ML.shape[1]
        for total_R, counted_ML in ((self.log_prob_BD, torch.ones_like(known_ML)), (self.log_weight_BD, known_ML)):
            chosen_MN, passed_MN = (
                pad(log_present_ML * counted_ML, (0, 1)),
                pad((log_absent_ML * counted_ML).cumsum(dim=1), (1, 0)),
            )
            total_R[draw_R] += (chosen_MN + passed_MN)[state_R, next_R]
        columns_L = torch.arange(num_labels)
        is_seen_RL = (columns_L > last_M[state_R, None]) & (columns_L <= next_R[:, None])
        self.chance_BDL[draw_R] = torch.where(is_seen_RL, log_present_ML.exp()[state_R], self.chance_BDL[draw_R])
        is_label_R = next_R < num_labels
        self.sets_BDL[draw_R[is_label_R], next_R[is_label_R]] = True

    def of_images(self, num_images: int) -> "Draws":
        """Return the draws with axes of images and draws."""
        parts = (self.sets_BDL, self.log_weight_BD, self.log_prob_BD, self.chance_BDL)
        return Draws(*(part.reshape(num_images, -1, *part.shape[1:]) for part in parts))


def draw(images: SequenceInputs, log_uniform_DT: Tensor) -> Draws:
    """Return label sets that use row d, column t of uniform numbers, as logarithms, for step t of draw d of every image.

    So the draws of an image do not depend on the others. Draws with equal labels so far share one state.
    """
    num_images, num_draws, num_labels = len(images), len(log_uniform_DT), images.num_labels
    found = Draws.none(num_images * num_draws, num_labels)
    draw_R = torch.arange(num_images * num_draws)  # R draws that have not ended, each in one of M states
    state_R = draw_R // num_draws
    image_M, last_M, state_MH = torch.arange(num_images), torch.full((num_images,), -1), images.network.start(num_images)
    for step in range(num_labels + 1):
        log_states = images.log_states(image_M, last_M, state_MH)
        known_ML, values_ML = images.known_BL[image_M], images.values_BL[image_M]
        must_ML = known_ML & values_ML & (torch.arange(num_labels) > last_M[:, None])
        log_pass_ML = log_states[1].masked_fill(known_ML, 0.0).masked_fill(must_ML, -torch.inf)
        next_R = (log_pass_ML.cumsum(dim=1)[state_R] >= log_uniform_DT[draw_R % num_draws, step, None]).sum(dim=1)
        found.add(draw_R, state_R, next_R, last_M, log_states, known_ML)
        is_label_R = next_R < num_labels
        draw_R, state_and_label_R = draw_R[is_label_R], (state_R * num_labels + next_R)[is_label_R]
        if not len(draw_R):
            break
        state_and_label_M, state_R = torch.unique(state_and_label_R, return_inverse=True)
        before_M, last_M = state_and_label_M // num_labels, state_and_label_M % num_labels
        image_M, state_MH = image_M[before_M], images.network.advance(state_MH[before_M], last_M)
    return found.of_images(num_images)


def search(images: SequenceInputs, width: int) -> tuple[Tensor, Tensor]:
    """Return `width` probable label sets [B, W, L] that agree with what is known, and log p [B, W] of each; the best first.

    Beam search: after each label, the `width` most probable partial sequences of an image are kept. A set whose first labels
    are improbable may be missed; with a width of 2^L nothing is.
    """
    num_images, num_labels = len(images), images.num_labels
    sets_BWL = torch.zeros(num_images, width, num_labels, dtype=torch.bool)
    score_BW = torch.full((num_images, width), -torch.inf, dtype=torch.float64)
    score_BW[:, 0] = 0
    ended_BW, last_BW = torch.zeros_like(score_BW, dtype=torch.bool), torch.full_like(score_BW, -1, dtype=torch.long)
    image_BW = torch.arange(num_images)[:, None].expand(-1, width)
    state_BWH = images.network.start(num_images * width).reshape(num_images, width, -1)
    while num_images and not ended_BW.all():
        log_next = _log_next(images, image_BW.flatten(), last_BW.flatten(), state_BWH.flatten(0, 1))
        log_next_BWN = log_next.reshape(num_images, width, -1)
        stays = torch.full((num_labels + 1,), -torch.inf, dtype=torch.float64)
        stays[-1] = 0.0  # what has ended has one continuation, itself
        log_next_BWN = torch.where(ended_BW[:, :, None], stays, log_next_BWN)
        score_BW, place_BW = (score_BW[:, :, None] + log_next_BWN).flatten(1).topk(width)
        before_BW, next_BW = place_BW // (num_labels + 1), place_BW % (num_labels + 1)
        ended_BW = (next_BW == num_labels) | (score_BW == -torch.inf)
        last_BW = next_BW.clamp(max=num_labels - 1)
        sets_BWL = sets_BWL[image_BW, before_BW]
        sets_BWL |= torch.arange(num_labels) == next_BW[:, :, None]
        state_BWH = images.network.advance(state_BWH[image_BW, before_BW].flatten(0, 1), last_BW.flatten())
        state_BWH = state_BWH.reshape(num_images, width, -1)
    return sets_BWL, score_BW


def _log_next(images: SequenceInputs, image_M: Tensor, last_M: Tensor, state_MH: Tensor) -> Tensor:
    """Return the log probability [M, L + 1] of each next label and, last, of END; -inf if it contradicts what is known."""
    present_ML, absent_ML = images.log_states(image_M, last_M, state_MH)
    known_ML, values_ML = images.known_BL[image_M], images.values_BL[image_M]
    is_open_ML = torch.arange(images.num_labels) > last_M[:, None]
    absent_ML = absent_ML.masked_fill(known_ML & values_ML & is_open_ML, -torch.inf)
    present_ML = present_ML.masked_fill(~is_open_ML | (known_ML & ~values_ML), -torch.inf)
    return pad(present_ML, (0, 1)) + pad(absent_ML.cumsum(dim=1), (1, 0))
