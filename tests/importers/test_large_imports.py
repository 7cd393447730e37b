"""Exports that are read in several ranges: the same rows, the same errors and the same secrets as of one range."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.errors import ResultError
from kvbench.importers import aiperf, guidellm, json_members, line_ranges, source_copy, write_result
from kvbench.importers.json_members import MemberReader, NotAnObjectError, Place
from kvbench.result import redact
from kvbench.result.files import read_json
from kvbench.result.rows import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parents[1] / "data" / "aiperf"


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def small_ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of 5 kB, and a machine with so many processors."""
    monkeypatch.setattr(line_ranges, "RANGE_BYTES", 5000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)))


def records(count: int = 40) -> Iterator[dict[str, Any]]:
    """Records of two phases whose order of ending is not that of sending."""
    one = json.loads((DATA / "two_phases" / aiperf.RECORDS).read_text().splitlines()[-1])
    for number in range(count):
        told = {
            "x_request_id": f"id-{number}",
            "request_start_ns": 10**18 + (number ^ 1) * 10**6,
            "credit_issued_ns": 10**18 + (number ^ 1) * 10**6,
            "request_end_ns": 10**18 + (number ^ 1) * 10**6 + 500_000,
            "phase_name": "second" if number >= count // 2 else "first",
        }
        yield one | {"metadata": one["metadata"] | told}


def lines() -> list[str]:
    return [json.dumps(one) for one in records()]


@pytest.mark.usefixtures("small_ranges")
def test_ranges_end_at_line_ends_and_leave_nothing_out(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines()))
    found = list(line_ranges.map_ranges(len, path))
    assert len(found) > 6
    assert [one.offset for one, _ in found[1:]] == [one.offset + one.length for one, _ in found[:-1]]
    assert sum(length for _, length in found) == path.stat().st_size
    assert {path.read_bytes()[one.offset + one.length - 1 :][:1] for one, _ in found[:-1]} == {b"\n"}


