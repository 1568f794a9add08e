"""The model repository extension of a node, over fakes: what is listed, loaded and released by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hivefold.errors import InvalidRequestError
from hivefold.oip import schema
from node.servicers.inference import InferenceServicer
from tests.fixtures.serving import Serving, serving


async def called(node: Serving, method: str, **fields: Any) -> Any:
    """What the service answers."""
    servicer = InferenceServicer(node.inference, lambda: True)
    fill = {
        "RepositoryIndex": servicer.repository_index,
        "RepositoryModelLoad": servicer.repository_model_load,
        "RepositoryModelUnload": servicer.repository_model_unload,
    }
    request_class, response_class = schema.method(method)
    response = response_class()
    await fill[method](request_class(**fields), response)
    return response


async def two_versions(node: Serving) -> None:
    """A second version of `echo`, and both loaded."""
    newer = await node.add("newer")
    newer.name, newer.version = "echo", 2
    node.models.known["echo"] = node.models.known["echo@2"] = newer
    for name in ("echo@1", "echo@2"):
        await called(node, "RepositoryModelLoad", model_name=name)


async def ready(node: Serving) -> list[str]:
    index = await called(node, "RepositoryIndex", ready=True)
    return [model.version for model in index.models]


async def test_a_name_releases_all_its_versions(tmp_path: Path) -> None:
    """As Triton's clients expect: nothing of the model is left in memory."""
    async with serving(tmp_path) as node:
        await two_versions(node)
        assert await ready(node) == ["1", "2"]

        await called(node, "RepositoryModelUnload", model_name="echo")
        assert await ready(node) == []


async def test_a_version_is_released_alone(tmp_path: Path) -> None:
    """Where it is named, whichever it is."""
    async with serving(tmp_path) as node:
        await two_versions(node)

        await called(node, "RepositoryModelUnload", model_name="echo@1")
        assert await ready(node) == ["2"]


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
async def test_what_would_load_another_model_is_refused(tmp_path: Path, name: str) -> None:
    """Passed over, it would have the caller believe that it asks what it sent."""
    async with serving(tmp_path) as node:
        request_class, _ = schema.method("RepositoryModelLoad")
        request = request_class(model_name="echo")
        request.parameters[name].string_param = "{}"
        servicer = InferenceServicer(node.inference, lambda: True)

        with pytest.raises(InvalidRequestError, match=f"parameters.{name}"):
            await servicer.repository_model_load(request, None)
        assert await ready(node) == []
