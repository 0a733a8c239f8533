"""The table: rows as they were said, and a stopped command that goes on."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayprob.errors import StorageError
from rayprob.predict.images import Image, find_images
from rayprob.predict.job import Asking, ask
from rayprob.predict.record import Outcome, Record, Rejected
from rayprob.predict.table import TablePlan, write_table
from rayprob.runs.bundle import Bundle
from tests.predict.small import sampled_like


@pytest.fixture
def asking(bundle_path: str) -> Asking:
    return ask([bundle_path], queries=["P(fork & knife)", "P(cat | dog)"], rule="recall@0.1", mc_dropout=3, top=2)


@pytest.fixture
def images(photos: Path) -> list[Image]:
    """Five images and, third among them, a file that is none."""
    (photos / "photo-1b.jpg").write_text("hello")
    return find_images([str(photos)])


def test_each_row_is_what_was_said_of_its_image(asking: Asking, images: list[Image], tmp_path: Path) -> None:
    written = write_table(TablePlan.of(str(tmp_path / "t.parquet"), asking, images), asking.outcomes)
    assert (written.num_images, written.was_there) == (6, False)
    assert len(written.rejected) == 1
    assert written.rejected[0].endswith("photo-1b.jpg is a file that begins b'hell', not a JPEG, PNG or WebP; convert it")
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    for row, said in zip(rows, asking.outcomes(images), strict=True):
        assert row["image"] == said.image.name
        if isinstance(said, Rejected):
            assert (row["error"], row["marginals"], row["P(cat | dog)"]) == (said.error, None, None)
            continue
        plain = said.to_dict()
        assert all(row[name] == plain[name] for name in ("error", "notes", "label_set", "guarantee", "sample_id"))
        np.testing.assert_allclose(row["marginals"], said.marginals_L, atol=1e-5)
        assert [row["P(fork & knife)"], row["P(cat | dog)"]] == pytest.approx([a.probability for a in said.answers], abs=1e-5)
        assert [line["labels"] for line in row["top_sets"]] == [list(line.labels) for line in said.top_sets or ()]
        assert said.uncertainty is not None
        assert row["epistemic_nats"] == pytest.approx(said.uncertainty.epistemic_nats, abs=1e-5)


def test_the_table_says_what_was_asked_and_leaves_nothing_beside_it(
    asking: Asking, images: list[Image], tmp_path: Path
) -> None:
    write_table(TablePlan.of(str(tmp_path / "new" / "t.parquet"), asking, images), asking.outcomes)
    facts = json.loads(pq.read_schema(tmp_path / "new" / "t.parquet").metadata[b"rayprob"])
    assert facts["labels"] == list(asking.predictor.bundle.label_space.names)
    assert (facts["rule"], facts["queries"]) == ("recall@0.1", ["P(fork & knife)", "P(cat | dog)"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.parquet"]


class Stopping:
    """Predicts, and stops at its third part."""

    def __init__(self, asking: Asking) -> None:
        self.asking, self.seen, self.parts = asking, 0, 0

    def __call__(self, images: Sequence[Image]) -> Iterable[Outcome]:
        self.parts += 1
        if self.parts == 3:
            raise KeyboardInterrupt
        return self._counted(images)

    def _counted(self, images: Sequence[Image]) -> Iterator[Outcome]:
        for outcome in self.asking.outcomes(images):
            self.seen += 1
            yield outcome


def test_a_stopped_table_goes_on_and_equals_one_written_at_once(asking: Asking, images: list[Image], tmp_path: Path) -> None:
    stopped = replace(TablePlan.of(str(tmp_path / "stopped.parquet"), asking, images), part_images=2)
    predict = Stopping(asking)
    with pytest.raises(KeyboardInterrupt):
        write_table(stopped, predict)
    assert not (tmp_path / "stopped.parquet").exists()
    assert predict.seen == 4
    done: list[tuple[int, int]] = []
    write_table(stopped, predict, lambda count, total: done.append((count, total)))
    assert predict.seen == 6
    assert done == [(4, 6), (6, 6)]
    at_once = replace(stopped, path=str(tmp_path / "at_once.parquet"))
    write_table(at_once, asking.outcomes)
    assert pq.read_table(stopped.path).equals(pq.read_table(at_once.path))


def test_a_finished_table_is_not_written_again(asking: Asking, images: list[Image], tmp_path: Path) -> None:
    plan = TablePlan.of(str(tmp_path / "t.parquet"), asking, images)
    write_table(plan, asking.outcomes)
    predict = Stopping(asking)
    written = write_table(plan, predict)
    assert (written.was_there, written.num_images, len(written.rejected), predict.parts) == (True, 6, 1, 0)


def test_what_belongs_to_another_question_is_left_alone(
    asking: Asking, images: list[Image], tmp_path: Path, bundle_path: str
) -> None:
    plan = replace(TablePlan.of(str(tmp_path / "t.parquet"), asking, images), part_images=2)
    with pytest.raises(KeyboardInterrupt):
        write_table(plan, Stopping(asking))
    other = ask([bundle_path], rule="0.5", top=2)
    with pytest.raises(
        StorageError, match=r"t.parquet.parts already holds another table; it differs in 3 key(.|\n)*remove .*parts"
    ):
        write_table(replace(TablePlan.of(plan.path, other, images), part_images=2), other.outcomes)
    with pytest.raises(StorageError, match=r"part_images: 2 -> 3"):
        write_table(replace(plan, part_images=3), asking.outcomes)
    write_table(plan, asking.outcomes)
    with pytest.raises(StorageError, match=r"t.parquet already holds another table; (.|\n)*rule: 'recall@0.1' -> '0.5'"):
        write_table(TablePlan.of(plan.path, other, images), other.outcomes)
    with pytest.raises(StorageError, match=r"images.number: 6 -> 5"):
        write_table(TablePlan.of(plan.path, asking, images[:5]), asking.outcomes)
    pq.write_table(pa.table({"image": ["a"]}), tmp_path / "foreign.parquet")
    with pytest.raises(StorageError, match=r"foreign.parquet exists and is not a table of predictions; choose another file"):
        write_table(TablePlan.of(str(tmp_path / "foreign.parquet"), asking, images), asking.outcomes)


def test_a_table_of_bad_images_only_is_written_all_the_same(asking: Asking, images: list[Image], tmp_path: Path) -> None:
    written = write_table(TablePlan.of(str(tmp_path / "t.parquet"), asking, images[2:3]), asking.outcomes)
    assert (written.num_images, len(written.rejected)) == (1, 1)
    assert not any(isinstance(outcome, Record) for outcome in asking.outcomes(images[2:3]))


def test_estimated_answers_have_a_column_of_standard_errors(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    sampled_like(bundle).save(str(tmp_path / "sampled"))
    query = "P(fork & knife)"
    asked, path = ask([str(tmp_path / "sampled")], queries=[query], top=1), str(tmp_path / "t.parquet")
    write_table(TablePlan.of(path, asked, find_images([str(photos)])), asked.outcomes)
    for row in pq.read_table(path).to_pylist():
        assert 0 < row[f"{query} standard error"] < 0.05 < row[query]
