"""The protocol's messages stay out of everybody else's way."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf import descriptor_pool

from hivefold.oip import schema


def test_nothing_is_registered_in_the_pool_that_all_libraries_share() -> None:
    """Else a client library of the protocol could not be imported in the same process."""
    assert schema.POOL.FindServiceByName(schema.SERVICE).full_name == schema.SERVICE
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")


def test_field_numbers_are_those_of_the_protocol() -> None:
    """As Triton numbers them: a client speaks numbers, not names."""
    numbers = {
        name: {field.name: field.number for field in schema.message_class(name).DESCRIPTOR.fields}
        for name in ("ModelInferRequest", "ModelInferResponse", "InferParameter", "ModelStatistics")
    }
    assert numbers == {
        "ModelInferRequest": {
            "model_name": 1,
            "model_version": 2,
            "id": 3,
            "parameters": 4,
            "inputs": 5,
            "outputs": 6,
            "raw_input_contents": 7,
        },
        "ModelInferResponse": {
            "model_name": 1,
            "model_version": 2,
            "id": 3,
            "parameters": 4,
            "outputs": 5,
            "raw_output_contents": 6,
        },
        "InferParameter": {
            "bool_param": 1,
            "int64_param": 2,
            "string_param": 3,
            "double_param": 4,
            "uint64_param": 5,
        },
        "ModelStatistics": {
            "name": 1,
            "version": 2,
            "last_inference": 3,
            "inference_count": 4,
            "execution_count": 5,
            "inference_stats": 6,
            "batch_stats": 7,
        },
    }


def test_reading_a_request_needs_no_numpy() -> None:
    """An idle node stays small."""
    program = "import sys, hivefold.oip.requests, hivefold.oip.responses; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
