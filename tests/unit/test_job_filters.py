"""The filters of a job: how they are found, merged with a preset, and refused."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import orjson
import pytest

from shardline_common.curation import registry
from shardline_common.curation.presets import PRESET_NAMES, PRESETS
from shardline_common.curation.registry import FilterUnknown, FilterUnusable, filter_names, load_filter
from shardline_common.errors import JobInvalid
from shardline_common.job.filters import job_filters
from shardline_common.job.spec import JobSpec
from shardline_consumer.filters.length import FILTER
from tests.make import job

LENGTH = "shardline_consumer.filters.length:FILTER"


@pytest.fixture
def fresh() -> Iterator[None]:
    registry._installed.cache_clear()
    registry.load_filter.cache_clear()
    yield
    registry._installed.cache_clear()
    registry.load_filter.cache_clear()


def points(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    listed = [EntryPoint(name.rstrip("_"), value, registry.GROUP) for name, value in found.items()]
    monkeypatch.setattr(registry, "entry_points", lambda **_: listed)


def test_the_filters_of_shardline_are_entry_points() -> None:
    assert "length" in filter_names()
    assert load_filter("length") is FILTER


def test_an_unknown_filter_names_those_that_there_are() -> None:
    with pytest.raises(FilterUnknown) as error:
        load_filter("lenght")
    assert "length" in error.value.names


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"length": LENGTH, "length_": "another.package:FILTER"}, "both have a filter of the name length"),
        ({"length": "no.such.module:FILTER"}, "cannot be loaded: ModuleNotFoundError"),
        ({"length": "shardline_consumer.filters.length:Length"}, "is no FilterKind"),
        ({"lines": LENGTH}, "calls itself length"),
    ],
)
def test_a_filter_that_cannot_be_used_says_why(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, str], sentence: str
) -> None:
    points(monkeypatch, **found)
    with pytest.raises(FilterUnusable, match=sentence):
        load_filter(next(iter(found)))


@pytest.mark.usefixtures("fresh")
def test_a_filter_that_is_found_twice_in_one_package_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, length=LENGTH, length_=LENGTH)
    assert load_filter("length") is FILTER


@pytest.mark.usefixtures("fresh")
def test_a_job_without_filters_looks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(**_: str) -> None:
        raise AssertionError

    monkeypatch.setattr(registry, "entry_points", never)
    assert job().quality.filters == []


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        (
            [{"name": "lenght"}],
            "quality.filters.0.name: no such filter is installed; there are .*; did you mean `length`",
        ),
        ([{"name": "length", "max_word": 3}], "quality.filters.0.max_word: unknown field; did you mean"),
        (
            [{"name": "length", "max_words": "3"}],
            'quality.filters.0.max_words: expected .*, got the text "3"',
        ),
        (
            [{"name": "length"}, {"name": "length"}],
            "quality.filters.1.name: the filter length is named twice",
        ),
        ([{"name": "Length"}], "quality.filters.0.name: expected a text that matches"),
    ],
)
def test_a_wrong_filter_is_refused_with_the_path_of_the_parameter(
    filters: list[dict[str, object]], sentence: str
) -> None:
    with pytest.raises(JobInvalid, match=sentence):
        job(quality={"filters": filters})


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_each_preset_is_a_job(preset: str) -> None:
    spec = job(quality={"preset": preset})
    assert spec.quality.min_score == (0.5 if preset == "clara" else 0.0)
    assert [one.kind.name for one in job_filters(spec)] == list(PRESETS[spec.quality.preset])


def test_a_preset_leaves_a_given_score_as_it_is() -> None:
    assert job(quality={"preset": "strict", "min_score": 0.3}).quality.min_score == 0.3


def test_parameters_of_the_job_replace_those_of_the_preset_one_by_one() -> None:
    spec = job(quality={"preset": "web-de", "filters": [{"name": "length", "min_words": None}]})
    (length,) = (one for one in job_filters(spec) if one.kind is FILTER)
    preset = dict(PRESETS["web-de"]["length"])
    assert length.given == FILTER.parameters().model_dump() | preset | {"min_words": None}


def test_another_process_reads_a_job_whose_filters_it_lacks() -> None:
    spec = job(quality={"filters": [{"name": "length", "min_words": 3}]})
    body = orjson.loads(spec.body())
    body["quality"]["filters"][0]["name"] = "of_another_package"
    read = JobSpec.model_validate(body)
    assert orjson.loads(read.body()) == body
    assert read.digest != spec.digest


def test_a_process_without_a_job_with_filters_imports_none() -> None:
    code = (
        "import sys, shardline_consumer.worker, shardline_producer.coordinator\n"
        "import shardline.services.local_run\n"
        "print(*sorted(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = ("shardline_common.curation.text_facts", "shardline_consumer.curation.curator")
    assert not [name for name in loaded.split() if name in heavy or name.startswith("shardline_consumer.pii")]
