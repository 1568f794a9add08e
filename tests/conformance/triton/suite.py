"""What Triton's own client expects of a server, run in .triton-venv against a node: knows nothing of hivefold.

Called with the node's address; prints each check that passed, one a line, and ends with the first that did not.
The node serves `double` (two versions; FP32 [-1, 4], twice its input), `identity_<type>` for every type ([-1, 2]),
`pair` (a FP32 [-1, 2], b INT64 [-1, 1] -> sum FP32, kept INT64) and `fixed` (FP32 [2, 2], twice its input).
"""

from __future__ import annotations

import asyncio
import queue
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

Array = np.ndarray[Any, Any]
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def given(name: str, data_type: str, array: Array) -> Any:
    tensor = triton.InferInput(name, list(array.shape), data_type)
    tensor.set_data_from_numpy(array)
    return tensor


def refused(call: Callable[[], object]) -> InferenceServerException:
    try:
        call()
    except InferenceServerException as error:
        return error
    raise AssertionError("the server took it")


def server_is_live_and_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata.name == "hivefold"
    assert {"model_repository", "statistics"} <= set(metadata.extensions)


def models_are_ready_or_not(client: Any) -> None:
    assert client.is_model_ready("double")
    assert client.is_model_ready("double", "1")
    assert not client.is_model_ready("double", "9")
    assert not client.is_model_ready("nothing")


def metadata_describes_a_model(client: Any) -> None:
    metadata = client.get_model_metadata("double", as_json=True)
    assert metadata["versions"] == ["1", "2"], metadata
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}], metadata
    assert metadata["platform"] == "onnx_onnxv1"
    error = refused(lambda: client.get_model_metadata("nothing"))
    assert error.status() == "StatusCode.NOT_FOUND", error.status()


def the_latest_version_answers_unless_another_is_named(client: Any) -> None:
    for version, answering in (("", "2"), ("1", "1"), ("2", "2")):
        result = client.infer("double", [given("x", "FP32", ROWS)], model_version=version, request_id="r-7")
        np.testing.assert_array_equal(result.as_numpy("y"), ROWS * 2)
        response = result.get_response()
        assert (response.model_version, response.id) == (answering, "r-7"), response


def every_type_passes_unchanged(client: Any) -> None:
    numbers = np.array([[0, 1], [1, 0], [1, 1]])
    types = {
        "BOOL": np.bool_,
        "UINT8": np.uint8,
        "UINT16": np.uint16,
        "UINT32": np.uint32,
        "UINT64": np.uint64,
        "INT8": np.int8,
        "INT16": np.int16,
        "INT32": np.int32,
        "INT64": np.int64,
        "FP16": np.float16,
        "FP32": np.float32,
        "FP64": np.float64,
    }
    for data_type, kind in types.items():
        array: Array = numbers.astype(kind)
        result = client.infer(f"identity_{data_type.lower()}", [given("x", data_type, array)])
        assert result.as_numpy("y").dtype == kind, data_type
        np.testing.assert_array_equal(result.as_numpy("y"), array, data_type)


def bf16_and_text_pass_unchanged(client: Any) -> None:
    halves = np.array([[1.0, -2.5], [0.15625, 3e38]], dtype=ml_dtypes.bfloat16)
    result = client.infer("identity_bf16", [given("x", "BF16", halves)])
    (raw,) = result.get_response().raw_output_contents  # the client's own reading of it depends on its version
    assert raw == halves.tobytes()
    texts = np.array([[b"a", "é語".encode()], [b"", b"\x00b"]], dtype=np.object_)
    result = client.infer("identity_bytes", [given("x", "BYTES", texts)])
    np.testing.assert_array_equal(result.as_numpy("y"), texts)


def wanted_outputs_come_and_no_others(client: Any) -> None:
    a, b = np.array([[1, 2], [3, 4]], np.float32), np.array([[5], [6]], np.int64)
    inputs = [given("b", "INT64", b), given("a", "FP32", a)]
    every = client.infer("pair", inputs)
    np.testing.assert_array_equal(every.as_numpy("sum"), a.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(every.as_numpy("kept"), b)
    only = client.infer("pair", inputs, outputs=[triton.InferRequestedOutput("kept")])
    assert [output.name for output in only.get_response().outputs] == ["kept"]


def a_model_without_a_batch_axis_answers(client: Any) -> None:
    array: Array = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(client.infer("fixed", [given("x", "FP32", array)]).as_numpy("y"), array * 2)


def typed_contents_are_taken(client: Any) -> None:
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="double")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(client._channel)
    response = stub.ModelInfer(request, timeout=20)
    np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[0], np.float32), [2, 4, 6, 8])
    assert not response.outputs[0].HasField("contents")


def what_does_not_fit_is_refused(client: Any) -> None:
    wrong = {
        "shape": [given("x", "FP32", ROWS.reshape(4, 2))],
        "datatype": [given("x", "FP64", ROWS.astype(np.float64))],
        "name": [given("z", "FP32", ROWS)],
    }
    for what, inputs in wrong.items():
        error = refused(lambda inputs=inputs: client.infer("double", inputs))  # type: ignore[misc]
        assert error.status() == "StatusCode.INVALID_ARGUMENT", error.status()
        assert what in error.message(), error.message()
    error = refused(lambda: client.infer("nothing", [given("x", "FP32", ROWS)]))
    assert error.status() == "StatusCode.NOT_FOUND"
    error = refused(lambda: client.infer("double", [given("x", "FP32", ROWS)], sequence_id=3))
    assert error.status() == "StatusCode.INVALID_ARGUMENT"


