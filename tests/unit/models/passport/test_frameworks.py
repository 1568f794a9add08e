"""Passports of files that real frameworks made say what those frameworks say."""

from __future__ import annotations

import pytest

from hivefold.models.passport.facts import Passport, Precision
from hivefold.models.passport.inspection import passport
from tests.fixtures.passports import EXPECTED, FILES, MODELS


def said(found: Passport) -> dict[str, object]:
    """A passport in the words of expected.json."""
    return {
        "format": found.format,
        "framework": found.framework,
        "verdict": found.safety.verdict.value,
        "parameters": found.parameter_count,
        "architecture": found.architecture,
        "task": found.task.value,
        "name": found.architecture_name,
        "kv_token": found.needs.kv_cache_token_bytes,
        "precision": found.precisions[0].data_type if found.precisions else "",
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_a_passport_says_what_the_framework_says(name: str) -> None:
    """Format, framework, family, task, verdict and the exact count of parameters."""
    found = passport(MODELS / name)

    assert {key: said(found)[key] for key in EXPECTED[name]} == EXPECTED[name], found.safety


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_is_known_by_its_content(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The suffix decides nothing."""
    path = MODELS / name
    if path.is_file():
        renamed = tmp_path_factory.mktemp("renamed") / "model.txt"
        renamed.write_bytes(path.read_bytes())
        assert passport(renamed).format == EXPECTED[name]["format"]


def test_tied_weights_count_once() -> None:
    """The output layer shares the embedding's storage: 50 x 8 elements are there once, in the file and in the count."""
    found = passport(MODELS / "tied.pt")

    assert found.precisions == (Precision("FP16", 976, 2 * 976),)
    assert found.needs.weight_bytes == 2 * 976


def test_inputs_and_outputs_are_known_where_the_file_knows_them() -> None:
    """ONNX, torch.export, Keras, SavedModel and scikit-learn declare them."""
    shapes = {name: [port.shape for port in passport(MODELS / name).inputs] for name in INPUTS}

    assert shapes == INPUTS


INPUTS = {
    "cnn.onnx": [(-1, 3, 8, 8)],
    "cnn.pt2": [(1, 3, 8, 8)],
    "cnn.keras": [(-1, 8, 8, 3)],
    "cnn.h5": [(-1, 8, 8, 3)],
    "saved": [(-1, 8, 8, 3)],
    "frozen.pb": [(-1, 8, 8, 3)],
    "forest.joblib": [(-1, 4)],
}


def test_activations_grow_with_the_rows() -> None:
    """For one row: the 4 x 8 x 8 output of the convolution, twice, as FP32; for ten rows ten times that."""
    one, ten = (passport(MODELS / "cnn.onnx", batch_rows=rows).needs.activation_bytes for rows in (1, 10))

    assert (one, ten) == (2 * 4 * 4 * 8 * 8, 10 * 2 * 4 * 4 * 8 * 8)


def test_fixtures_stay_small() -> None:
    """They are committed: less than 2 MB together, less than 200 KB each."""
    sizes = [path.stat().st_size for path in FILES]

    assert sum(sizes) < 2_000_000
    assert max(sizes) < 200_000
