"""`load` and `Model`: load a run or a bundle, and predict images of any kind."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import overload

from rayprob.api.answer import Answer, Asked
from rayprob.api.inputs import Images, OneImage, images_of
from rayprob.errors import SampleError, SpecError
from rayprob.explain.explanation import Explanation
from rayprob.predict.answering import Answering
from rayprob.predict.explaining import Explaining
from rayprob.predict.images import Image
from rayprob.predict.job import forecasts, load_predictor
from rayprob.predict.members import Predictor
from rayprob.predict.question import Question, guarantee_of
from rayprob.predict.record import Rejected, required


class Model:
    """A trained classifier with its labels, calibration and rules, ready to predict. Returned by `load`.

    Example::

        model = rp.load("demo/run")
        model.predict("photo.jpg").label_set                       # one image: one answer
        [a.label_set for a in model.predict(["a.jpg", "b.jpg"])]   # a list: a list of answers
    """

    def __init__(self, predictor: Predictor, folders: Sequence[str]) -> None:
        self._predictor = predictor
        self._folders = tuple(folders)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels in column order."""
        return self._predictor.bundle.label_space.names

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that choose label sets, besides any number from 0 to 1; `calibrate` fits most of them."""
        return self._predictor.bundle.rules

    @property
    def guarantees(self) -> dict[str, str]:
        """What each rule guarantees, as a sentence; empty before `calibrate`, and for an ensemble."""
        if self._predictor.why_no_guarantee:
            return {}
        promised = {rule: guarantee_of(self._predictor.bundle, rule) for rule in self.rules}
        return {rule: words for rule, words in promised.items() if words}

    @overload
    def predict(
        self,
        images: OneImage,
        *,
        evidence: Mapping[str, bool] | Sequence[str] = ...,
        rule: str | None = ...,
        queries: str | Sequence[str] = ...,
        batch: int = ...,
    ) -> Answer: ...

    @overload
    def predict(
        self,
        images: Images,
        *,
        evidence: Mapping[str, bool] | Sequence[str] = ...,
        rule: str | None = ...,
        queries: str | Sequence[str] = ...,
        batch: int = ...,
    ) -> list[Answer]: ...

    def predict(
        self,
        images: OneImage | Images,
        *,
        evidence: Mapping[str, bool] | Sequence[str] = (),
        rule: str | None = None,
        queries: str | Sequence[str] = (),
        batch: int = 16,
    ) -> Answer | list[Answer]:
        """Return the answer for an image, or a list of answers for several images, in order.

        An image is one of:

        - a path or URI of a JPEG, PNG or WebP file, as text or `Path`;
        - the bytes of such a file;
        - a PIL image, whose transparent parts become white;
        - an array [H, W, 3] (RGB) or [H, W] (grey), uint8 or float from 0 to 1;
        - a tensor [3, H, W] or [H, W], uint8 or float from 0 to 1, on any device.

        Several images are a list or tuple, an array [B, H, W, 3] or a tensor [B, 3, H, W]; sizes in a list may differ. Do not
        resize or normalize: the model does so as in training. Files give the same numbers as `rayprob predict`, bit for bit;
        floats are rounded to 256 steps. EXIF turns files and PIL images upright where the model was trained on a dataset that
        records so; models of 0.1 see them as they are stored.

        `evidence` is what is known of all images, {label: is present}. `rule` chooses the label sets: one of `rules`, or a
        threshold such as "0.5"; by default the best that the bundle has. `queries` are answered in `Answer.answers`. `batch`
        images are computed at a time.

        Raises SampleError for an input that is not an image, StorageError for a file that cannot be read, LabelError for an
        unknown label, QueryError for a query, rule or evidence that cannot be used. Messages name the image or label.

        Example::

            answer = model.predict("photo.jpg", evidence={"dining table": True}, queries="P(person & book)")
            answer.answers["P(person & book)"]                         # 0.176, of examples/quickstart.py
        """
        if batch < 1:
            raise SpecError(f"batch must be at least 1; got {batch}")
        question = Question.of(
            self._predictor.bundle,
            queries=[queries] if isinstance(queries, str) else queries,
            evidence=[evidence] if isinstance(evidence, str) else evidence,
            rule=rule,
        )
        found, is_single = images_of(images)
        answers = list(self._answers(question, found, batch))
        return answers[0] if is_single else answers

    def explain(self, image: OneImage, labels: str | Sequence[str] | None = None, method: str = "auto") -> list[Explanation]:
        """Return maps of where in an image labels are seen, an `Explanation` per label, whose `grid_HW` covers the image.

        `image` is one of those that `predict` takes. `labels` are the labels to explain, by default the label set and the three
        most probable labels, at most six. `method` is one of

        - `contributions`: what each place adds to the logit: the grid and `rest` sum to `logit`. For heads that are sums
          over places: bernoulli, csra, graph and compressed.
        - `attention`: how much the label attends to each place, for the heads decoder and srn.
        - `gradcam` and `integrated_gradients`, for any head but recurrent. They need captum: pip install 'rayprob[explain]'.
        - `auto`, the first of contributions, attention and gradcam that the head allows.

        The logit is the log-odds of the label's marginal as the network states it: before calibration, a label prior and
        evidence. A mixture has no single logit per label; its gradients are those of the marginal's log-odds. For an ensemble,
        maps and logits are means over its members; `mc_dropout` has no effect on them.

        Raises SampleError and StorageError as `predict`, LabelError for an unknown label, QueryError for an unknown method or
        one that the head does not allow, ModelError if captum is missing.

        Example::

            (person,) = model.explain("photo.jpg", ["person"])
            person.grid_HW.sum() + person.rest                         # person.logit
            person.where                                               # 'centre left'
        """
        found, is_single = images_of(image)
        if not is_single:
            raise SampleError("explain takes one image; call it for each image of a list")
        explaining = Explaining.of(self._predictor, [labels] if isinstance(labels, str) else labels, method)
        return explaining.image(found[0]) if explaining.labels else self.predict(image).maps(method=method)

    def __repr__(self) -> str:
        bundle, shown = self._predictor.bundle, ", ".join(map(repr, self._folders))
        members = f", {self._predictor.num_members} members" if self._predictor.num_members else ""
        calibrated = f"calibrated by {bundle.calibrator.name}" if bundle.calibrator else "not calibrated"
        parts = f"{bundle.model_spec.backbone} with head {bundle.model_spec.head.name}, {len(self.labels)} labels"
        return f"Model({shown}: {parts}{members}, {calibrated})"

    def _answers(self, question: Question, images: Sequence[Image], batch: int) -> Iterator[Answer]:
        answering = Answering(self._predictor, question)
        for loaded, forecast in forecasts(self._predictor, images, batch=batch):
            for one in loaded:
                if one.error is not None:
                    required(Rejected(one.image, one.error))
            assert forecast is not None
            for place, outcome in enumerate(answering.outcomes(loaded, forecast)):
                without_pixels = replace(loaded[place], squashed_S=())
                yield Answer(Asked(self._predictor, question, without_pixels, forecast[[place]]), required(outcome))


def load(folder: str | os.PathLike[str], *others: str | os.PathLike[str], mc_dropout: int = 0) -> Model:
    """Return the model of a run or bundle at a folder or URI; several folders make an ensemble of their models.

    It computes on the GPU if available. The members of an ensemble give `Answer.uncertainty`, as do `mc_dropout` passes
    of a single model whose head was trained with dropout.

    Nothing is unpickled. Plugins that a bundle names are imported by name, once its files are known to be as written; so open
    bundles with plugins only from people you trust.

    Raises BundleError if there is no bundle, or if it was changed or cut short; LabelError if the labels of an ensemble's
    members differ; ModelError for `mc_dropout` with a head that has no dropout.

    Example::

        model = rp.load("demo/run")
        ensemble = rp.load("runs/a", "runs/b", "s3://bucket/runs/c")
    """
    folders = [os.fspath(one) for one in (folder, *others)]
    return Model(load_predictor(folders, mc_dropout=mc_dropout), folders)
