"""The values that a field of a model accepts, in words. Made from its type, for the sentences of faults."""

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

_MAX_VALUE = 60
_PATTERNS = {
    r"^[a-z0-9][a-z0-9-]{0,62}$": "a text of a-z, 0-9 and dashes, at most 63 characters, not a dash first",
    r"\S": "a text with a visible character",
}
_WORDS = {bool: "true or false", NoneType: "null", Path: "a path", SecretStr: "a text"}


def describe_value(value: object) -> str:
    """A value as the message shows it: its JSON, with the kind of a text named. Long ones are cut."""
    if isinstance(value, str):
        if not value:
            return "an empty text"
        length = f" of {len(value):,} characters" if len(value) > _MAX_VALUE else ""
        return f"the text{length} {_cut(json.dumps(value, ensure_ascii=False))}"
    if isinstance(value, Mapping | BaseModel):
        return "an object"
    if isinstance(value, list | tuple | AbstractSet):
        return f"a list of {len(value):,}" if value else "an empty list"
    if value is None or isinstance(value, bool | int | float):
        return _cut(json.dumps(value))
    return f"a {type(value).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + "…"


def kinds_of(value: object) -> set[str]:
    """The JSON kinds of a value."""
    if isinstance(value, Mapping | BaseModel):
        return {"object"}
    if isinstance(value, list | tuple | AbstractSet):
        return {"list"}
    return {"scalar"}


