"""The steps of a prediction: open the bundles, read the question, go through the images and yield an outcome for each."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from rayprob.errors import ModelError, SpecError
from rayprob.explain.choosing import AUTO
from rayprob.files import uris
from rayprob.predict.answering import Answering
from rayprob.predict.explaining import Explaining
from rayprob.predict.images import Image, find_images
from rayprob.predict.members import Forecast, Predictor, ensemble, one_bundle, with_dropout
from rayprob.predict.question import Question
from rayprob.predict.reading import Loaded, batches, stacked
from rayprob.predict.record import Outcome, Rejected
from rayprob.runs.bundle import Bundle, bundle_fingerprint
from rayprob.runs.paths import bundle_folder


class Explain(NamedTuple):
    """A request for maps: of these labels, or () for those that a prediction chooses, and the method."""

    labels: tuple[str, ...] = ()
    method: str = AUTO


@dataclass(frozen=True, eq=False)
class Asking:
    """A predictor and a question. `facts` is plain data that covers everything an answer depends on except the image."""

    predictor: Predictor
    question: Question
    batch: int
    facts: dict[str, Any]
    explaining: Explaining | None = None

    def outcomes(self, images: Iterable[Image]) -> Iterator[Outcome]:
        """Yield an outcome for each image, in order, as `predict` does."""
        return predict(self.predictor, self.question, images, batch=self.batch, explaining=self.explaining)


@dataclass(frozen=True)
class PredictJob:
    """A request: bundles, images and question, all as text, so that another process can open it too."""

    bundles: tuple[str, ...]  # of bundles or runs; several make an ensemble
    images: tuple[str, ...]
    asked: Mapping[str, Any]  # the keywords of `ask`
    split: str = "val"

    def open(self) -> tuple[Asking, list[Image]]:
        """Find the images, open the bundles and read the question. Raises StorageError and all that `ask` raises."""
        images = find_images(self.images, self.split)
        return ask(self.bundles, **self.asked), images

    def absolute(self) -> "PredictJob":
        """Return the job with absolute local paths, which are valid in any working directory."""
        bundles, images = (tuple(map(uris.absolute, paths)) for paths in (self.bundles, self.images))
        return replace(self, bundles=bundles, images=images)


def ask(
    bundles: Sequence[str],
    *,
    queries: Sequence[str] = (),
    evidence: Sequence[str] = (),
    rule: str | None = None,
    top: int = 5,
    mc_dropout: int = 0,
    batch: int = 16,
    explain: Explain | None = None,
) -> Asking:
    """Open the bundles at paths (of bundles or runs), on the GPU if available, and read the question.

    Raises BundleError, LabelError, ModelError, QueryError or SpecError: every error that can be found before the first image.
    """
    if batch < 1:
        raise SpecError(f"--batch must be at least 1; got {batch}")
    predictor = load_predictor(bundles, mc_dropout=mc_dropout)
    question = Question.of(predictor.bundle, queries=queries, evidence=evidence, rule=rule, top=top)
    fingerprints = [bundle_fingerprint(bundle_folder(path)) for path in bundles]
    facts = {"bundles": fingerprints, "mc_dropout": mc_dropout, **question.to_dict()}
    explaining = Explaining.of(predictor, explain.labels, explain.method) if explain else None
    return Asking(predictor, question, batch, facts, explaining)


def load_predictor(paths: Sequence[str], *, mc_dropout: int = 0) -> Predictor:
    """Return the predictor for the bundles at `paths` (of bundles or runs). Raises BundleError, LabelError or ModelError."""
    return open_predictor([Bundle.load(bundle_folder(path)) for path in paths], mc_dropout=mc_dropout)


def open_predictor(bundles: Sequence[Bundle], *, mc_dropout: int = 0) -> Predictor:
    """Return the predictor: a bundle, its head under dropout, or an ensemble of bundles. Raises LabelError or ModelError."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if mc_dropout and len(bundles) > 1:
        raise ModelError("Monte Carlo dropout and an ensemble cannot be combined; use one of them")
    if mc_dropout:
        return with_dropout(bundles[0], device, mc_dropout)
    return ensemble(bundles, device) if len(bundles) > 1 else one_bundle(bundles[0], device)


def predict(
    predictor: Predictor,
    question: Question,
    images: Iterable[Image],
    *,
    batch: int = 16,
    threads: int | None = None,
    explaining: Explaining | None = None,
) -> Iterator[Outcome]:
    """Yield an outcome for each image, in order; `threads` threads decode a batch while the one before is computed.

    An image that cannot be read, or for which the evidence is impossible, becomes a Rejected. Raises DatasetError or
    StorageError if a dataset cannot be read.
    """
    answering = Answering(predictor, question)
    for loaded, forecast in forecasts(predictor, images, batch=batch, threads=threads):
        readable = [one for one in loaded if one.error is None]
        outcomes = iter(answering.outcomes(readable, forecast) if forecast else ())
        for one in loaded:
            outcome = Rejected(one.image, one.error) if one.error is not None else next(outcomes)
            yield explaining.added(outcome, one) if explaining else outcome


def forecasts(
    predictor: Predictor, images: Iterable[Image], *, batch: int, threads: int | None = None
) -> Iterator[tuple[list[Loaded], Forecast | None]]:
    """Yield batches of images with the forecasts of those that could be read; None if none could."""
    for loaded in batches(images, predictor.inputs, batch=batch, threads=threads or (os.cpu_count() or 1)):
        readable = [one for one in loaded if one.error is None]
        yield loaded, predictor.forecast(tensors_of(readable, predictor)) if readable else None


def tensors_of(loaded: Sequence[Loaded], predictor: Predictor) -> list[torch.Tensor]:
    """Return readable images as one batch [B, 3, H, W] per input of the predictor."""
    return [torch.from_numpy(stacked(loaded, place)) for place in range(len(predictor.inputs))]
