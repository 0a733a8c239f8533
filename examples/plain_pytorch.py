"""A plain PyTorch loop over rayprob's training stream. It can stop after any step and continues with the same batches.

python examples/plain_pytorch.py demo/shards checkpoint.pt 100      # after `make demo`; then again, with 200
"""

import sys
from itertools import islice
from pathlib import Path

import torch

from rayprob.data.manifest.dataset import Dataset
from rayprob.loader.augment import TransformSpec, build_transform
from rayprob.loader.order import Place
from rayprob.loader.streams import StreamSpec, TrainStream
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.models.losses import LossSpec, build_loss


def train(root: str, checkpoint: Path, steps: int, size_px: int = 64) -> list[int]:
    """Train up to step `steps`, from the checkpoint if there is one; return the ids of the samples seen in this call."""
    dataset = Dataset.open(root)
    spec = StreamSpec(global_batch=16, lanes=2, loader_workers=0)
    transform = build_transform(TransformSpec(name="paper", size_px=size_px))
    stream = TrainStream(dataset.split("train"), spec, transform, seed=0, place=Place(), micro_batch=16)
    model = build_classifier(ModelSpec(backbone="timm/test_resnet"), len(dataset.label_space))
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=3e-3), build_loss(LossSpec())
    done, seen = 0, []
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        stream.load_state_dict(saved["stream"])
        done = saved["done"]
    for batch in islice(stream, max(0, steps - done)):
        value = loss(model(batch.images_BCHW), batch.targets_BL, batch.known_BL).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen += batch.sample_ids_B.tolist()
        done += 1
    parts = {"model": model, "optimizer": optimizer, "stream": stream}
    torch.save({"done": done, **{name: part.state_dict() for name, part in parts.items()}}, checkpoint)
    return seen


if __name__ == "__main__":
    print(f"{len(train(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))):,} images")
