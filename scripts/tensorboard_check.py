#!/usr/bin/env python3
"""Reads the files of the unit tests of src/runs/tensorboard.rs with the package tensorboard.

    python3 -m venv VENV && VENV/bin/pip install tensorboard==2.21.0 "setuptools<81"
    PARALLAX_TENSORBOARD_CHECK=NEW_FOLDER cargo test --lib tensorboard
    VENV/bin/python scripts/tensorboard_check.py NEW_FOLDER

Fails unless TensorBoard's own readers find what the tests wrote.
"""

import math
import sys
from pathlib import Path

from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig


def main(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    assert sorted(tags["scalars"]) == ["knn/top1", "loss"], tags
    assert tags["images"] == ["views"], tags
    # The second file resumes at step 3, which drops the points of the first file from there on.
    loss = [(point.step, point.value) for point in events.Scalars("loss")]
    assert loss == [(0, 5.0), (1, 4.0), (2, 3.0), (3, 1.5)], loss
    # A point of a later step is dropped too.
    assert events.Scalars("knn/top1") == [], events.Scalars("knn/top1")
    assert events.Images("views") == [], events.Images("views")

    first = min(folder.glob("events.out.tfevents.*"))
    events = EventAccumulator(str(first), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    (point,) = events.Scalars("knn/top1")
    assert point.step == 1 << 40 and math.isnan(point.value), point
    (image,) = events.Images("views")
    assert (image.step, image.width, image.height) == (3, 5, 4), image
    assert image.encoded_image_string.startswith(b"\x89PNG"), image

    projection = folder / "projection"
    config = ProjectorConfig()
    text_format.Parse((projection / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    assert embedding.tensor_name == 'the "features"', embedding
    rows = (projection / embedding.tensor_path).read_text().splitlines()
    assert [len(row.split("\t")) for row in rows] == [2, 2, 2], rows
    metadata = (projection / embedding.metadata_path).read_text().splitlines()
    assert len(metadata) == len(rows) + 1, metadata
    print(f"{folder}: TensorBoard reads {len(loss)} points, an image and a projection of {len(rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
