"""How well a holdout represents each label: by hash, stratified, and by the package iterative-stratification if installed.

    python benchmarks/holdouts.py [--seeds 5]

Label sets are those of COCO train2014 (../shared/labels), those of train of ../shared/voc-sample, and 100,000 drawn from 1,000
labels; 0.05, 0.15 and 0.05 of them are held out. Printed are medians over seeds, with least and greatest: labels with at least
two positives of which holdout or the rest has none; the largest difference between the prevalence of a label in holdout and
overall, in percentage points; what was held out; seconds. Recipes use seed 0. The package gets no drawn sets: it takes a dense
table.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rayprob.arrays import Bools, Ints
from rayprob.data.building.stratify import stratify
from rayprob.data.manifest.columns import Ragged
from rayprob.data.sources.rows import rows_of
from rayprob.data.sources.voc import VocSource, read
from rayprob.seeds import derive

SHARED = Path(__file__).resolve().parents[2] / "shared"
Way = Callable[[Ints, Ragged, float, int], Bools]


def by_hash(ids_N: Ints, labels: Ragged, fraction: float, seed: int) -> Bools:
    """Return which samples are in holdout by a hash of their ids [N]."""
    return np.array([derive(seed, "holdout", one) < fraction * 2**63 for one in ids_N.tolist()])


def stratified(ids_N: Ints, labels: Ragged, fraction: float, seed: int) -> Bools:
    """Return which samples are in a stratified holdout [N]."""
    return stratify(ids_N, labels, [fraction, 1 - fraction], seed=seed) == 0


def by_package(ids_N: Ints, labels: Ragged, fraction: float, seed: int) -> Bools:
    """Return which samples are in the holdout of iterative-stratification [N], which takes a dense table of labels."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    targets_NL = labels.to_bool(np.arange(len(labels)), int(labels.values.max()) + 1)
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    ((_, held),) = splitter.split(np.zeros(len(labels)), targets_NL)
    return np.isin(np.arange(len(labels)), held)


WAYS: dict[str, Way] = {"hash": by_hash, "stratified": stratified, "iterative-stratification": by_package}


def coco() -> tuple[Ints, Ragged]:
    """Return the ids and labels of COCO train2014."""
    table = pq.read_table(SHARED / "labels" / "coco_train2014_labels.parquet")
    return table["image_id"].to_numpy(), _ints(Ragged.from_column(table["labels"]))


def voc_sample() -> tuple[Ints, Ragged]:
    """Return the ids and labels of the 1,000 train images."""
    rows = list(rows_of(read(VocSource(format="voc", images=str(SHARED / "voc-sample" / "VOC2007"), set="train")).batches))
    return np.array([int(row.key) for row in rows]), ragged(row.labels for row in rows)


def drawn(num_samples: int = 100_000, num_labels: int = 1_000) -> tuple[Ints, Ragged]:
    """Return ids and label sets of about five labels, label r with a probability that falls as 1 / r."""
    random = np.random.default_rng(0)
    weights = 1 / np.arange(1, num_labels + 1)
    sizes = 1 + random.poisson(5, num_samples)
    picks = random.choice(num_labels, sizes.sum(), p=weights / weights.sum())
    pairs = np.unique(np.repeat(np.arange(num_samples), sizes) * num_labels + picks)
    return np.arange(num_samples), Ragged(pairs % num_labels, np.searchsorted(pairs, np.arange(num_samples + 1) * num_labels))


def ragged(lists: Iterable[Iterable[int]]) -> Ragged:
    """Return lists of labels as arrays."""
    listed = [list(some) for some in lists]
    return Ragged(np.array([one for some in listed for one in some]), np.cumsum([0, *map(len, listed)]))


def _ints(labels: Ragged) -> Ragged:
    return Ragged(labels.values.astype(np.int64), labels.starts)


def judged(labels: Ragged, held_N: Bools) -> tuple[int, float]:
    """Return how many labels holdout or the rest lacks, and the largest deviation of prevalence in percentage points."""
    sample_of = np.repeat(np.arange(len(labels)), np.diff(labels.starts))
    all_L = np.bincount(labels.values)
    held_L = np.bincount(labels.values[held_N[sample_of]], minlength=len(all_L))
    lacking = ((held_L == 0) | (held_L == all_L)) & (all_L >= 2)
    return int(lacking.sum()), 100 * float(np.abs(held_L / held_N.sum() - all_L / len(labels)).max())


def main() -> None:
    """Print a row per table and way: medians over seeds, with least and greatest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    print(f"{'labels of':12} {'way':25} {'lacking':>16} {'largest deviation':>27} {'held, %':>24} {'seconds':>8}")
    for name, load, fraction in (("COCO", coco, 0.05), ("voc-sample", voc_sample, 0.15), ("drawn", drawn, 0.05)):
        ids_N, labels = load()
        for way, divide in WAYS.items():
            if divide is by_package and load is drawn:
                continue
            try:
                print(f"{name:12} {way:25} {row(divide, ids_N, labels, fraction, seeds)}")
            except ModuleNotFoundError as error:
                print(f"{name:12} {way:25} skipped: {error}; pip install iterative-stratification")


def row(divide: Way, ids_N: Ints, labels: Ragged, fraction: float, seeds: int) -> str:
    """Return the cells of one way of dividing."""
    lacking, deviation, held, seconds = [], [], [], []
    for seed in range(seeds):
        began_at_s = time.perf_counter()
        held_N = divide(ids_N, labels, fraction, seed)
        seconds.append(time.perf_counter() - began_at_s)
        found = judged(labels, held_N)
        lacking.append(found[0])
        deviation.append(found[1])
        held.append(100 * held_N.mean())
    cells = (f"{spread(lacking, '.0f'):>16}", f"{spread(deviation, '.3f'):>27}", f"{spread(held, '.2f'):>24}")
    return f"{' '.join(cells)} {statistics.median(seconds):>8.2f}"


def spread(values: list[float], form: str) -> str:
    """Return the median, the least and the greatest value."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


if __name__ == "__main__":
    main()