@pytest.mark.usefixtures("small_ranges")
def test_many_ranges_make_the_rows_of_one(tmp_path: Path) -> None:
    path = tmp_path / "profile_export.jsonl"
    path.write_text("\n".join(lines()) + "\n")
    folder = write_result.import_result("aiperf", path, tmp_path / "results")
    first, second = (read_rows(folder / "runs" / f"r01-{name}") for name in ("first", "second"))
    assert [row.request_id for row in first] == [f"r01-first/{n:03d}-id-{n ^ 1}" for n in range(20)]
    assert [row.sent_ns for row in second] == [10**18 + n * 10**6 for n in range(20, 40)]
    record = read_json(folder / "runs" / "r01-second" / "run.json")
    assert record["load_s"] == pytest.approx(0.0195)  # 20 ms of sending less one step, and 0.5 ms
    assert record["ledger"]["prompt_tokens"] == 20 * 206
    assert (folder / "source" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("small_ranges")
def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "profile_export.jsonl"
    broken = lines()
    broken[30] = broken[30][:-9]
    path.write_text("\n\n".join(broken))
    with pytest.raises(ResultError, match=r"profile_export.jsonl:61 is not a JSON object"):
        write_result.import_result("aiperf", path, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("small_ranges")
def test_secrets_are_taken_out_of_their_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "profile_export.jsonl"
    written = lines()
    written[3] = json.dumps(json.loads(written[3]) | {"headers": [["X-API-Key", "k-1"]]})
    written[33] = json.dumps(json.loads(written[33]) | {"url": "http://u:p@host/"})
    written[34] = json.dumps(json.loads(written[34]) | {"text": "a secret word and no secret"})
    path.write_text("\n".join(written) + "\n")
    folder = write_result.import_result("aiperf", path, tmp_path / "results")
    copied = (folder / "source" / path.name).read_text().splitlines()
    assert [place for place, pair in enumerate(zip(copied, written, strict=True)) if pair[0] != pair[1]] == [3, 33]
    assert json.loads(copied[3])["headers"] == [["X-API-Key", "[hidden]"]]
    assert read_json(folder / "facts.json")["imported"]["secrets_hidden"] == 2


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("is_document", [False, True])
def test_a_large_file_is_compressed_without_its_secrets(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_document: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(source_copy, "MOST_PLAIN_BYTES", 1000)
    path = tmp_path / "x.jsonl"
    parts = [*lines(), json.dumps({"api_key": "abc"})]
    path.write_text("[" + ",\n".join(parts) + "]\n" if is_document else "\n".join(parts) + "\n")
    copied = source_copy.copy_without_secrets(path, tmp_path / "source")
    assert (copied.name, copied.hidden) == ("x.jsonl.zst", 1)
    with (tmp_path / "source" / copied.name).open("rb") as file:
        content = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    kept = json.loads(content) if is_document else [json.loads(line) for line in content.splitlines()]
    assert kept == [*map(json.loads, lines()), {"api_key": "[hidden]"}]
    path.write_text(path.read_text().replace('"abc"', "null"))
    assert source_copy.copy_without_secrets(path, tmp_path / "source").hidden == 0


def test_metrics_of_the_export_beside_it_fill_what_no_chunk_tells(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    raw = [json.loads(line) for line in (DATA / "two_phases" / aiperf.RAW).read_text().splitlines()]
    for one in raw:
        for message in one["responses"]:
            message["packets"] = [p for p in message["packets"] if "prompt_tokens" not in p["value"]]
    (folder / aiperf.RAW).write_text("\n".join(map(json.dumps, raw)))
    (folder / aiperf.RECORDS).write_bytes((DATA / "two_phases" / aiperf.RECORDS).read_bytes())
    alone, both = aiperf.read(folder / aiperf.RAW), aiperf.read(folder)
    assert [part.requests["isl"].null_count for part in alone.parts] == [6, 4]
    assert [part.requests["isl"].null_count for part in both.parts] == [0, 0]
    assert both.parts[1].requests["isl"].to_pylist() == [106, 206, 106, 206]


SECRETS = [
    {"Authorization": "Basic dXNlcjpwYXNz"},
    {"args": '{"headers": {"authorization": "Bearer abcdefgh1"}}'},
    ["aiperf --api-key abc"],
    ["http://u:p@host/v1?key=abc&token=1"],
    {"name": "x-auth-token", "value": "abc"},
    {"id_token": "abc"},
    {"Proxy-Authorization": ["abc"]},
    {"my_secret_word": "abc"},
    {"passwd": "abc"},
    ["Cookie: a=b"],
    ["bearer\nabcdefgh1"],
    ["hf_abcdefghijklmnop"],
    ["x?access_token=abc"],
]


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("secret", SECRETS)
def test_the_search_for_secrets_never_finds_too_little(secret: Any, escaped: bool) -> None:  # noqa: FBT001
    content = json.dumps({"a": secret, "b": 1})
    if escaped:
        content = content.replace("a", "\\u0061").replace("k", "\\u006b").replace("/", "\\/")
    assert redact.without_named_secrets(json.loads(content)) != json.loads(content)
    assert source_copy._is_suspect(content.encode())


@given(st.recursive(st.text() | st.sampled_from([str(one) for one in SECRETS]), st.lists, max_leaves=4))
def test_what_the_search_passes_over_holds_no_secret(value: Any) -> None:
    content = json.dumps(value)
    if redact.without_named_secrets(value) != value:
        assert source_copy._is_suspect(content.encode())


JSON = st.recursive(
    st.none() | st.integers() | st.text('ab\\"{}[],: \n') | st.sampled_from(["requests", "\\", '"', "\\\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"{[\\'), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.lists(st.dictionaries(st.text('ab"{[\\'), JSON, max_size=3), max_size=4)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lists=st.lists(st.dictionaries(st.sampled_from(["good", "bad", "total"]), MEMBERS), max_size=3),
    other=JSON,
    indent=st.sampled_from([None, 1]),
    block_bytes=st.integers(1, 40),
)
def test_members_and_the_rest_are_the_document(
    lists: list[dict[str, Any]], other: Any, indent: int | None, block_bytes: int, tmp_path: Path
) -> None:
    document = {"a": other, "outer": [{"x": other, "middle": one, "y": other} for one in lists], "z": {"outer": other}}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document, indent=indent))
    reader = MemberReader("outer", "middle", ("good", "bad"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_members, "_BLOCK_BYTES", block_bytes)
        with path.open("rb") as file:
            found = [(place, json.loads(one.read(file))) for place, one in reader.members(path)]
    wanted = [
        (Place(number, name), member)
        for number, one in enumerate(lists)
        for name in one
        if name != "total"
        for member in one[name]
    ]
    assert found == wanted
    for one in lists:
        one.update({name: [] for name in one if name != "total"})
    assert reader.rest == document


@pytest.mark.parametrize(
    ("members", "number"), [("[1]", 0), ('[{}, "x"]', 1), ("[{}, []]", 1), ("[{}, {}, null, {}]", 2)]
)
def test_a_member_that_is_no_object_is_named(members: str, number: int, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(f'{{"outer": [{{}}, {{"middle": {{"good": {members}}}}}]}}')
    reader = MemberReader("outer", "middle", ("good",))
    with pytest.raises(NotAnObjectError) as caught:
        list(reader.members(path))
    assert (caught.value.place, caught.value.number) == (Place(1, "good"), number)


def test_a_report_in_small_blocks_is_the_same_source(monkeypatch: pytest.MonkeyPatch) -> None:
    path = DATA.parent / "guidellm" / "warmup.json"
    whole = guidellm.read(path)
    monkeypatch.setattr(json_members, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(guidellm, "_BATCH", 2)
    assert guidellm.read(path) == whole
    monkeypatch.setattr(line_ranges, "RANGE_BYTES", 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert guidellm.read(path) == whole
