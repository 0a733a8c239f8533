"""The network of the family `masked`: the logits of labels, given an image and what is known of its other labels.

B images, P places, L labels, Q labels asked about, T blocks, M attention heads, D width. Its weights are outputs of the head
that all images share, so whoever has the outputs can run it; OUTPUTS has their shapes:

    logits, places       each image's own: logits of a linear layer, and the image's places, projected to D
    queries, readout     the vector that a label starts from, and the one that its result is multiplied with
    states               a token for each label that is present, and one for each that is absent
    blocks               of each block: query, key, value and output matrices, then both layers of the MLP in two halves
    turns                the order of the chain (`MaskedDistribution`)

A block adds attention, then an MLP, to the vector of each label asked about; inputs are scaled to mean square 1, without
weights. Attention is over the image's places and the tokens of the labels that this label may see. The keys and values do not
depend on which other labels are known, so an answer depends on the set of labels seen, not on an order, and each label asked
about may see another set in the same pass. A pass costs about T Q D (4 L + 2 P + 6 D) multiplications per image, and a few
arrays of M Q (2 L + P) numbers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

OUTPUTS = {
    "logits": "NL",
    "places": "NPD",
    "queries": "LD",
    "readout": "LD",
    "states": "2LD",
    "blocks": "T8DD",
    "turns": "L",
}
ATTENTION_HEADS = 4  # the width is a multiple of it
TINY = 1e-6


def label_logits(
    outputs: Mapping[str, Tensor], open_BQ2L: Tensor | None = None, columns_Q: Tensor | slice = slice(None)
) -> Tensor:
    """Return the logits [B, Q] of the labels in `columns_Q`, which may repeat, each given the labels that it sees.

    `open_BQ2L`, bool [1 or B, 1 or Q, 2, L], has the tokens that each sees: of present labels and of absent ones. Without it,
    nothing is known. All outputs must be of one floating type.
    """
    places_BPD, queries_QD = scaled(outputs["places"]), outputs["queries"][columns_Q]
    tokens_XD = None if open_BQ2L is None else scaled(outputs["states"].flatten(0, 1))
    open_BQX = None if open_BQ2L is None else open_BQ2L.flatten(2)
    hidden_BQD = queries_QD.expand(places_BPD.shape[0], -1, -1)
    for block_8DD in outputs["blocks"]:
        query, key, value, output, *mlp = block_8DD
        read_BQD = _attention(scaled(hidden_BQD) @ query, places_BPD, tokens_XD, open_BQX, key, value)
        hidden_BQD = hidden_BQD + read_BQD @ output
        wide_BQD = scaled(hidden_BQD)
        hidden_BQD = hidden_BQD + (wide_BQD @ mlp[0]).relu() @ mlp[2] + (wide_BQD @ mlp[1]).relu() @ mlp[3]
    return outputs["logits"][:, columns_Q] + (scaled(hidden_BQD) * outputs["readout"][columns_Q]).sum(dim=2)


def tokens_seen(present_BQL: Tensor, seen_BQL: Tensor) -> Tensor:
    """Return which tokens are seen, bool [B, Q, 2, L], from the labels seen and whether each is present; shapes broadcast."""
    return torch.stack([seen_BQL & present_BQL, seen_BQL & ~present_BQL], dim=2)


def chain_order(turns_L: Tensor) -> Tensor:
    """Return which labels come before which in the chain, bool [L, L]: entry [q, l] is whether l comes before q."""
    return turns_L < turns_L[:, None]


def scaled(values: Tensor) -> Tensor:
    """Return vectors scaled to mean square 1 (Zhang and Sennrich, NeurIPS 2019), without weights."""
    return values * (values.square().mean(dim=-1, keepdim=True) + TINY).rsqrt()


def _attention(
    query_BQD: Tensor, places_BPD: Tensor, tokens_XD: Tensor | None, open_BQX: Tensor | None, key_DD: Tensor, value_DD: Tensor
) -> Tensor:
    """Return what each query reads [B, Q, D] of all places and of the tokens open to it, by scaled dot-product attention."""
    keys, values = (_heads(_read(places_BPD, tokens_XD, matrix_DD)) for matrix_DD in (key_DD, value_DD))
    query = _heads(query_BQD)
    mask = None
    if open_BQX is not None:
        mask = pad(open_BQX, (places_BPD.shape[1], 0), value=True)[:, None].expand(len(query), -1, query.shape[2], -1)
    return scaled_dot_product_attention(query, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)


def _read(places_BPD: Tensor, tokens_XD: Tensor | None, matrix_DD: Tensor) -> Tensor:
    """Return an image's places, then the tokens, times a matrix [B, P + X, D]."""
    own_BPD = places_BPD @ matrix_DD
    if tokens_XD is None:
        return own_BPD
    return torch.cat([own_BPD, (tokens_XD @ matrix_DD).expand(len(own_BPD), -1, -1)], dim=1)


def _heads(vectors_BND: Tensor) -> Tensor:
    """Return vectors [B, N, D] as [B, M, N, D / M]."""
    return vectors_BND.view(*vectors_BND.shape[:2], ATTENTION_HEADS, -1).transpose(1, 2)
