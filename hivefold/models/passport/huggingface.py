"""Hugging Face folders: what config.json and the tokenizer's files say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from hivefold.models.passport.draft import Draft
from hivefold.models.passport.facts import TaskFamily
from hivefold.models.passport.jsontext import parsed
from hivefold.models.passport.source import opened
from hivefold.models.wire import MalformedError

_TASKS: Final = (
    (TaskFamily.AUDIO, "AudioClassification|SpeechSeq2Seq|CTC|AudioFrame|Whisper|Wav2Vec|TextToWaveform"),
    (TaskFamily.VISION, "Image|ObjectDetection|Vision|ViT|Segmentation|DepthEstimation|ResNet"),
    (TaskFamily.REINFORCEMENT, "DecisionTransformer"),
    (TaskFamily.NLP, "CausalLM|MaskedLM|SequenceCl|TokenCl|QuestionAn|Seq2Seq|LMHead|Generation|Bert|GPT|T5|Llama"),
)  # fmt: skip
_TEMPLATE: Final = re.compile(
    r"__\w+__|\bself\b|\.mro\b|\bimport\b|getattr|subclasses|\|\s*attr\b|\bcycler\b|\blipsum\b|popen"
)
"""What a chat template has no use for, and what leaves Jinja's sandbox begins with."""
_CACHE_BYTES: Final = 2
"""An element of keys and values in 16 bits."""


def inspect(names: dict[str, Path], draft: Draft) -> None:
    """Reads the JSON files. Damage is evidence."""
    config = _json(names, "config.json", draft)
    _architecture(config, draft)
    cache(config.get("text_config") if isinstance(config.get("text_config"), dict) else config, draft)
    for name in ("config.json", "tokenizer_config.json", "processor_config.json", "generation_config.json"):
        settings = config if name == "config.json" else _json(names, name, draft)
        if settings.get("auto_map"):
            draft.suspicious("remote-code", name, "names Python code that runs with trust_remote_code (auto_map)")
        template = settings.get("chat_template")
        for text in template if isinstance(template, list) else [template]:
            check_template(text.get("template") if isinstance(text, dict) else text, name, draft)


def check_template(text: object, place: str, draft: Draft) -> None:
    """A chat template is a program: what reaches beyond text is evidence."""
    if isinstance(text, str) and (found := _TEMPLATE.search(text)):
        draft.suspicious("chat-template", place, f"reaches beyond text: {found[0]}")


def cache(config: dict[str, Any] | None, draft: Draft) -> None:
    """Keys and values that one token keeps: 2 x layers x key heads x head size, in 16 bits."""
    config = config or {}
    layers = _number(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = _number(config, "num_attention_heads", "n_head", "num_heads", "n_heads")
    width = _number(config, "hidden_size", "n_embd", "d_model", "dim")
    if not (layers and heads and width):
        return
    head = _number(config, "head_dim", "d_kv") or width // heads
    shared = _number(config, "num_key_value_heads", "n_head_kv") or heads
    draft.context_tokens = _number(
        config, "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"
    )
    draft.kv_cache_token_bytes = 2 * layers * shared * head * _CACHE_BYTES


def _architecture(config: dict[str, Any], draft: Draft) -> None:
    given = config.get("architectures")
    name = given[0] if isinstance(given, list) and given and isinstance(given[0], str) else ""
    kind = config.get("model_type")
    draft.architecture_name = name or (kind if isinstance(kind, str) else "")
    version = config.get("transformers_version")
    draft.format_version = f"transformers {version}" if isinstance(version, str) else ""
    for family, pattern in _TASKS:
        if re.search(pattern, draft.architecture_name):
            draft.task = family
            break
    if config.get("num_local_experts") or config.get("num_experts"):
        draft.architecture = "mixture of experts"
    elif _number(config, "num_attention_heads", "n_head", "num_heads", "n_heads"):
        draft.architecture = "transformer"
    elif kind in {"resnet", "convnext", "mobilenet_v2", "mobilenet_v1", "efficientnet", "regnet"}:
        draft.architecture = "resnet" if kind == "resnet" else "cnn"
    elif kind in {"mamba", "mamba2", "rwkv"}:
        draft.architecture = "state space"


def _json(names: dict[str, Path], name: str, draft: Draft) -> dict[str, Any]:
    if name not in names:
        return {}
    with opened(names[name]) as source:
        try:
            return parsed(source)
        except MalformedError as error:
            draft.unknown("malformed", name, str(error))
            return {}


def _number(config: dict[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if type(value) is int and 0 < value < 1 << 40:
            return value
    return 0
