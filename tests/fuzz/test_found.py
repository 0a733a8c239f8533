"""Inputs that once ended in a traceback, each found by fuzzing; the file that is at fault is named in the error instead."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import targets
from tests.fuzz.kinds import Verb
from tests.fuzz.verdict import Case, end_of
from tests.fuzz.world import World

Edit = Callable[[bytes], bytes]


def keys(*way: str | int, to: Any) -> Edit:
    """Set the node of a JSON document at the end of a way."""

    def edit(content: bytes) -> bytes:
        document = json.loads(content)
        node = document
        for step in way[:-1]:
            node = node[step]
        node[way[-1]] = to
        return json.dumps(document).encode()

    return edit


def without(key: str) -> Edit:
    return lambda content: json.dumps({name: part for name, part in json.loads(content).items() if name != key}).encode()


def line(number: int, text: bytes) -> Edit:
    """Replace a line of a text."""
    return lambda content: b"\n".join(text if n == number else old for n, old in enumerate(content.split(b"\n")))


def whole(content: bytes) -> Edit:
    return lambda _: content


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


RESULT = b'{"kind": "result", "number": 0, "epoch": 0.5, "values": {}, "at_s": 1.0}'
MANY_DRAWS = (
    b'{"kind": "ask", "number": 1, "what": "search", "params": {}, "seed": 0, "of": null, "draws": 99999999, "at_s": 1.0}'
)
DATASET = [
    (targets.INSPECT, "built/dataset.json", keys("shards", 0, "name", to=None)),
    (targets.INSPECT, "built/dataset.json", keys("shards", 0, "samples", to=-1)),
    (targets.INSPECT, "built/dataset.json", keys("shards", 0, "samples", to=2**64)),
    (targets.INSPECT, "built/dataset.json", keys("shards", to=[])),
    (targets.INSPECT, "built/dataset.json", keys("exif_rotated", to="many")),
    (targets.INSPECT, "built/dataset.json", keys("orientation", to="sideways")),
    (targets.INSPECT, "built/dataset.json", keys("window", to=[7, 7])),
    (targets.INSPECT, "built/dataset.json", keys("images", to={"JPEG": "all"})),
    (targets.SCENES, "scenes/scenes.json", keys("spec", to="abc")),
    (targets.SCENES, "scenes/scenes.json", whole(b"[" * 100_000)),
    (targets.INSPECT, "built/dataset.json", keys("label_counts", to={"train": {"present": [1], "known": [1]}})),
    (targets.VERIFY, "built/dataset.json", without("fingerprint")),
    (targets.VERIFY, "built/dataset.json", without("label_space_fingerprint")),
    (targets.IN_PARTS[0], "in-parts/dataset.json", keys("manifest", "shards", 0, to=2**64)),
    (targets.IN_PARTS[0], "in-parts/dataset.json", keys("manifest", "sha256", to=None)),
    (targets.IN_PARTS[0], "in-parts/shards.parquet", half),
]
SWEEP = [
    (targets.TUNE, "sweep/ledger.jsonl", line(0, b"null")),
    (targets.TUNE, "sweep/ledger.jsonl", line(1, RESULT)),
    (targets.TUNE, "sweep/ledger.jsonl", line(0, RESULT)),
    (targets.TUNE, "sweep/ledger.jsonl", line(1, b"\xff")),
    (targets.TUNE, "sweep/ledger.jsonl", lambda content: line(content.count(b"\n") - 1, MANY_DRAWS)(content)),
    (targets.TUNE, "sweep/sweep.json", whole(b'""')),
    (targets.TUNE, "sweep/sweep.json", half),
    (targets.TUNE, "sweep/summary.json", whole(b'"."')),
    (targets.TUNE, "sweep/summary.json", keys("val", to=3)),
    (targets.SWEEP_PAGE, "sweep/summary.json", whole(b"\xff")),
    (targets.TUNE, "sweep/trials/001/metrics.jsonl", line(0, b"null")),
    (targets.TUNE, "sweep/trials/001/run.yaml", whole(b"\0")),
]
RUN = [
    (targets.CALIBRATE, "run/predictions/holdout.parquet", half),
    (targets.REPORT, "run/calibration.json", keys("reason", to=[1])),
    (targets.REPORT, "run/calibration.json", half),
    (targets.REPORT, "run/run.yaml", whole(b"model: {head: 3}")),
    (targets.EVALUATE, "run/run.yaml", whole(b"a: \xff")),
    (targets.EVALUATE, "run/run.yaml", whole(b"a: ]")),
    (targets.GO_ON, "started/run.json", whole(b"3")),
    (targets.GO_ON, "started/run.json", keys("identity", to=None)),
    (targets.GO_ON, "started/run.json", half),
    (targets.TRAIN, "run.yaml", whole(b'extends: "\\0"')),
]
BUNDLE = [
    (targets.PREDICT, "run/bundle/bundle.json", keys("files", to=3)),
    (targets.PREDICT, "run/bundle/bundle.json", keys("window", to=[9])),
    (targets.PREDICT, "run/bundle/bundle.json", keys("thresholds", to="")),
    (targets.REPORT, "run/bundle/bundle.json", keys("facts", to=[])),
]
SUMMED = [
    (targets.PREDICT, "run/bundle/weights.safetensors", "run/bundle/bundle.json", ("files", "weights.safetensors")),
    (targets.PREDICT, "run/bundle/calibrator.safetensors", "run/bundle/bundle.json", ("files", "calibrator.safetensors")),
    (targets.GO_ON, "started/checkpoints/step-00000002.pt", "started/checkpoints/step-00000002.json", ("sha256",)),
]


def name_of(case: tuple[Any, ...]) -> str:
    return f"{case[0][0]} {case[1]}"


@pytest.mark.parametrize("found", [*DATASET, *SWEEP, *RUN, *BUNDLE], ids=name_of)
def test_a_damaged_file_is_named(found: tuple[Verb, str, Edit], world: World, tmp_path: Path) -> None:
    verb, file, edit = found
    end = end_of(Case(verb, {file: edit((world.root / file).read_bytes())}), world, tmp_path / "copy")
    assert not end.fault, end.look
    assert re.search(re.escape(file.rpartition("/")[2]), end.said), end.said


@pytest.mark.parametrize("found", SUMMED, ids=name_of)
def test_a_cut_file_whose_sum_fits_is_an_error_in_words(
    found: tuple[Verb, str, str, tuple[str, ...]], world: World, tmp_path: Path
) -> None:
    verb, file, described, way = found
    content = half((world.root / file).read_bytes())
    unsigned = without("fingerprint")((world.root / described).read_bytes())  # else that would show first that it was changed
    described_content = keys(*way, to=hashlib.sha256(content).hexdigest())(unsigned)
    end = end_of(Case(verb, {file: content, described: described_content}), world, tmp_path / "copy")
    assert not end.fault, end.look
