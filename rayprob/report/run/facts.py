"""Everything that the page shows about a run, as plain values, before anything is drawn."""

from dataclasses import dataclass

from rayprob.report.made import Made, made, sentence
from rayprob.report.run import curves
from rayprob.report.run.files import Note, RunFiles
from rayprob.report.run.headline import Headline, headline
from rayprob.report.run.images import Images, images
from rayprob.report.run.judged import Judged
from rayprob.report.run.labels import Labels, labels
from rayprob.report.run.maps import LabelMap, maps
from rayprob.report.run.thumbnails import pictures, shrunk
from rayprob.report.run.together import CoOccurrence, Scenes, co_occurrence, scenes


@dataclass(frozen=True)
class Facts:
    """Everything that the page shows, as plain values."""

    files: RunFiles
    judged: Judged
    sentence: str
    headline: Headline
    labels: Labels
    co_occurrence: CoOccurrence | None
    scenes: Scenes | None
    images: Images
    thumbnails: dict[int, str]
    maps: dict[tuple[int, str], LabelMap]
    training: curves.TrainingCurves | None
    made: Made
    notes: tuple[Note, ...]


def gather(files: RunFiles) -> Facts:
    """Return everything that the page shows about a run."""
    judged = Judged.of(files)
    numbers = headline(files, judged)
    seen, components = images(judged), scenes(judged)
    rows = [item.row for part in (seen.best, seen.worst, seen.suspects) for item in part]
    rows += [row for scene in components.scenes for row in scene.rows] if components else []
    mapped = {(one.row, one.mapped) for one in (*seen.best, *seen.worst)} | {(one.row, one.label) for one in seen.suspects}
    pixels_of, faults = pictures(files, rows)
    return Facts(
        files=files,
        judged=judged,
        sentence=sentence(files),
        headline=numbers,
        labels=labels(files, judged),
        co_occurrence=co_occurrence(judged),
        scenes=components,
        images=seen,
        thumbnails={row: shrunk(pixels_HWC) for row, pixels_HWC in pixels_of.items()},
        maps=maps(files.bundle, pixels_of, mapped),
        training=curves.training(files.history),
        made=made(files),
        notes=(*files.notes, *faults),
    )
