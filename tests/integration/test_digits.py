"""The digits example: what it trains, writes down and makes up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from examples import heavy_model
from examples.digits import load, make_rows, train
from examples.digits.data import BLOCK_ROWS
from examples.digits.training import export
from hivefold.datasets import open_data_set
from hivefold.models import inspect_onnx


def test_the_model_is_good_on_digits_it_never_saw(tmp_path: Path) -> None:
    """Written as ONNX it says what the network said, for any number of rows, and names its outputs."""
    digits = load()
    trained = train(digits)
    export(trained, tmp_path / "digits.onnx")
    facts = inspect_onnx(tmp_path / "digits.onnx")
    assert [(given.name, given.data_type, given.shape) for given in facts.inputs] == [("pixels", "FP32", (-1, 64))]
    assert [(given.name, given.shape) for given in facts.outputs] == [("label", (-1,)), ("probabilities", (-1, 10))]
    session = onnxruntime.InferenceSession(str(tmp_path / "digits.onnx"))
    label, probabilities = session.run(None, {"pixels": digits.held_out_images})
    assert np.mean(label == digits.held_out_labels) == pytest.approx(trained.held_out_accuracy)
    assert trained.held_out_accuracy > 0.97
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)

    make_rows(20_000, 1, tmp_path / "rows.npy", tmp_path / "labels.npy")
    (label, _) = session.run(None, {"pixels": np.load(tmp_path / "rows.npy")})
    assert np.mean(label == np.load(tmp_path / "labels.npy")) > 0.96


def test_rows_are_the_same_for_the_same_seed_and_no_others(tmp_path: Path) -> None:
    """Over block borders; pixels stay between 0 and 1."""
    count = 2 * BLOCK_ROWS + 5
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_rows(count, seed, tmp_path / f"{name}.npy", tmp_path / f"{name}-labels.npy")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert (tmp_path / "a.npy").read_bytes() != (tmp_path / "c.npy").read_bytes()
    rows = open_data_set(tmp_path / "a.npy")
    assert (rows.data_type, rows.row_shape, rows.row_count) == ("FP32", (64,), count)
    assert open_data_set(tmp_path / "a-labels.npy").row_count == count
    pixels = np.load(tmp_path / "a.npy")
    assert 0 <= pixels.min() < pixels.max() <= 1


def test_no_held_out_digit_is_trained_on() -> None:
    """The parts share no image and hold every digit."""
    digits = load()
    seen = {image.tobytes() for image in digits.train_images}
    assert not any(image.tobytes() in seen for image in digits.held_out_images)
    assert set(digits.train_labels) == set(digits.held_out_labels) == set(range(10))


def test_the_heavy_model_is_small_and_gives_finite_scores(tmp_path: Path) -> None:
    """It is made to be slow, not large."""
    path = tmp_path / "heavy.onnx"
    heavy_model.write(path)
    assert path.stat().st_size < 100_000_000
    assert inspect_onnx(path).outputs[0].shape == (-1, 16)
    session = onnxruntime.InferenceSession(str(path))
    (scores,) = session.run(None, {"features": np.ones((2, 64), np.float32)})
    assert np.isfinite(scores).all()
