#!/usr/bin/env python3
"""Reads the files of the unit tests of src/runs/tensorboard.rs, or those of a training with
--tensorboard, with the package tensorboard.

    python3 -m venv VENV && VENV/bin/pip install tensorboard==2.21.0 "setuptools<81"
    PARALLAX_TENSORBOARD_CHECK=NEW_FOLDER cargo test --lib tensorboard
    VENV/bin/python scripts/tensorboard_check.py NEW_FOLDER
    VENV/bin/python scripts/tensorboard_check.py RUN

Fails unless TensorBoard's own readers find what the tests wrote, or what metrics.jsonl of the run has.
"""

import json

import math
import sys
from pathlib import Path

from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig


def read_projector(folder):
    config = ProjectorConfig()
    text_format.Parse((folder / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    rows = (folder / embedding.tensor_path).read_text().splitlines()
    return embedding, [row.split("\t") for row in rows]


def check_run(folder):
    """Compares the files of a training, which may have been resumed, with its metrics."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for tag in ["loss", "learning_rate", "online_knn_top1"]:
        expected = [(line["step"], line[tag]) for line in steps if tag in line]
        found = []
        if tag in events.Tags()["scalars"]:
            found = [(point.step, point.value) for point in events.Scalars(tag)]
        assert len(found) == len(expected), (tag, len(found), len(expected))
        for (step, value), (expected_step, expected_value) in zip(found, expected):
            assert step == expected_step, (tag, step, expected_step)
            assert math.isclose(value, expected_value, rel_tol=1e-6), (tag, step, value)
    images = events.Tags()["images"]
    assert sorted(images) == ["nearest neighbours", "views"], images
    embedding, rows = read_projector(folder)
    labels = (folder / embedding.metadata_path).read_text().splitlines()
    assert len(labels) == len(rows), (len(labels), len(rows))
    assert (folder / embedding.sprite.image_path).exists(), embedding
    print(f"{folder}: TensorBoard reads {len(steps)} steps, {len(images)} images and {len(rows)} features")


def main(folder):
    if (folder / "metrics.jsonl").exists():
        return check_run(folder)
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
    embedding, rows = read_projector(projection)
    assert embedding.tensor_name == 'the "features"', embedding
    assert [len(row) for row in rows] == [2, 2, 2], rows
    assert list(embedding.sprite.single_image_dim) == [4, 4], embedding
    metadata = (projection / embedding.metadata_path).read_text().splitlines()
    assert len(metadata) == len(rows) + 1, metadata
    print(f"{folder}: TensorBoard reads {len(loss)} points, an image and a projection of {len(rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
