"""What becomes of every kind of image: how it is stored, how far its pixels are from Pillow's, and whether training and
prediction see the same ones.

python benchmarks/image_kinds.py      # a table in Markdown

Each file is named .jpg, whatever it is. The difference, of 255, is that of the channel of a pixel that is farthest from what
Pillow reads: `ImageOps.exif_transpose`, transparency composited over white, the upper 8 of 16 bits.
"""

import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rayprob.cli.show_images import lines_of
from rayprob.images.reading import READ_UPRIGHT
from tests.images.all_kinds import build_dataset, outcomes


def main() -> None:
    """Print the table, and what `rayprob shard` prints of such a dataset."""
    logging.disable(logging.WARNING)
    print("| image | stored as | largest difference to Pillow | train = predict |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        facts = build_dataset(Path(folder)).facts
        found = list(outcomes(Path(folder), READ_UPRIGHT))
    for outcome in found:
        print(f"| {outcome.title} | {outcome.suffix} | {outcome.difference} | {'yes' if outcome.is_same else 'NO'} |")
    print(f"\n{sum(outcome.is_same for outcome in found)} of {len(found)} are the same in training and prediction.")
    print("`rayprob shard` prints:", *lines_of(facts), sep="\n  ")


if __name__ == "__main__":
    main()
