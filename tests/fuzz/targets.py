"""What is fuzzed: each file of the world with the verbs that read it, and the words of each verb."""

import json
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.kinds import Cases, Target, file_target, options_target, set_target, summed_target
from tests.fuzz.mutate_bytes import damaged, text_mutants
from tests.fuzz.mutate_json import json_mutants, line_mutants
from tests.fuzz.mutate_tables import prior_mutants, safetensors_mutants, table_mutants
from tests.fuzz.verdict import Case, State

INSPECT, VERIFY = ("inspect", "built"), ("verify", "built")
IN_PARTS = (("inspect", "in-parts", "--json"), ("verify", "in-parts"), ("predict", "run", "in-parts"))
TRAIN, GO_ON = ("train", "run.yaml"), ("train", "started.yaml")
EVALUATE, CALIBRATE, REPORT = ("evaluate", "run"), ("calibrate", "run"), ("report", "run")
WITH_PRIOR = ("calibrate", "run", "--prior", "tiny.prior.safetensors")
REFIT = ("refit", "run", "--set", "epochs=1")
PREDICT = ("predict", "run", "images", "--query", "P(red | !blue)", "--evidence", "green=1")
PREDICT_MIXTURE = ("predict", "mixture", "images", "--rule", "recall@0.1", "--json", "--mc-dropout", "2")
TABLE = ("predict", "run", "images", "--parquet", "table.parquet")
TUNE, SWEEP_PAGE, THRESHOLDS = ("tune", "sweep.yaml"), ("report", "sweep"), ("tune", "thresholds.yaml")
SCENES = ("scenes", "scenes", "--train", "2", "--val", "1", "--size", "64", "--processes", "1")
SHARD, SUBMIT = ("shard", "recipe.yaml", "--set", "target=anew"), ("submit", "run.yaml", "--no-wait")
DATASET_VERBS = (INSPECT, VERIFY, ("predict", "run", "built"), EVALUATE, ("train", "run.yaml", "--set", "folder=new"))


def part_way_table(root: Path) -> Cases:
    """A table of predictions that was begun: another plan, or parts that are none."""
    rows = json.dumps({"images": 3, "queries": [], "part_images": 1024}).encode()
    plans = st.one_of(json_mutants(rows), st.sampled_from(list(State)))
    parts = st.one_of(table_mutants((root / "run/predictions/val.parquet").read_bytes()), st.sampled_from([*State, b""]))
    places = st.sampled_from(["table.parquet", "table.parquet.parts/plan.json", "table.parquet.parts/part-000000.parquet"])
    return st.builds(lambda place, content: Case(TABLE, {place: content}), places, st.one_of(plans, parts))


