"""Families and tasks are told from a model's own words, and left open where nothing speaks for one."""

from __future__ import annotations

import pytest

from hivefold.models.passport import family
from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.facts import Complexity, Port, TaskFamily
from hivefold.models.passport.needs import complexity


def told(
    names: tuple[str, ...] = (), operators: dict[str, int] | None = None, inputs: tuple[tuple[int, ...], ...] = ()
) -> tuple[str, TaskFamily]:
    draft = Draft(weights=[Weight(name, "FP32", (4, 4), 64) for name in names], operators=operators or {})
    draft.inputs = [Port("x", "FP32", shape) for shape in inputs]
    family.describe(draft)
    return draft.architecture, draft.task


@pytest.mark.parametrize(
    ("names", "architecture", "task"),
    [
        (("model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"), "transformer", TaskFamily.NLP),
        (("vision_model.encoder.layers.0.self_attn.k_proj.weight",), "transformer", TaskFamily.VISION),
        (("wav2vec2.encoder.layers.0.attention.k_proj.weight",), "transformer", TaskFamily.AUDIO),
        (("model.layers.0.block_sparse_moe.experts.0.w1.weight",), "mixture of experts", TaskFamily.UNSPECIFIED),
        (("backbone.layers.0.mixer.A_log",), "state space", TaskFamily.UNSPECIFIED),
        (("rnn.weight_ih_l0", "rnn.weight_hh_l0"), "rnn", TaskFamily.UNSPECIFIED),
        (("layer1.0.conv1.weight", "layer1.0.downsample.0.weight"), "resnet", TaskFamily.UNSPECIFIED),
        (("actor.0.weight", "critic.0.weight"), "mlp", TaskFamily.REINFORCEMENT),
        (("fc1.weight", "fc2.weight"), "mlp", TaskFamily.UNSPECIFIED),
        (("fc.weight",), "linear", TaskFamily.UNSPECIFIED),
        ((), "", TaskFamily.UNSPECIFIED),
    ],
)
def test_names_of_weights_tell(names: tuple[str, ...], architecture: str, task: TaskFamily) -> None:
    """Frameworks name layers by what they are."""
    assert told(names) == (architecture, task)


@pytest.mark.parametrize(
    ("operators", "inputs", "architecture", "task"),
    [
        ({"Conv": 3}, ((-1, 3, 224, 224),), "cnn", TaskFamily.VISION),
        ({"Conv": 9, "Add": 4}, ((-1, 3, 224, 224),), "resnet", TaskFamily.VISION),
        ({"LSTM": 1}, ((-1, 10, 4),), "rnn", TaskFamily.UNSPECIFIED),
        ({"MatMul": 8, "Softmax": 2, "LayerNormalization": 4}, (), "transformer", TaskFamily.UNSPECIFIED),
        ({"TreeEnsembleClassifier": 1}, ((-1, 4),), "tree ensemble", TaskFamily.TABULAR),
        ({"LinearRegressor": 1}, ((-1, 4),), "linear", TaskFamily.TABULAR),
    ],
)
def test_operators_and_inputs_tell(
    operators: dict[str, int], inputs: tuple[tuple[int, ...], ...], architecture: str, task: TaskFamily
) -> None:
    """ONNX has operators where weights have no telling names."""
    assert told(operators=operators, inputs=inputs) == (architecture, task)


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        (None, Complexity.UNSPECIFIED),
        (0, Complexity.SMALL),
        (999_999, Complexity.SMALL),
        (1_000_000, Complexity.MEDIUM),
        (99_999_999, Complexity.MEDIUM),
        (100_000_000, Complexity.LARGE),
        (999_999_999, Complexity.LARGE),
        (1_000_000_000, Complexity.XLARGE),
    ],
)
def test_size_classes_begin_where_they_say(parameters: int | None, size: Complexity) -> None:
    """small < 1e6 <= medium < 1e8 <= large < 1e9 <= xlarge."""
    assert complexity(parameters) is size
