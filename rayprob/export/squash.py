"""The evaluation transform's resize as matrix products, bit for bit. N images, H x W pixels, S = size_px.

`loader.augment.resize` is PyTorch's antialiased bilinear kernel for bytes: each output pixel is a weighted mean of the input
pixels under a triangle as wide as the scale, first along rows, then along columns, with weights rounded to 16 bits and sums to
bytes. No operator of ONNX has that rounding, but two products with weight matrices do; float64 represents every sum exactly.
"""

import torch
from torch import Tensor, nn

MOST_PRECISION = 22  # fractional bits of a weight; a scaled weight also has to fit into 16 bits with its sign
LARGEST = 2**15
BYTE = 255


class Squash(nn.Module):
    """Images uint8 [N, H, W, 3] of any one size -> uint8 [N, 3, S, S]."""

    def __init__(self, size_px: int) -> None:
        super().__init__()
        self.size_px = size_px

    def forward(self, images_NHWC: Tensor) -> Tensor:
        """Return the images resized to a square."""
        images_NCHW = images_NHWC.permute(0, 3, 1, 2).double()
        columns_WS, column_unit = _weights(torch.ones_like(images_NCHW[0, 0, 0]), self.size_px)
        rows_HS, row_unit = _weights(torch.ones_like(images_NCHW[0, 0, :, 0]), self.size_px)
        narrow_NCHS = _to_bytes(images_NCHW @ columns_WS, column_unit)
        return _to_bytes(rows_HS.T @ narrow_NCHS, row_unit).to(torch.uint8)


def _weights(ones_H: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """Return integer weights [H, S] and the integer that represents 1.

    `ones_H` carries the length as data, because shapes that differ from call to call are not numbers during export.
    """
    scale = ones_H.sum() / size_px
    places_H1 = (torch.cumsum(ones_H, 0) - 0.5).unsqueeze(1)
    centres_S = (torch.arange(size_px, dtype=torch.float64) + 0.5) * scale
    weights_HS = torch.clamp(1 - torch.abs(places_H1 - centres_S) / torch.clamp(scale, min=1.0), min=0.0)
    weights_HS = weights_HS / weights_HS.sum(dim=0, keepdim=True)
    bits = torch.arange(1, MOST_PRECISION + 1, dtype=torch.float64)
    precision = (torch.floor(weights_HS.max() * 2**bits + 0.5) < LARGEST).double().sum()
    unit = 2**precision
    return torch.floor(weights_HS * unit + 0.5), unit


def _to_bytes(sums: Tensor, unit: Tensor) -> Tensor:
    return torch.clamp(torch.floor((sums + unit / 2) / unit), 0, BYTE)
