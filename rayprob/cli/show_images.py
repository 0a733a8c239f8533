"""What `shard` and `inspect` print of the images of a dataset: their kinds, and how they are read."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from rayprob.cli.terminal import show_line
from rayprob.images.header import ANIMATED, CMYK, DEEP_COLOUR, DEEP_GREY, MULTI_PICTURE, TRANSPARENT
from rayprob.images.kinds import JPEG, KINDS
from rayprob.images.notable import CONVERTED, NEARLY_BLACK
from rayprob.images.reading import ImageReading

# Singular and plural.
TURNED = ("is turned upright, as its EXIF states", "are turned upright, as their EXIF states")
AS_STORED = (
    "is turned by EXIF but read as stored; build the dataset again to read it upright",
    "are turned by EXIF but read as stored; build the dataset again to read them upright",
)
READ_AS = {
    CONVERTED: ("was converted to an upright JPEG (encode)", "were converted to upright JPEGs (encode)"),
    CMYK: ("is CMYK, read as RGB", "are CMYK, read as RGB"),
    MULTI_PICTURE: ("contains several pictures; the first is read", "contain several pictures; the first is read"),
    ANIMATED: ("is an animation; its first frame is read", "are animations; their first frames are read"),
    TRANSPARENT: ("has transparency, composited over white", "have transparency, composited over white"),
    DEEP_COLOUR: (
        "has 16 bits per colour; the upper 8 are read",
        "have 16 bits per colour; the upper 8 are read",
    ),
}
DEEP = ("has 16 bits of grey: {}", "have 16 bits of grey: {}")
DARK = ("comes out nearly black in 8 bits", "come out nearly black in 8 bits")
REMEDIES = {
    NEARLY_BLACK[DEEP_GREY]: "set `window` in the recipe, such as [0, 4095] for 12 bits of grey, and build again",
    NEARLY_BLACK[DEEP_COLOUR]: "save them with 8 bits per colour, and build again",
}


def show_images(console: Console, facts: Mapping[str, Any]) -> None:
    """Print notable properties of the images, from dataset.json; nothing if all are upright JPEGs."""
    for line in lines_of(facts):
        show_line(console, f"  {line}")


def lines_of(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each notable property of the images. Datasets of 0.1 record only how many are rotated."""
    counts, reading = facts.get("images", {}), ImageReading.of(facts)
    kinds = {kind.title: counts[kind.title] for kind in KINDS if kind.title in counts}
    if kinds.keys() - {JPEG.title}:
        yield f"kinds of images: {', '.join(f'{count:,} {title}' for title, count in kinds.items())}"
    if rotated := facts.get("exif_rotated"):
        yield _line(rotated, TURNED if reading.orientation == "upright" else AS_STORED)
    yield from (_line(counts[name], words) for name, words in READ_AS.items() if name in counts)
    if deep := counts.get(DEEP_GREY):
        how = f"{list(reading.window)} becomes 0 to 255" if reading.window else "the upper 8 are read"
        yield _line(deep, DEEP).format(how)
    yield from (f"warning: {_line(counts[dark], DARK)}; {remedy}" for dark, remedy in REMEDIES.items() if dark in counts)


def _line(count: int, words: tuple[str, str]) -> str:
    return f"{count:,} image{'s' * (count != 1)} {words[count != 1]}"