def priorities_and_time_outs_are_understood(client: Any) -> None:
    result = client.infer("double", [given("x", "FP32", ROWS)], priority=1, timeout=20_000_000, client_timeout=20)
    np.testing.assert_array_equal(result.as_numpy("y"), ROWS * 2)
    error = refused(lambda: client.infer("double", [given("x", "FP32", ROWS)], timeout=1))
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED", error.status()


def parameters_of_the_callers_own_are_passed_over(client: Any) -> None:
    client.infer("double", [given("x", "FP32", ROWS)], parameters={"colour": "blue", "shade": 3})


def compressed_requests_are_taken(client: Any) -> None:
    result = client.infer("double", [given("x", "FP32", ROWS)], compression_algorithm="gzip")
    np.testing.assert_array_equal(result.as_numpy("y"), ROWS * 2)


def calls_in_the_background_are_answered(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for index in range(50):
        client.async_infer(
            "double",
            [given("x", "FP32", ROWS + index)],
            callback=lambda result, error: answers.put((result, error)),
            request_id=str(index),
        )
    for _ in range(50):
        result, error = answers.get(timeout=20)
        assert error is None, error
        np.testing.assert_array_equal(result.as_numpy("y"), (ROWS + int(result.get_response().id)) * 2)


def a_stream_answers_in_order(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for index in range(20):
        array: Array = ROWS.reshape(4, 2) if index == 5 else ROWS + index
        client.async_stream_infer("double", [given("x", "FP32", array)], request_id=str(index))
    client.async_stream_infer("double", [given("x", "FP32", ROWS)], request_id="last", enable_empty_final_response=True)
    found = [answers.get(timeout=20) for _ in range(21)]
    client.stop_stream()
    assert [index for index, (_, error) in enumerate(found) if error is not None] == [5]
    assert "inputs[0].shape" in found[5][1].message()
    for index, (result, _) in enumerate(found[:20]):
        if index != 5:
            assert result.get_response().id == str(index)
            np.testing.assert_array_equal(result.as_numpy("y"), (ROWS + index) * 2)
    assert found[20][0].get_response().parameters["triton_final_response"].bool_param


def statistics_count_rows(client: Any) -> None:
    def rows() -> int:
        (stats,) = client.get_inference_statistics("double", "2").model_stats
        assert stats.inference_stats.success.count >= stats.execution_count > 0
        assert sum(batch.compute_infer.count for batch in stats.batch_stats) == stats.execution_count
        return int(stats.inference_count)

    client.load_model("double")
    client.infer("double", [given("x", "FP32", ROWS)])
    before = rows()
    client.infer("double", [given("x", "FP32", ROWS)])
    assert rows() == before + 2
    assert len(client.get_inference_statistics().model_stats) > 1


def the_repository_is_listed_and_models_come_and_go(client: Any) -> None:
    def states(name: str) -> list[str]:
        found = client.get_model_repository_index().models
        return [str(model.state) for model in sorted(found, key=lambda model: model.version) if model.name == name]

    client.load_model("fixed")
    assert states("fixed") == ["READY"]
    client.unload_model("fixed")
    assert states("fixed") == ["UNAVAILABLE"]
    client.load_model("double@1")
    client.load_model("double")
    assert states("double") == ["READY", "READY"]
    client.unload_model("double")
    assert states("double") == ["UNAVAILABLE", "UNAVAILABLE"]
    error = refused(lambda: client.load_model("nothing"))
    assert error.status() == "StatusCode.NOT_FOUND"
    error = refused(lambda: client.load_model("fixed", config="{}", files={"file:1/model.onnx": b"another"}))
    assert error.status() == "StatusCode.INVALID_ARGUMENT"


def a_megabyte_and_a_half_comes_back(client: Any) -> None:
    rows = np.arange(400_000, dtype=np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(client.infer("double", [given("x", "FP32", rows)]).as_numpy("y"), rows * 2)


def asyncio_clients_are_answered(client: Any, address: str) -> None:
    async def run() -> None:
        async with triton_aio.InferenceServerClient(address) as found:
            assert await found.is_server_ready()
            results = await asyncio.gather(
                *(found.infer("double", [given("x", "FP32", ROWS + index)]) for index in range(50))
            )
            for index, result in enumerate(results):
                np.testing.assert_array_equal(result.as_numpy("y"), (ROWS + index) * 2)

            async def requests() -> Any:
                for index in range(5):
                    yield {"model_name": "double", "inputs": [given("x", "FP32", ROWS + index)]}

            index = 0
            async for result, error in found.stream_infer(requests()):
                assert error is None
                np.testing.assert_array_equal(result.as_numpy("y"), (ROWS + index) * 2)
                index += 1
            assert index == 5

    asyncio.run(run())


CHECKS: tuple[Callable[[Any], None], ...] = (
    server_is_live_and_ready,
    models_are_ready_or_not,
    metadata_describes_a_model,
    the_latest_version_answers_unless_another_is_named,
    every_type_passes_unchanged,
    bf16_and_text_pass_unchanged,
    wanted_outputs_come_and_no_others,
    a_model_without_a_batch_axis_answers,
    typed_contents_are_taken,
    what_does_not_fit_is_refused,
    priorities_and_time_outs_are_understood,
    parameters_of_the_callers_own_are_passed_over,
    compressed_requests_are_taken,
    calls_in_the_background_are_answered,
    a_stream_answers_in_order,
    statistics_count_rows,
    the_repository_is_listed_and_models_come_and_go,
    a_megabyte_and_a_half_comes_back,
)


def main() -> None:
    """Runs every check against the node at the address given."""
    address = sys.argv[1]
    with triton.InferenceServerClient(address) as client:
        for check in CHECKS:
            check(client)
            print(check.__name__)
        asyncio_clients_are_answered(client, address)
        print(asyncio_clients_are_answered.__name__)


if __name__ == "__main__":
    main()
