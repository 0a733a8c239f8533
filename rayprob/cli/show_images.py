"""What `shard` and `inspect` print of the images of a dataset: their kinds, and how they are read."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from rayprob.cli.terminal import show_line
from rayprob.images.header import ANIMATED, CMYK, DEEP_COLOUR, DEEP_GREY, MULTI_PICTURE, TRANSPARENT
from rayprob.images.kinds import JPEG, KINDS
from rayprob.images.notable import CONVERTED, NEARLY_BLACK
from rayprob.images.reading import ImageReading

READ_AS = {
    CONVERTED: "were converted to upright JPEGs (encode)",
    CMYK: "are CMYK, read as RGB",
    MULTI_PICTURE: "hold several pictures (MPO), of which the first is read",
    ANIMATED: "are animations, of which the first frame is read",
    TRANSPARENT: "have transparency, laid over white",
    DEEP_COLOUR: "have 16 bits per colour, of which the upper 8 are read",
}
TURNED = "are turned upright, as their EXIF states"
NOT_TURNED = "are rotated by EXIF; training reads them as stored; build the dataset again to have them upright"
REMEDY = "set `window` in the recipe, such as [0, 4095] for 12 bits, and build again"


def show_images(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what is notable of the images that dataset.json describes; nothing where all are upright JPEGs."""
    for line in lines_of(facts):
        show_line(console, f"  {line}")


def lines_of(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line per notable property of the images. Datasets of 0.1 record only how many are rotated."""
    counts, reading = facts.get("images", {}), ImageReading.of(facts)
    kinds = [f"{counts[kind.title]:,} {kind.title}" for kind in KINDS if kind.title in counts]
    if (kinds and JPEG.title not in counts) or len(kinds) > 1:
        yield f"kinds of images: {', '.join(kinds)}"
    if rotated := facts.get("exif_rotated"):
        yield f"{_images(rotated)} {TURNED if reading.orientation == 'upright' else NOT_TURNED}"
    yield from (f"{_images(counts[name])} {words}" for name, words in READ_AS.items() if name in counts)
    if deep := counts.get(DEEP_GREY):
        how = f"{list(reading.window)} becomes 0 to 255" if reading.window else "the upper 8 are read"
        yield f"{_images(deep)} have 16 bits of grey: {how}"
    if dark := counts.get(NEARLY_BLACK):
        yield f"warning: {_images(dark)} with 16 bits come out nearly black; {REMEDY}"


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"