@dataclass(frozen=True)
class Place:
    """A place in a model: its annotation without null, and the limits of its values.

    `root` is the model in which names of other places are looked up.
    """

    annotation: Any
    limits: tuple[Any, ...] = ()
    nullable: bool = False
    discriminator: str | None = None
    root: type[BaseModel] | None = field(default=None, compare=False)

    @property
    def model(self) -> type[BaseModel] | None:
        """The model at this place, or None."""
        return (
            self.annotation
            if isinstance(self.annotation, type) and issubclass(self.annotation, BaseModel)
            else None
        )

    @cached_property
    def fields(self) -> dict[str, "Place"]:
        """The places of the model's fields, by the names that a message has."""
        if self.model is None:
            return {}
        return {
            info.alias or name: _place(info.annotation, self.root, (info,))
            for name, info in self.model.model_fields.items()
        }

    @property
    def extra(self) -> "Place | None":
        """The place of the values whose names the message chooses; None where the model has no such names."""
        if self.model is None or self.model.model_config.get("extra") != "allow":
            return None
        hints = get_type_hints(self.model, include_extras=True)
        return _place(get_args(hints["__pydantic_extra__"])[1], self.root)

    @property
    def is_union(self) -> bool:
        """Whether there are several branches, besides null."""
        return get_origin(self.annotation) in (Union, UnionType)

    @cached_property
    def branches(self) -> list["Place"]:
        """The branches of a union."""
        return [_place(one, self.root) for one in get_args(self.annotation) if one is not NoneType]

    @cached_property
    def tagged(self) -> dict[str, "Place"]:
        """The branches by the values of the field that chooses among them."""
        name = self.discriminator or ""
        return {
            str(choice): branch
            for branch in self.branches
            for choice in (branch.fields[name].choices if name in branch.fields else ())
        }

    @property
    def items(self) -> "Place | None":
        """The place of a list's items or of an object's values."""
        arguments = get_args(self.annotation)
        return _place(arguments[-1], self.root) if self._container and arguments else None

    @property
    def keys(self) -> "Place | None":
        """The place of an object's names."""
        return _place(get_args(self.annotation)[0], self.root) if self._container == "object" else None

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a closed list, of all branches."""
        if get_origin(self.annotation) is Literal:
            return get_args(self.annotation)
        return tuple(one for branch in self.branches for one in branch.choices) if self.is_union else ()

    @property
    def kinds(self) -> set[str]:
        """The JSON kinds that fit."""
        if self.is_union:
            return set().union(*(branch.kinds for branch in self.branches))
        return {"object" if self.model else self._container or "scalar"}

    @property
    def is_scalar(self) -> bool:
        """Whether no list or object fits."""
        return self.kinds == {"scalar"}

    @property
    def name(self) -> str:
        """The name by which pydantic calls a model among the branches of a union."""
        return getattr(self.annotation, "__name__", str(self.annotation))

    @property
    def _container(self) -> str | None:
        origin = get_origin(self.annotation) or self.annotation
        if not isinstance(origin, type) or issubclass(origin, str | bytes):
            return None
        if issubclass(origin, Mapping):
            return "object"
        return "list" if issubclass(origin, Sequence | AbstractSet) else None

    @property
    def text(self) -> str:
        """What fits, in words."""
        return _either([*self._texts, "null"] if self.nullable else self._texts)

    @property
    def _texts(self) -> list[str]:
        if self.discriminator and self.is_union:
            return [f"an object whose `{self.discriminator}` is {_either(list(self.tagged))}"]
        if self.is_union:
            return list(dict.fromkeys(text for branch in self.branches for text in branch._texts))  # noqa: SLF001 - of this class
        return [self._text]

    @property
    def _text(self) -> str:
        if self.choices:
            shown = [one if isinstance(one, str) else json.dumps(one) for one in self.choices]
            return f"one of {', '.join(shown)}" if len(shown) > 1 else json.dumps(self.choices[0])
        if "scalar" not in self.kinds:
            return self._list_text() if "list" in self.kinds else self._object_text()
        return self._scalar_text()

    def _object_text(self) -> str:
        inner = self.items
        return f"an object whose values are each {inner.text}" if inner and inner.is_scalar else "an object"

    def _list_text(self) -> str:
        least, most = self._limit(MinLen, name="min_length") or 0, self._limit(MaxLen, name="max_length")
        size = "a list"
        if most is not None:
            size += f" of {least} to {most:,}"
        elif least:
            size += f" of at least {least}"
        inner = self.items
        return f"{size}, each {inner.text}" if inner else size

    def _scalar_text(self) -> str:
        if self.annotation in (int, float):
            return ("a whole number" if self.annotation is int else "a number") + self._bounds()
        if self.annotation is str:
            return self._string_text()
        return _WORDS.get(self.annotation, "another value")

    def _string_text(self) -> str:
        pattern = next((found for one in self.limits if (found := getattr(one, "pattern", None))), None)
        if pattern:
            return _PATTERNS.get(str(pattern), f"a text that matches {pattern}")
        least, most = self._limit(MinLen, name="min_length"), self._limit(MaxLen, name="max_length")
        if most is not None:
            return f"a text of {f'{least} to ' if least else 'at most '}{most:,} characters"
        return "a text that is not empty" if least else "a text"

    def _bounds(self) -> str:
        least, most = self._limit(Ge, name="ge"), self._limit(Le, name="le")
        above, below = self._limit(Gt, name="gt"), self._limit(Lt, name="lt")
        if least is not None and most is not None:
            return f" from {least} to {most}"
        words = [
            f"{word} {limit}"
            for word, limit in (
                ("of at least", least),
                ("above", above),
                ("of at most", most),
                ("below", below),
            )
            if limit is not None
        ]
        return f" {' and '.join(words)}" if words else ""

    def _limit(self, *kinds: type, name: str) -> Any:
        return next((getattr(one, name) for one in self.limits if isinstance(one, kinds)), None)

    def paths_of(self, name: str, above: tuple[str, ...] = ()) -> list[str]:
        """The paths of the fields of this name in the models below this place."""
        found = []
        for branch in [*self.branches, self] if self.is_union else [self]:
            for one, place in branch.fields.items():
                if one == name and above:
                    found.append(".".join((*above, one)))
                found += place.paths_of(name, (*above, one))
        return list(dict.fromkeys(found))


def place_of(model: type[BaseModel]) -> Place:
    """The place of a whole model."""
    return Place(model, root=model)


def place_of_field(info: FieldInfo) -> Place:
    """The place of one field of its own, such as a parameter of a request."""
    return _place(info.annotation, None, (info,))


def _place(annotation: Any, root: type[BaseModel] | None, limits: Iterable[Any] = ()) -> Place:
    found, nullable, discriminator = list(limits), False, None
    while True:
        if hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        elif get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            found += more
        elif get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation):
            rest = tuple(one for one in get_args(annotation) if one is not NoneType)
            annotation, nullable = (Union[rest], True)  # noqa: UP007 - made of a tuple
        else:
            break
    flat: list[Any] = []
    for one in found:
        flat += one.metadata if isinstance(one, FieldInfo) else [one]
        if isinstance(one, FieldInfo) and isinstance(one.discriminator, str):
            discriminator = one.discriminator
    return Place(annotation, tuple(flat), nullable, discriminator, root)


def _either(texts: list[str]) -> str:
    if any("," in text for text in texts[:-1]):
        return ", or ".join(texts)
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " or " + texts[-1]
