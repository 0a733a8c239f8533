"""A table by actors of Ray Data is the table of one process."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rayprob.errors import StorageError
from rayprob.predict.job import PredictJob
from rayprob.predict.on_ray import write_table_on_ray
from rayprob.predict.table import TablePlan, begin, write_part, write_table
from tests.loader.tiny import write_dataset

INEXACT = ["marginals", "top_sets", "entropy_nats", "entropy_standard_error", "P(cat | dog)"]  # threads add in another order


@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_a_table_on_ray_is_that_of_one_process_and_goes_on_with_its_parts(
    bundle_path: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "photo-1b.jpg").write_text("hello")
    monkeypatch.chdir(tmp_path)
    job = PredictJob((bundle_path,), ("photos",), {"queries": ("P(cat | dog)",), "rule": "0.5"})
    asking, images = job.absolute().open()
    plans = [TablePlan.of(str(tmp_path / name), asking, images, part_images=2) for name in ("here.parquet", "ray.parquet")]
    write_table(plans[0], asking.outcomes)
    begin(plans[1])
    write_part(plans[1], 1, asking.outcomes)
    seen: list[tuple[int, int]] = []
    written = write_table_on_ray(job, "ray.parquet", lambda done, total: seen.append((done, total)), part_images=2)
    assert seen == [(2, 6), (4, 6), (6, 6)]
    assert (written.num_images, len(written.rejected)) == (6, 1)
    ours, theirs = (pq.read_table(plan.path) for plan in plans)
    assert ours.drop_columns(INEXACT).equals(theirs.drop_columns(INEXACT))
    np.testing.assert_allclose(*(table["P(cat | dog)"].drop_null().to_numpy() for table in (ours, theirs)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_what_stops_an_actor_is_said(bundle_path: str, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, [2, 2], split="val")
    (tmp_path / "val-000001.tar").unlink()
    with pytest.raises(StorageError, match=r"no file at .*val-000001.tar; check the path"):
        write_table_on_ray(
            PredictJob((bundle_path,), (dataset.root,), {}), str(tmp_path / "t.parquet"), lambda done, total: None
        )
