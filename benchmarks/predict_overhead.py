"""The overhead of `rayprob predict` over the bare forward pass, in one run, for both families.

    python benchmarks/predict_overhead.py [--backbone resnet101] [--size 448] [--images 16] [--components 32]

Images are random JPEGs of 480 x 640 px in a temporary folder, the weights random, the labels COCO's 80. Timed in turn,
`--rounds` times each, medians compared: the bare forward pass on decoded images in memory; separately, all answers
for an image (marginals, label set by thresholds, top 5 sets, entropy, three queries); the same with label sets by best_F1, and
with evidence and its explanation; and the whole of `predict` from the files, which reads and decodes while it computes.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch

from rayprob.labels import COCO_80
from rayprob.loader.augment import TransformSpec
from rayprob.models.build import ModelSpec, build_classifier
from rayprob.predict.answering import Answering
from rayprob.predict.images import find_images
from rayprob.predict.job import open_predictor, predict
from rayprob.predict.question import Question
from rayprob.predict.reading import batches, stacked
from rayprob.runs.bundle import Bundle

QUERIES = ("P(fork & knife)", "P(cat | dog)", "P(count >= 4)")
EVIDENCE = ("dining table=1", "person=0")
FILE_PX = (480, 640)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--components", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.images)
        for head in ({"name": "bernoulli"}, {"name": "mixture", "components": options.components}):
            measure(head, folder, options)


def measure(head: dict[str, object], folder: str, options: argparse.Namespace) -> None:
    """Print the times of one family, and their ratios to the bare forward pass."""
    predictor = open_predictor([make_bundle(head, options)])
    images = find_images([folder])
    plain = Question.of(predictor.bundle, queries=QUERIES, rule="0.5")
    best = Question.of(predictor.bundle, queries=QUERIES, rule="best_F1")
    told = Question.of(predictor.bundle, queries=QUERIES, rule="0.5", evidence=EVIDENCE)
    loaded = list(batches(images, predictor.inputs, batch=options.batch, threads=2))
    tensors = [torch.from_numpy(stacked(part, 0)) for part in loaded]

    forecasts = [predictor.forecast([images_BCHW]) for images_BCHW in tensors]

    def say(question: Question) -> None:
        answering = Answering(predictor, question)
        for part, forecast in zip(loaded, forecasts, strict=True):
            answering.outcomes(part, forecast)

    things: dict[str, Callable[[], object]] = {
        "the bare forward pass": lambda: [predictor.forecast([images_BCHW]) for images_BCHW in tensors],
        "all answers": lambda: say(plain),
        "... with best_F1": lambda: say(best),
        "... with evidence": lambda: say(told),
        "predict, from files": lambda: list(predict(predictor, plain, images, batch=options.batch)),
    }
    medians = timed(things, options.rounds)
    device = "GPU" if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"\n{head['name']}, {options.backbone} at {options.size} px, {len(images)} images, batch {options.batch}, {device}")
    bare_s = medians["the bare forward pass"]
    for name, seconds in medians.items():
        print(f"  {name:22} {1e3 * seconds / len(images):9.2f} ms per image, {seconds / bare_s:7.4f} of the forward pass")


def timed(things: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each, run in turn so that other load affects all of them; the first round only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(rounds + 1):
        for name, run in things.items():
            started_s = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started_s)
    return {name: statistics.median(each) for name, each in seconds.items()}


def make_bundle(head: dict[str, object], options: argparse.Namespace) -> Bundle:
    """Return a bundle that depends only on label prevalences, because random features are far larger than trained ones."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    spec = ModelSpec.parse({"backbone": options.backbone, "head": head})
    probabilities_KL = np.clip(random.beta(0.3, 9.0, (int(str(head.get("components", 1))), 80)), 1e-4, 0.95)
    mixture = (random.dirichlet(np.ones(len(probabilities_KL))), probabilities_KL) if head["name"] == "mixture" else None
    classifier = build_classifier(spec, 80, mixture=mixture, prevalence_L=None if mixture else probabilities_KL[0])
    torch.nn.init.zeros_(classifier.head.get_submodule("linear").weight)
    return Bundle(classifier.eval(), spec, COCO_80, TransformSpec(size_px=options.size))


def write_images(folder: Path, num_images: int) -> None:
    """Write JPEGs with enough detail to have the file size of photographs."""
    random = np.random.default_rng(0)
    for place in range(num_images):
        coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        noise = random.normal(0, 12, (*FILE_PX, 3))
        image = cv2.resize(coarse, FILE_PX[::-1], interpolation=cv2.INTER_CUBIC) + noise
        (folder / f"{place:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(np.clip(image, 0, 255).astype(np.uint8), quality=90))


if __name__ == "__main__":
    main()
