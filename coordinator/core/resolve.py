"""What a model's name stands for now: the latest version, a version, or an alias. Pure."""

from __future__ import annotations

from coordinator.core.model import Rejected, State
from coordinator.core.registered import Model
from hivefold.errors import Reason
from hivefold.ids import ModelRef, alias_ref, model_ref, parse_alias, parse_model


def resolve(state: State, text: str) -> Model | None:
    """The registered version that "name" (the latest), "name@version" or "name@alias" stands for, if there is one."""
    named = parse_model(text)
    if named is not None:
        name, version = named
        return state.models.get(model_ref(name, version or state.latest.get(name, 0)))
    aliased = parse_alias(text)
    alias = state.aliases.get(alias_ref(*aliased)) if aliased else None
    return state.models.get(alias.model) if alias else None


def unknown_model(state: State, text: str) -> Rejected:
    """The refusal of a name that stands for nothing."""
    return Rejected(Reason.MODEL_NOT_FOUND, _message(state, text), (("model", text),))


def _message(state: State, text: str) -> str:
    aliased = parse_alias(text)
    if aliased is not None:
        name, alias = aliased
        known = ", ".join(sorted(a.alias for a in state.aliases.values() if a.name == name)[:10]) or "none"
        return (
            f"there is no alias {alias!r} of model {name!r}; aliases of it: {known}; "
            f"set one with: hivefold model alias {name}@{alias} VERSION"
        )
    if ModelRef(text) in state.removed:
        return f"{text} was removed; list the models with: hivefold model ls"
    known = ", ".join(sorted(state.models)[:10]) or "none yet"
    return f"there is no model {text!r}; registered: {known}; list them with: hivefold model ls"
