"""`rayprob scenes` whose drawing stops at a gate, so that a test can interrupt it at a known place: FILE OPTION..."""

import os
import sys
import time
from pathlib import Path

from rayprob.cli.app import main
from rayprob.scenes import generate
from rayprob.scenes.files import CHUNK, DrawJob, DrawnImage, draw_job


def draw_to_the_gate(job: DrawJob) -> list[DrawnImage]:
    """Draw the first two pieces at once, and the others when the file in GATE is there."""
    while job.first_index >= 2 * CHUNK and not Path(os.environ["GATE"]).exists():
        time.sleep(0.02)
    return draw_job(job)


if __name__ == "__main__":
    from tests.scenes.gated_scenes import draw_to_the_gate as drawing  # the name by which a spawned process finds it

    os.environ["GATE"] = sys.argv.pop(1)
    generate.draw_job = drawing
    main()
