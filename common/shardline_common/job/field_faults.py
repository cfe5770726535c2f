"""Sentences about the fields of a message that do not fit: what is expected, and what is there.

Pydantic's own messages speak of tags, unions and inputs, and name each type of a union as a fault of its
own. Here the place of an error is looked up in the model. The sentence is made from the type of that place
and from the value, so it does not depend on the kind of error that pydantic found.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shardline_common.job.expected import Place, describe_value, kinds_of, place_of

_OWN_SENTENCES = ("value_error", "assertion_error")
_MAX_NAMES = 40
_CUTOFF = 0.7
_MIN_START = 2
_PLAIN = {
    "missing": "the field is missing",
    "extra_forbidden": "unknown field",
    "json_invalid": "this is not JSON",
}
Part = int | str


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the field at `path`.

    `sentence` does not contain the value; `got` is the value in words, or "". `near` is the name that was
    meant, or None. `kind` is pydantic's name of the error.
    """

    path: tuple[Part, ...]
    kind: str
    sentence: str
    got: str = ""
    near: str | None = None

    @property
    def without_value(self) -> str:
        """The fault in words, without the value: for one that may be secret or long."""
        return self.sentence + self._meant

    def __str__(self) -> str:
        where = ".".join(map(str, self.path))
        text = self.sentence + (f", got {self.got}" if self.got else "") + self._meant
        return f"{where}: {text}" if where else text

    @property
    def _meant(self) -> str:
        return f"; did you mean `{self.near}`?" if self.near else ""


@dataclass(frozen=True, slots=True)
class _Error:
    """An error of pydantic, with the part of its location that is still to be followed."""

    rest: tuple[Part, ...]
    details: ErrorDetails


def find_faults(error: ValidationError, model: type[BaseModel], value: object) -> list[Fault]:
    """The faults of a value that is no such model, in the order of the errors."""
    return faults_of(error.errors(include_url=False), model, value)


def faults_of(errors: Iterable[ErrorDetails], model: type[BaseModel], value: object) -> list[Fault]:
    """As `find_faults`, from the errors of a library that hands on pydantic's."""
    found = [_Error(tuple(item["loc"]), item) for item in errors]
    return list(dict.fromkeys(_follow(place_of(model), (), value, found)))