TARGETS = (
    file_target("run file", "run.yaml", (TRAIN, SUBMIT), text_mutants, share=2),
    file_target(
        "run file that extends", "run.yaml", (TRAIN,), lambda content: text_mutants(b"extends: sweep.yaml\n" + content), share=2
    ),
    file_target("sweep file", "sweep.yaml", (TUNE, ("submit", "sweep.yaml", "--no-wait")), text_mutants, share=2),
    file_target(
        "thresholds file", "thresholds.yaml", (THRESHOLDS, ("submit", "thresholds.yaml", "--no-wait")), text_mutants, share=1
    ),
    file_target("recipe", "recipe.yaml", (SHARD,), text_mutants, share=2),
    file_target("annotations", "source/val.json", (SHARD,), json_mutants, text_mutants, share=2),
    file_target("scenes.json", "scenes/scenes.json", (SCENES,), json_mutants, text_mutants, share=2),
    file_target("dataset.json", "built/dataset.json", DATASET_VERBS, json_mutants, text_mutants, share=3),
    file_target("dataset.json in parts", "in-parts/dataset.json", IN_PARTS, json_mutants, share=2),
    file_target("labels.json", "built/labels.json", DATASET_VERBS, json_mutants, text_mutants, share=2),
    file_target("manifest bytes", "built/manifest.parquet", DATASET_VERBS, damaged, share=2),
    summed_target(
        "manifest", "built/manifest.parquet", "built/dataset.json", ["manifest_sha256"], DATASET_VERBS, table_mutants, share=3
    ),
    summed_target(
        "shards.parquet",
        "in-parts/shards.parquet",
        "in-parts/dataset.json",
        ["shards_sha256"],
        IN_PARTS,
        table_mutants,
        share=2,
    ),
    file_target("shard", "built/val-000000.tar", (VERIFY, ("predict", "run", "built"), EVALUATE), damaged, share=2),
    file_target("image", "images/photo-1.jpg", (PREDICT, TABLE), damaged, share=2),
    file_target("image (PNG)", "images/turned.png", (PREDICT, TABLE), damaged, share=1),
    file_target("image (WebP)", "images/turned.webp", (PREDICT, TABLE), damaged, share=1),
    file_target(
        "bundle.json",
        "run/bundle/bundle.json",
        (PREDICT, EVALUATE, CALIBRATE, REPORT, REFIT),
        json_mutants,
        text_mutants,
        share=2,
    ),
    file_target("bundle.json of a mixture", "mixture/bundle/bundle.json", (PREDICT_MIXTURE,), json_mutants, share=2),
    summed_target(
        "weights",
        "run/bundle/weights.safetensors",
        "run/bundle/bundle.json",
        ["files", "weights.safetensors"],
        (PREDICT,),
        safetensors_mutants,
        share=1,
    ),
    summed_target(
        "calibrator",
        "run/bundle/calibrator.safetensors",
        "run/bundle/bundle.json",
        ["files", "calibrator.safetensors"],
        (PREDICT, REPORT),
        safetensors_mutants,
        share=1,
    ),
    summed_target(
        "calibrator of a mixture",
        "mixture/bundle/calibrator.safetensors",
        "mixture/bundle/bundle.json",
        ["files", "calibrator.safetensors"],
        (PREDICT_MIXTURE,),
        safetensors_mutants,
        share=1,
    ),
    file_target("label prior", "tiny.prior.safetensors", (WITH_PRIOR,), safetensors_mutants, damaged, prior_mutants, share=3),
    summed_target(
        "calibrator with a label prior",
        "with-prior/bundle/calibrator.safetensors",
        "with-prior/bundle/bundle.json",
        ["files", "calibrator.safetensors"],
        (("predict", "with-prior", "images", "--evidence", "green=1"),),
        safetensors_mutants,
        share=2,
    ),
    file_target(
        "holdout predictions",
        "run/predictions/holdout.parquet",
        (CALIBRATE, REPORT, THRESHOLDS, EVALUATE),
        table_mutants,
        damaged,
        share=2,
    ),
    file_target(
        "val predictions", "run/predictions/val.parquet", (CALIBRATE, REPORT, THRESHOLDS), table_mutants, damaged, share=1
    ),
    file_target(
        "mixture predictions",
        "mixture/predictions/holdout.parquet",
        (("calibrate", "mixture"), ("report", "mixture")),
        table_mutants,
        share=1,
    ),
    Target("table of predictions", part_way_table, 5),
    file_target("run.yaml of a run", "run/run.yaml", (EVALUATE, CALIBRATE, REPORT, REFIT), text_mutants, share=2),
    file_target("run.json", "started/run.json", (GO_ON,), json_mutants, text_mutants, share=2),
    file_target("history", "started/metrics.jsonl", (GO_ON,), line_mutants, text_mutants, share=2),
    file_target("history of a report", "run/metrics.jsonl", (REPORT,), line_mutants, text_mutants, share=1),
    file_target("calibration.json", "run/calibration.json", (REPORT, EVALUATE), json_mutants, text_mutants, share=1),
    file_target(
        "checkpoint's progress", "started/checkpoints/step-00000002.json", (GO_ON,), json_mutants, text_mutants, share=2
    ),
    summed_target(
        "checkpoint",
        "started/checkpoints/step-00000002.pt",
        "started/checkpoints/step-00000002.json",
        ["sha256"],
        (GO_ON,),
        damaged,
        share=1,
    ),
    file_target("features", "run/features/train-*", (REFIT,), safetensors_mutants, share=1),
    file_target("ledger", "sweep/ledger.jsonl", (TUNE,), line_mutants, text_mutants, share=2),
    file_target("sweep.json", "sweep/sweep.json", (TUNE,), json_mutants, text_mutants, share=2),
    file_target("summary.json", "sweep/summary.json", (TUNE, SWEEP_PAGE), json_mutants, text_mutants, share=2),
    file_target("history of a trial", "sweep/trials/001/metrics.jsonl", (TUNE,), line_mutants, share=1),
    file_target("run.yaml of a trial", "sweep/trials/001/run.yaml", (TUNE,), text_mutants, share=1),
    options_target(
        "words of scenes",
        (
            ("scenes", "drawn", "--train", "?", "--val", "2", "--size", "32", "--processes", "1"),
            (
                "scenes",
                "?",
                "--train",
                "2",
                "--val",
                "2",
                "--size",
                "?",
                "--labels",
                "?",
                "--seed",
                "?",
                "--label-noise",
                "?",
                "--processes",
                "?",
            ),
        ),
        share=2,
    ),
    options_target(
        "words of shard, verify and inspect",
        (
            ("shard", "?"),
            ("shard", "recipe.yaml", "--set", "?"),
            ("verify", "?"),
            ("inspect", "?"),
            ("inspect", "built", "--top", "?", "--json"),
        ),
        share=2,
    ),
    options_target(
        "words of train and tune",
        (
            ("train", "?"),
            ("tune", "?"),
            ("submit", "?"),
            ("submit", "run.yaml", "--env", "?", "--id", "?", "--no-wait"),
            ("lr-find", "run.yaml", "--from", "?", "--to", "?", "--steps", "?"),
        ),
        share=2,
    ),
    options_target(
        "words of evaluate and calibrate",
        (
            ("evaluate", "?"),
            ("evaluate", "run", "--split", "?"),
            ("evaluate", "run", "--data", "?"),
            ("compare", "run", "?"),
            ("compare", "run", "run", "--split", "?", "--draws", "?"),
            ("compare", "run", "run", "--data", "?"),
            ("calibrate", "?"),
            ("calibrate", "run", "--method", "?"),
            ("calibrate", "run", "--precision", "?", "--smoothing", "?"),
            ("calibrate", "run", "--objective", "?", "--alpha", "?"),
        ),
        share=2,
    ),
    options_target(
        "words of predict",
        (
            ("predict", "?", "?"),
            ("predict", "run", "?"),
            ("predict", "run", "images", "--top", "?", "--batch", "?"),
            ("predict", "run", "images", "--rule", "?", "--mc-dropout", "?"),
            ("predict", "run", "built", "--split", "?"),
            ("predict", "run", "images", "--ensemble", "?"),
            ("predict", "run", "images", "--parquet", "?"),
            ("predict", "run", "images/photo-1.jpg", "--figure", "?"),
        ),
        share=3,
    ),
    options_target(
        "queries",
        (
            ("predict", "mixture", "images/photo-1.jpg", "--query", "?"),
            ("predict", "mixture", "images/photo-1.jpg", "--evidence", "?"),
            ("predict", "run", "images/photo-1.jpg", "--query", "?", "--evidence", "?"),
        ),
        share=3,
    ),
    options_target(
        "words of refit, export and report",
        (
            ("refit", "?"),
            ("refit", "run", "--set", "?"),
            ("refit", "run", "--name", "?", "--set", "epochs=?"),
            ("report", "?"),
            ("report", "run", "--split", "?"),
            ("report", "run", "--out", "?"),
            ("export", "?", "--onnx", "x.onnx"),
        ),
        share=1,
    ),
    options_target(
        "addresses of submit",
        tuple(
            (*call, "--address", address)
            for call in (SUBMIT, ("submit", "--stop", "tiny-1"))
            for address in ("?", "http://?", "http://127.0.0.1:?", "https://[?]", "?:6379", "ray://?")
        ),
        share=4,
    ),
    options_target("words of doctor", (("doctor", "--cache-dir", "?", "--json"), ("doctor", "--storage", "?")), share=1),
    set_target("--set of train", TRAIN, share=3),
    set_target("--set of tune", TUNE, share=3),
    set_target("--set of shard", SHARD, share=1),
)
