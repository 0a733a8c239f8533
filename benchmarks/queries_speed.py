"""Speed and memory of queries: 10,000 queries on 40,137 x 80 predictions, and the top 10 label sets of 1,000 images.

    python benchmarks/queries_speed.py [--queries 10000] [--images 40137] [--components 32] [--family bernoulli mixture]

Predictions are drawn: rare labels, an image's own ones raised, components that raise labels together. Queries are drawn in
label names in the shares given by MIX, and go through the parser. Answers are reduced chunk by chunk to the mean
and the five most probable images of each query, so that memory is bounded; its growth is printed as the process reports it.
Then each kind of query is timed separately, and single questions, conditioning, top sets, expected-F1 sets and information.
Wall seconds depend on other work on the machine; CPU seconds (all threads of the process) much less.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rayprob.labels import COCO_80
from rayprob.probability.distributions.distribution import LabelDistribution
from rayprob.probability.families import from_outputs
from rayprob.probability.queries.answer import Query, answers, parse

NUM_LABELS = len(COCO_80)
MIX = {"conjunction": 0.5, "conditional": 0.3, "boolean": 0.19, "count": 0.01}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=40_137)
    parser.add_argument("--components", type=int, default=32)
    parser.add_argument("--family", nargs="+", default=["bernoulli", "mixture"])
    options = parser.parse_args()
    texts = {kind: drawn(kind, round(share * options.queries)) for kind, share in MIX.items()}
    print(f"{'':52} {'wall s':>9} {'CPU s':>9}   peak memory")
    queries = show("parse all queries", lambda: {kind: [parse(t, COCO_80) for t in texts[kind]] for kind in texts})
    for family in options.family:
        distribution = predictions(family, options.images, options.components)
        print(f"{family}: {options.images:,} x {NUM_LABELS}, {sum(a.nbytes for a in vars(distribution).values()) >> 20} MiB")
        everything = [query for of_kind in queries.values() for query in of_kind]
        show(f"all {len(everything):,} queries", lambda d=distribution, q=everything: run_all(q, d))
        for of_kind in queries.values():
            show(f"20 like {of_kind[0]}", lambda d=distribution, q=of_kind[:20]: run_all(q, d))
        others(distribution)


def others(distribution: LabelDistribution) -> None:
    """Print the times of operations other than queries."""
    one, thousand = distribution[:1], distribution[:1000]
    question = parse("P(fork & knife | dining table, !person)", COCO_80)
    show("one query on one image, 1,000 times", lambda: [one.prob(question) for _ in range(1000)])
    show("marginals of all images", distribution.marginals)
    show("condition all images on two labels", lambda: distribution.condition({0: True, 1: False}))
    show("top 10 label sets of 1,000 images", lambda: thousand.top_sets(10))
    show("expected-F1 sets of 1,000 images", thousand.best_f1_sets)
    show("entropy of 1,000 images", lambda: thousand.entropy(num_samples=64))
    show("mutual information of all pairs, 1,000 images", thousand.mutual_information)


def run_all(queries: list[Query], distribution: LabelDistribution) -> tuple[Any, Any]:
    """Return the mean answer and the five most probable images of each query."""
    total_Q, best_QT, where_QT = np.zeros(len(queries)), np.full((len(queries), 5), -1.0), np.zeros((len(queries), 5), int)
    for images, answers_QB in answers(queries, distribution):
        total_Q += answers_QB.sum(axis=1)
        place_QT = np.argpartition(answers_QB, -min(5, answers_QB.shape[1]), axis=1)[:, -5:]
        values_QT = np.concatenate([best_QT, np.take_along_axis(answers_QB, place_QT, axis=1)], axis=1)
        images_QT = np.concatenate([where_QT, place_QT + images.start], axis=1)
        top_QT = np.argsort(-values_QT, axis=1)[:, :5]
        best_QT, where_QT = np.take_along_axis(values_QT, top_QT, axis=1), np.take_along_axis(images_QT, top_QT, axis=1)
    return total_Q / len(distribution), where_QT


def drawn(kind: str, number: int) -> list[str]:
    """Return query texts of one kind."""
    random = np.random.default_rng(0)
    texts = []
    for _ in range(number):
        a, b, c, d = (COCO_80.names[column] for column in random.choice(NUM_LABELS, size=4, replace=False))
        texts.append(
            {
                "conjunction": f"P({a} & {b})",
                "conditional": f"P({a} | {b}, !{c})",
                "boolean": f"P({a} & ({b} | {c} & !{d}))",
                "count": f"P(count >= {random.integers(2, 6)} | {a})",
            }[kind]
        )
    return texts


def predictions(family: str, num_images: int, num_components: int) -> LabelDistribution:
    """Return drawn predictions of one family, float32 as a head returns them."""
    random = np.random.default_rng(0)
    logits_BL = random.normal(-4, 1, NUM_LABELS) + random.normal(0, 1.5, (num_images, NUM_LABELS))
    logits_BL += 6 * (random.random((num_images, NUM_LABELS)) < 2.9 / NUM_LABELS)
    if family == "bernoulli":
        return from_outputs(family, {"logits": logits_BL.astype(np.float32)})
    offsets_KL = 2.5 * (random.random((num_components, NUM_LABELS)) < 0.08) + random.normal(
        0, 0.3, (num_components, NUM_LABELS)
    )
    component_logits_BKL = logits_BL[:, None].astype(np.float32) + offsets_KL.astype(np.float32)
    mixing_logits_BK = random.normal(0, 1.5, (num_images, num_components)).astype(np.float32)
    return from_outputs(family, {"mixing_logits": mixing_logits_BK, "component_logits": component_logits_BKL})


def show(name: str, function: Callable[[], Any]) -> Any:
    """Run, print wall and CPU seconds and by how much the peak memory of the process grew, and return the value."""
    before_kib, started_at_s, started_cpu_s = peak_kib(), time.perf_counter(), time.process_time()
    value = function()
    wall_s, cpu_s = time.perf_counter() - started_at_s, time.process_time() - started_cpu_s
    print(f"{name:52} {wall_s:9.2f} {cpu_s:9.2f}   +{(peak_kib() - before_kib) / 1024:,.0f} MiB", flush=True)
    return value


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