def did_you_mean(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like a name, or None."""
    by_form: dict[str, str] = {}
    for one in known:
        by_form.setdefault(_form(one), one)
    if not isinstance(name, str):
        return None
    form = _form(name)
    near = get_close_matches(form, by_form, n=1, cutoff=_CUTOFF)
    # An abbreviation is too short to be alike: `gz` for `gzip`.
    near += [one for one in by_form if len(form) >= _MIN_START and one.startswith(form)]
    return by_form[near[0]] if near else None


def first_fault(error: ValidationError) -> tuple[str, str]:
    """The path of the first field of a stored record that does not fit, and what is wrong with it.

    The value itself is left out.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(str(part) for part in first["loc"]), plain_sentence(first)


def plain_sentence(details: ErrorDetails) -> str:
    """An error of pydantic in words, where the model of the field is not at hand."""
    kind = details["type"]
    if kind in _OWN_SENTENCES:
        return str(details.get("ctx", {}).get("error", details["msg"]))
    return _PLAIN.get(kind, "the value has another type than expected, or is out of range")


def list_names(names: Collection[str]) -> str:
    """The names in one line, cut when there are very many."""
    shown = [str(name) for name in names][:_MAX_NAMES]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


def _form(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


def _follow(place: Place, path: tuple[Part, ...], value: object, errors: Sequence[_Error]) -> Iterator[Fault]:
    """The faults at a place and below it."""
    if place.discriminator and place.is_union:
        yield from _follow_tagged(place, path, value, errors)
        return
    if place.is_union:
        yield from _follow_union(place, path, value, errors)
        return
    if here := [one.details for one in errors if not one.rest]:
        yield from _fault_here(place, path, value, here)
    for part, below in _by_part(errors):
        yield from _follow_part(place, path, value, part, below)


def _fault_here(
    place: Place, path: tuple[Part, ...], value: object, errors: Sequence[ErrorDetails]
) -> Iterator[Fault]:
    for item in errors:
        if item["type"] in _OWN_SENTENCES:
            own = item.get("ctx", {}).get("error", item["msg"])
            yield Fault(path, item["type"], str(own))
        else:
            yield _unexpected(place, path, value, item["type"])


def _unexpected(place: Place, path: tuple[Part, ...], value: object, kind: str) -> Fault:
    near = did_you_mean(value, map(str, place.choices))
    return Fault(path, kind, f"expected {place.text}", describe_value(value), near)


def _follow_part(
    place: Place, path: tuple[Part, ...], value: object, part: Part, errors: Sequence[_Error]
) -> Iterator[Fault]:
    kind = errors[0].details["type"]
    below = (*path, part)
    if place.model is not None:
        if (field := place.fields.get(str(part)) or place.extra) is None:
            yield _unknown_field(place, below, value, kind)
        elif any(not one.rest and one.details["type"] == "missing" for one in errors):
            yield Fault(below, "missing", f"the field is missing; expected {field.text}")
        else:
            yield from _follow(field, below, _item(value, part), errors)
    elif any(one.rest[:1] == ("[key]",) for one in errors) and place.keys is not None:
        near = did_you_mean(part, place.keys.choices)
        yield Fault(below, kind, "unknown name" if near else f"the name is not {place.keys.text}", near=near)
    elif place.items is None:
        # A type that is not known here has errors below itself. The type of the place still says what fits.
        yield _unexpected(place, path, value, kind)
    else:
        yield from _follow(place.items, below, _item(value, part), errors)


def _unknown_field(place: Place, path: tuple[Part, ...], value: object, kind: str) -> Fault:
    name = str(path[-1])
    if near := did_you_mean(name, place.fields):
        return Fault(path, kind, "unknown field", near=near)
    own, elsewhere = ".".join(map(str, path)), place_of(place.root).paths_of(name) if place.root else []
    names = list_names(list(place.fields))
    if own in elsewhere and isinstance(value, Mapping) and "type" in value:
        return Fault(path, kind, f"unknown field of the type {value['type']}, which has {names}")
    if elsewhere:
        return Fault(path, kind, "unknown field here", near=elsewhere[0])
    owner = f"`{path[-2]}` has" if len(path) > 1 and isinstance(path[-2], str) else "there are"
    return Fault(path, kind, f"unknown field; {owner} {names}")


def _follow_tagged(
    place: Place, path: tuple[Part, ...], value: object, errors: Sequence[_Error]
) -> Iterator[Fault]:
    """A union whose branch a field chooses: the location names the branch first."""
    tag_name, branches = place.discriminator or "", place.tagged
    fits = f"expected one of {list_names(list(branches))}"
    for item in (one.details for one in errors if not one.rest):
        kind = item["type"]
        if kind in _OWN_SENTENCES:
            yield from _fault_here(place, path, value, [item])
        elif not isinstance(value, Mapping):
            yield _unexpected(place, path, value, kind)
        elif tag_name not in value:
            yield Fault((*path, tag_name), "missing", f"the field is missing; {fits}")
        else:
            tag = value[tag_name]
            yield Fault((*path, tag_name), kind, fits, describe_value(tag), did_you_mean(tag, branches))
    for tag, below in _by_part(errors):
        yield from _follow(branches.get(str(tag), place), path, value, below)


def _follow_union(
    place: Place, path: tuple[Part, ...], value: object, errors: Sequence[_Error]
) -> Iterator[Fault]:
    """A union of which pydantic tried every branch: the location names the branch first.

    Errors within a branch count only when the value is of its kind: an object for a model, a list for a list.
    """
    own = [one.details for one in errors if not one.rest]
    if own:
        yield from _fault_here(place, path, value, own)
        return
    inside = [(part, below) for part, below in _by_part(errors) if any(map(_is_inside, below))]
    fitting = [branch for branch in place.branches if not branch.is_scalar and kinds_of(value) & branch.kinds]
    if inside and fitting:
        named = {branch.name: branch for branch in fitting}
        part, below = next((one for one in inside if one[0] in named), inside[0])
        yield from _follow(named.get(str(part), fitting[0]), path, value, below)
    else:
        yield _unexpected(place, path, value, errors[0].details["type"])


def _is_inside(error: _Error) -> bool:
    return bool(error.rest) or error.details["type"] in _OWN_SENTENCES


def _by_part(errors: Iterable[_Error]) -> Iterable[tuple[Part, list[_Error]]]:
    found: dict[Part, list[_Error]] = {}
    for one in errors:
        if one.rest:
            found.setdefault(one.rest[0], []).append(_Error(one.rest[1:], one.details))
    return found.items()


def _item(value: object, part: Part) -> object:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, Sequence) and isinstance(part, int) and part < len(value):
        return value[part]
    return getattr(value, str(part), None)
