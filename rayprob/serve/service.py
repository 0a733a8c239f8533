"""Answers questions with one bundle: decodes in threads, waits for a forward pass, remembers the forecast, and reloads.

It does not know how requests arrive or how batches form: `Forward` is given to it, by Ray Serve or by a test.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from rayprob.errors import RayprobError, SampleError, UnknownImage, one_line
from rayprob.images.header import measure
from rayprob.predict.answering import Answering
from rayprob.predict.images import ImageBytes
from rayprob.predict.question import Question
from rayprob.predict.record import required
from rayprob.runs.bundle import bundle_fingerprint
from rayprob.runs.card import stored_card
from rayprob.runs.paths import bundle_folder
from rayprob.serve.examples import Examples
from rayprob.serve.explaining import explanations
from rayprob.serve.faults import ErrorReply
from rayprob.serve.generation import Computed, Generation, Waiting
from rayprob.serve.options import Options
from rayprob.serve.reply import Reply
from rayprob.serve.seen import SeenImage, SeenImages
from rayprob.serve.spec import Limits

log = logging.getLogger(__name__)

Forward = Callable[[Awaitable[Waiting]], Awaitable[Computed]]  # of an image that is being decoded
IMAGE = "image"


class BundleService:
    """One bundle that answers."""

    def __init__(self, name: str, folder: str, limits: Limits, *, threads: int = 1, most_of_dataset: int = 0) -> None:
        """Load the bundle; `threads` images are decoded at a time, `most_of_dataset` is that of Examples.

        Raises BundleError or StorageError.
        """
        self.name, self.folder = name, bundle_folder(folder)
        self.examples = Examples(self.folder, most_of_dataset)
        self._limits = limits
        self._decoding = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._refused = ""
        self.generation = self._load()

    async def predict(self, sha256: str, content: bytes, options: Options, forward: Forward) -> Reply:
        """Answer a question about an image, which is computed unless it is remembered; a fault is returned, not raised."""
        generation = self.generation
        try:
            question = await self._question(generation, options)
            computed = None
            seen = generation.seen.get(sha256)
            if seen is None:
                computed = await forward(self._in_thread(self._decoded, generation, content))
                loaded = replace(computed.waiting.loaded, squashed_S=())
                seen = SeenImage(ImageBytes(IMAGE, content), loaded, computed.forecast)
                generation.seen.put(sha256, seen)
            value = await self._in_thread(self._answer, generation, sha256, seen, question, options)
            generation.seen.measure(sha256)
        except RayprobError as error:
            return Reply(fault=ErrorReply.of(error))
        return Reply(value, batch=computed.batch if computed else 0, is_new=computed is not None)

    async def query(self, sha256: str, options: Options) -> Reply:
        """Answer a question about an image that is remembered. A fault, such as an UnknownImage, is returned, not raised."""
        generation = self.generation
        try:
            question = await self._question(generation, options)
            seen = generation.seen.get(sha256)
            if seen is None:
                raise UnknownImage(f"the image with sha256 {sha256[:16]}... is not remembered; send it again to /v1/predict")
            value = await self._in_thread(self._answer, generation, sha256, seen, question, options)
            generation.seen.measure(sha256)
        except RayprobError as error:
            return Reply(fault=ErrorReply.of(error))
        return Reply(value)

    def facts(self) -> dict[str, Any]:
        """Return what the bundle is: its labels and rules, its card, and the names of its examples. Reads files."""
        generation = self.generation
        # The card is written after the bundle, and again by `rayprob evaluate`.
        card = stored_card(self.folder, generation.fingerprint) or generation.card
        described = {"labels": generation.labels(), "card": {**card, "fingerprint": generation.fingerprint}}
        return {**described, "examples": self.examples.names}

    def state(self) -> dict[str, Any]:
        """Return the fingerprint of the bundle that answers, its number of labels, and why a newer one is not loaded, or ""."""
        generation = self.generation
        num_labels = len(generation.predictor.bundle.label_space)
        return {"fingerprint": generation.fingerprint, "fault": self._refused, "labels": num_labels}

    def reload(self) -> bool:
        """Load the bundle again if its files have changed, and answer with it from then on; return whether it did.

        Requests that have begun finish with the generation that they began with. A bundle that cannot be loaded, or that is
        missing for an instant, leaves the one before in place; the log states why, once.
        """
        try:
            if bundle_fingerprint(self.folder) == self.generation.fingerprint:
                self._refused = ""
                return False
            self.generation = self._load()
            self._refused = ""
        except Exception as error:  # also what PyTorch raises: a GPU may lack memory for two bundles
            if str(error) != self._refused:
                log.warning("the bundle %s changed, but is not loaded: %s", self.name, one_line(error))
            self._refused = str(error) or type(error).__name__
            return False
        log.warning("loaded the bundle %s again: fingerprint %s", self.name, self.generation.fingerprint)
        return True

    def _load(self) -> Generation:
        return Generation.load(self.folder, SeenImages(self._limits.seen_images, self._limits.seen_bytes))

    async def _question(self, generation: Generation, options: Options) -> Question:
        self._limits.check(options)
        question: Question = await self._in_thread(_question, generation, options)
        return question

    def _decoded(self, generation: Generation, content: bytes) -> Waiting:
        try:
            measure(content, self._limits.pixels)
            return Waiting.of(generation, ImageBytes(IMAGE, content))
        except SampleError as error:
            raise _of_image(error) from error

    def _answer(
        self, generation: Generation, sha256: str, seen: SeenImage, question: Question, options: Options
    ) -> dict[str, Any]:
        (outcome,) = Answering(generation.predictor, question).outcomes([seen.loaded], seen.forecast)
        record = required(outcome)
        said = record.to_dict() | {"sha256": sha256, "bundle": self.name, "fingerprint": generation.fingerprint}
        if options.marginals:
            said["marginals"] = record.marginals_L.tolist()
        return said | {"explanations": explanations(generation, seen.image, record, options)}

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._decoding, function, *arguments)


def _of_image(error: SampleError) -> SampleError:
    """Return the error of an image as a sentence: `is empty, not a JPEG` lacks its subject, `its header is broken` does not."""
    said = str(error)
    return SampleError(said if said.startswith("its ") else f"the image {said}")


def _question(generation: Generation, options: Options) -> Question:
    asked: dict[str, Any] = {"queries": options.queries, "evidence": options.evidence, "rule": options.rule, "top": options.top}
    return Question.of(generation.predictor.bundle, **asked)
