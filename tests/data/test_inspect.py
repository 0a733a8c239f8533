"""What a dataset holds, counted again by hand."""

import json
from collections import Counter
from itertools import combinations

import numpy as np

from rayprob.data.inspect import inspect, strongest_pairs
from rayprob.data.manifest.dataset import Dataset
from tests.data.small_source import Source


def label_sets(source: Source) -> dict[str, list[frozenset[str]]]:
    """Read label sets from the annotations, by the split that the manifest puts each image into."""
    dataset = Dataset.open(str(source.built))
    found = {}
    for split in dataset.splits:
        truth = source.annotations("val" if split == "val" else "train")
        name_of = {category["id"]: category["name"] for category in truth["categories"]}
        ids = dataset.split(split).sample_ids_N.tolist()
        found[split] = [
            frozenset(name_of[box["category_id"]] for box in truth["annotations"] if box["image_id"] == sample_id)
            for sample_id in ids
        ]
    return found


def test_counts_equal_those_of_the_annotations(built_once: Source) -> None:
    found = inspect(str(built_once.built))
    truth = label_sets(built_once)
    assert {split.split: split.samples for split in found.splits} == {split: len(sets) for split, sets in truth.items()}
    assert {split.split: split.labels for split in found.splits} == {s: sum(map(len, sets)) for s, sets in truth.items()}
    for label in found.labels:
        counts = {split: sum(label.label in present for present in sets) for split, sets in truth.items()}
        assert label.samples == counts
        assert label.prevalence == {split: counts[split] / len(truth[split]) for split in truth}
    everything = [present for sets in truth.values() for present in sets]
    assert found.set_sizes == dict(sorted(Counter(map(len, everything)).items()))
    assert found.distinct_sets == len(set(everything))
    assert [count for _, count in found.top_sets] == [count for _, count in Counter(everything).most_common(10)]
    assert all(Counter(everything)[frozenset(names)] == count for names, count in found.top_sets)


def test_sides_are_those_of_the_images(built_once: Source) -> None:
    (val,) = (split for split in inspect(str(built_once.built)).splits if split.split == "val")
    sides = [sorted((e["height"], e["width"])) for e in built_once.annotations("val")["images"] if e["id"] != 900]
    assert (val.short_side_px[0], val.short_side_px[-1]) == (min(s[0] for s in sides), max(s[0] for s in sides))
    assert (val.long_side_px[0], val.long_side_px[-1]) == (min(s[1] for s in sides), max(s[1] for s in sides))
    assert val.short_side_px[2] == sorted(s[0] for s in sides)[5]


def test_lift_and_counts_of_pairs_equal_brute_force() -> None:
    random = np.random.default_rng(3)
    present_NL = random.random((400, 6)) < 0.2
    present_NL[:, 1] |= present_NL[:, 0]  # the strongest pair
    names = tuple("abcdef")
    pairs = strongest_pairs(present_NL, names, top=15)
    assert (pairs[0].first, pairs[0].second) == ("a", "b")
    strength = {}
    for first, second in combinations(range(6), 2):
        together = sum(bool(row[first] and row[second]) for row in present_NL)
        lift = together / 400 / (present_NL[:, first].mean() * present_NL[:, second].mean())
        strength[names[first], names[second]] = together * np.log(lift), together, lift
    expected = sorted((pair for pair in strength if strength[pair][2] > 1), key=lambda pair: -strength[pair][0])
    assert [(pair.first, pair.second) for pair in pairs] == expected
    for pair in pairs:
        assert pair.samples == strength[pair.first, pair.second][1]
        assert np.isclose(pair.lift, strength[pair.first, pair.second][2])


def test_labels_that_never_meet_are_no_pair() -> None:
    assert strongest_pairs(np.eye(3, dtype=bool), ("a", "b", "c"), top=5) == []


def test_unknown_labels_leave_the_prevalence(source: Source) -> None:
    def unsure(content: dict[str, list[dict[str, object]]]) -> None:
        for entry in content["images"]:
            entry["unknown_category_ids"] = [90]

    source.change("val", unsure)
    source.build()
    found = inspect(str(source.built))
    tree = next(label for label in found.labels if label.label == "tree")
    assert tree.prevalence["val"] == 0.0
    assert next(split.unknown_labels for split in found.splits if split.split == "val") == 11


def test_inspection_is_plain_data(built_once: Source) -> None:
    assert json.loads(json.dumps(inspect(str(built_once.built)).to_dict()))["splits"][0]["split"] == "train"
