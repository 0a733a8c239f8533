"""metrics.jsonl: appended, cut back on resume, followed from another process."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.summary.writer import event_file_writer

from rayprob.runs.history import History, HistoryTail
from rayprob.runs.history_rows import read_history
from rayprob.runs.tracking import scalars
from rayprob.runs.tracking.tensorboard import as_markdown


def record(history: History, *steps: int) -> None:
    for step in steps:
        history.record("step", step, {"loss": 1 / (step + 1), "ap": {"hot dog": 0.5}})


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    history = History(str(tmp_path), 0)
    record(history, 1, 2)
    assert [row["step"] for row in read_history(str(tmp_path))] == [1, 2]


def test_a_resumed_history_drops_what_it_will_write_again(tmp_path: Path) -> None:
    history = History(str(tmp_path), 0)
    record(history, 1, 2, 3)
    history.close()
    resumed = History(str(tmp_path), 2)
    record(resumed, 3, 4)
    resumed.close()
    assert [row["step"] for row in read_history(str(tmp_path))] == [1, 2, 3, 4]


def test_a_line_cut_by_a_crash_is_left_out(tmp_path: Path) -> None:
    record(History(str(tmp_path), 0), 1)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "st')
    assert [row["step"] for row in read_history(str(tmp_path))] == [1]


def steps_in_tensorboard(folder: Path) -> list[int]:
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return [event.step for event in board.Scalars("step/loss")]


def write(folder: Path, start: int, *steps: int) -> None:
    history = History(str(folder), start)
    record(history, *steps)
    history.close()


@pytest.mark.parametrize("line", [b"3", b'{"kind": "step"}', b'{"kind": ', b"\xff", b"null"])
def test_a_line_that_no_run_writes_is_left_out_by_number(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes) -> None:
    write(tmp_path, 0, 1, 2)
    first, second, _ = (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([first, line, second, b""]))
    assert [row["step"] for row in read_history(str(tmp_path))] == [1, 2]
    assert "metrics.jsonl: 1 damaged line left out: line 2" in caplog.text


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 3)
    write(tmp_path, 2, 3, 4)
    assert steps_in_tensorboard(tmp_path) == [1, 2, 3, 4]


def test_tensorboard_shows_each_step_once_after_a_start_from_nothing(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 3)
    write(tmp_path, 0, 1, 2)
    assert steps_in_tensorboard(tmp_path) == [1, 2]


@pytest.mark.parametrize("clock", [[100.9] * 12, range(112, 100, -1)], ids=["within a second", "set back each time"])
def test_tensorboard_reads_starts_in_their_order_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Sequence[float]
) -> None:
    for step, now_s in enumerate(clock):  # twelve starts, for their count becomes one digit longer on the way
        with monkeypatch.context() as patch:
            patch.setattr(event_file_writer, "time", SimpleNamespace(time=lambda now_s=now_s: now_s))
            write(tmp_path, step, step + 1, step + 2)
    assert steps_in_tensorboard(tmp_path) == list(range(1, len(clock) + 2))


def test_labels_that_differ_have_curves_of_their_own(tmp_path: Path) -> None:
    ap = {"a b": 0.1, "a_b": 0.2, "hot dog": 0.3, "a/b": 0.4, "/a": 0.5, "a": 0.6, "a (b)": 0.7, "A b": 0.8}
    history = History(str(tmp_path), 0)
    for step in (1, 2):
        history.record("evaluation", step, {"ap": ap})
    history.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    tags = ("a b", "a_b", "hot_dog", "a/b", "/a", "a", "a_(b)", "A_b")
    curves = {tag: [event.value for event in board.Scalars(f"evaluation/ap/{tag}")] for tag in tags}
    assert curves == {tag: [pytest.approx(value)] * 2 for tag, value in zip(tags, ap.values(), strict=True)}
    assert len(board.Tags()["scalars"]) == len(ap)


def test_a_tag_does_not_depend_on_which_numbers_are_finite() -> None:
    assert scalars({"a b": 1.0, "a_b": float("nan"), "is": True, "text": "x"}) == [("a b", 1.0)]


@pytest.mark.parametrize("label", ["a_b_c *x*", "[x](http://y)", "a\\", "$x^2$ | :cat:", "[/b]", "# h", "- l", "1. x", "`a`"])
def test_labels_of_example_images_are_no_markdown(label: str) -> None:
    assert markdown_to_safe_html(f"0: {as_markdown(label)}") == f"<p>0: {label}</p>"


def test_labels_of_example_images_are_no_html() -> None:
    assert markdown_to_safe_html(as_markdown("<b>x</b> & y")) == "<p>&lt;b&gt;x&lt;/b&gt; &amp; y</p>"


def test_example_images_reach_tensorboard(tmp_path: Path) -> None:
    history = History(str(tmp_path), 0)
    history.show_images(0, np.zeros((2, 3, 8, 8), np.uint8), ["cat", "dog"])
    history.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert len(board.Images("examples/images")) == 1
    assert board.Tags()["tensors"] == ["examples/labels/text_summary"]


def test_a_tail_tells_each_row_once_also_across_a_restart(tmp_path: Path) -> None:
    first = History(str(tmp_path), 0)
    record(first, 1, 2, 3)
    tail = HistoryTail(str(tmp_path))
    assert tail.new_rows() == []
    record(first, 4, 5)
    assert [row["step"] for row in tail.new_rows()] == [4, 5]
    restarted = History(str(tmp_path), 2)
    restarted.record("start", 2, {})
    assert [(row["kind"], row["step"]) for row in tail.new_rows()] == [("start", 2)]
    record(restarted, 3)
    assert [row["step"] for row in tail.new_rows()] == [3]


def test_any_cut_of_a_history_leaves_whole_rows_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    history = History(str(tmp_path), 0)
    record(history, 1, 2, 3)
    history.close()
    content = (tmp_path / "metrics.jsonl").read_bytes()
    for length in range(len(content)):
        (tmp_path / "metrics.jsonl").write_bytes(content[:length])
        steps = [row["step"] for row in read_history(str(tmp_path))]
        assert steps == [1, 2, 3][: content[:length].count(b"\n")]


def test_damaged_lines_are_left_out_with_their_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(History(str(tmp_path), 0), 1, 2)
    damaged = [b"\0" * 40, b"{", b"[]", b"3", b'{"kind": "step"}', b'{"kind": "step", "step": "4"}', b"\xff\xfe", b"[" * 50_000]
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b"\n".join(damaged) + b"\n")
    assert [row["step"] for row in read_history(str(tmp_path))] == [1, 2]
    assert "8 damaged lines left out: line 3, 4, 5, 6, 7, ..." in caplog.text
    resumed = History(str(tmp_path), 1)
    record(resumed, 2)
    resumed.close()
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2
