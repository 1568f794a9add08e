"""Which architecture and which task a model is for, from its own words: operators, layers, names and shapes of weights.

A guess with a reason, and never more: where nothing speaks for a family, none is named.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

from hivefold.models.passport.draft import Draft
from hivefold.models.passport.facts import TaskFamily

_WORDS: Final = (
    ("mixture of experts", r"experts\.\d|moe|ffn_(gate|up|down)_exps"),
    ("transformer", r"attn|attention|transformer|q_proj|query|encoder\.layers?\.\d|wte|bert|gpt|llama|\bvit"),
    ("state space", r"mamba|ssm_|\.A_log"),
    ("rnn", r"lstm|gru|\brnn|weight_[ih]h_l\d|recurrent_kernel"),
    ("resnet", r"resnet|downsample|layer\d\.\d+\.conv\d|shortcut|res\d+_branch"),
    ("unet", r"unet|up_blocks|down_blocks"),
    ("gan", r"\bgenerator[./]|discriminator"),
    ("autoencoder", r"\bvae|autoencoder"),
)
_OPERATORS: Final = (
    ("tree ensemble", ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")),
    ("svm", ("SVMClassifier", "SVMRegressor")),
    ("linear", ("LinearClassifier", "LinearRegressor")),
    ("transformer", ("Attention", "MultiHeadAttention", "MultiheadAttention", "GroupQueryAttention", "RotaryEmbedding",
                     "TransformerEncoderLayer", "TransformerDecoderLayer", "EinsumDense")),
    ("rnn", ("LSTM", "GRU", "RNN", "SimpleRNN", "Bidirectional")),
)  # fmt: skip
_CONVOLUTIONS: Final = frozenset(
    {"Conv", "Conv1d", "Conv2d", "Conv3d", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv2D", "SeparableConv2D",
     "DepthwiseConv2dNative", "ConvTranspose", "FusedConv", "QLinearConv", "_FusedConv2D"}
)  # fmt: skip
_TASKS: Final = (
    (TaskFamily.AUDIO, r"whisper|wav2vec|hubert|audio|speech|\bmel|spectrogram|encodec|\basr"),
    (TaskFamily.REINFORCEMENT, r"\bactor|critic|policy|q_net|\bdqn|value_head|value_net|observation"),
    (TaskFamily.VISION, r"resnet|\bvit\b|vision|image|pixel|yolo|unet|convnext|patch_embed|mobilenet|efficientnet"),
    (
        TaskFamily.NLP,
        r"wte|\bembed|token|word_emb|tok_emb|bert|gpt|llama|mistral|input_ids|lm_head|vocab|Embedding\b",
    ),
)
_SAMPLE: Final = 2000
_NAME: Final = 1000


def describe(draft: Draft) -> None:
    """Fills in the families that the parser did not name itself."""
    words = _words(draft)
    if not draft.architecture:
        draft.architecture = _architecture(draft, words)
    if draft.task is TaskFamily.UNSPECIFIED:
        draft.task = _task(draft, words)


def _words(draft: Draft) -> str:
    """Names that say something, in one text."""
    names = [draft.architecture_name, *islice(draft.operators, _SAMPLE)]
    names += [port.name for port in (*draft.inputs, *draft.outputs)]
    names += [weight.name for weight in draft.weights[:_SAMPLE]]
    return "\n".join(name[:_NAME] for name in names)


def _architecture(draft: Draft, words: str) -> str:
    for family, names in _OPERATORS:
        if any(name in draft.operators for name in names):
            return family
    for family, pattern in _WORDS:
        if re.search(pattern, words, re.IGNORECASE):
            return family
    if _convolutional(draft):
        return "resnet" if _residual(draft) else "cnn"
    if {"Softmax", "MatMul", "LayerNormalization"} <= draft.operators.keys():
        return "transformer"
    return _dense(draft)


def _convolutional(draft: Draft) -> bool:
    if _CONVOLUTIONS & draft.operators.keys():
        return True
    return any(weight.trained and len(weight.shape) in {4, 5} for weight in draft.weights)


def _residual(draft: Draft) -> bool:
    """Additions between several convolutions: blocks around which the signal is led."""
    convolutions = sum(draft.operators.get(name, 0) for name in _CONVOLUTIONS)
    additions = sum(draft.operators.get(name, 0) for name in ("Add", "AddV2", "Sum"))
    return convolutions >= 4 and additions * 4 >= convolutions and additions >= 2


def _dense(draft: Draft) -> str:
    layers = sum(1 for weight in draft.weights if weight.trained and len(weight.shape) == 2)
    if not layers:
        return ""
    return "linear" if layers == 1 else "mlp"


def _task(draft: Draft, words: str) -> TaskFamily:
    for family, pattern in _TASKS:
        if re.search(pattern, words, re.IGNORECASE):
            return family
    if any(len(port.shape) == 4 and (port.shape[1] in {1, 3} or port.shape[3] in {1, 3}) for port in draft.inputs):
        return TaskFamily.VISION
    if draft.architecture in {"tree ensemble", "tree", "svm"}:
        return TaskFamily.TABULAR
    if any(len(weight.shape) == 4 and weight.shape[1] in {1, 3} for weight in draft.weights[:4]):
        return TaskFamily.VISION
    if draft.architecture in {"linear", "mlp"} and draft.inputs and all(len(port.shape) == 2 for port in draft.inputs):
        return TaskFamily.TABULAR
    return TaskFamily.UNSPECIFIED
