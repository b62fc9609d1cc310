"""The lake: what is sealed is complete, ordered, encrypted and found out when it changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from ingestion.lake import SEAL, Lake, write_part
from warehouse.core.database import add_lake_key, blank_connection
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.paths import Home
from warehouse.core.settings import Settings

PLANTED = "planted-token-7f3a"


@pytest.fixture
def settings(tmp_path: Path, make_settings) -> Settings:
    return make_settings(tmp_path / "home", lake_uri=None)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings)


@pytest.fixture
def connection(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = blank_connection(settings)
    add_lake_key(connection, settings)
    yield connection
    connection.close()


def land(connection: duckdb.DuckDBPyConnection, lake: Lake, load_id: str, *part_rows: int, seal: bool = True) -> None:
    rows = {}
    for number, count in enumerate(part_rows):
        path = lake.part_path("oltp", "customer", load_id, number)
        rows[path.name] = write_part(connection, f"select range, '{PLANTED}' as v from range({count})", path)
    if seal:
        lake.seal("oltp", "customer", load_id, {"rows": rows, "run_id": "r1"})


def test_parts_lie_in_the_home_by_source_table_and_load(settings: Settings, lake: Lake) -> None:
    expected = Home.of(settings).lake / "oltp" / "customer" / "20240101T000000Z" / "part-00003.parquet"
    assert lake.part_path("oltp", "customer", "20240101T000000Z", 3) == expected
    assert lake.load_folder("oltp", "customer", "20240101T000000Z") == expected.parent


def test_lake_uri_names_another_folder(tmp_path: Path, make_settings) -> None:
    folder = tmp_path / "my lake"
    settings = make_settings(tmp_path / "home", lake_uri=folder.as_uri())
    assert Lake(settings).root == folder


@pytest.mark.parametrize("uri", ["s3://", "s3://k:w@bucket/l", "https://example.org/lake", "file://host/lake", "lake"])
def test_other_addresses_are_refused_by_name(tmp_path: Path, make_settings, uri: str) -> None:
    with pytest.raises(ConfigurationError, match="LAKE_URI"):
        Lake(make_settings(tmp_path / "home", lake_uri=uri))


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b", "x\n"])
def test_no_name_leaves_the_lake(lake: Lake, name: str) -> None:
    with pytest.raises(ValueError, match="may hold"):
        lake.load_folder("oltp", "customer", name)
    with pytest.raises(ValueError, match="may hold"):
        lake.sealed_loads("oltp", name)


def test_a_written_part_is_encrypted_and_read_back_with_the_key(
    connection: duckdb.DuckDBPyConnection, lake: Lake, settings: Settings
) -> None:
    path = lake.part_path("oltp", "customer", "l1", 0)
    assert write_part(connection, f"select range, '{PLANTED}' as v from range(10)", path) == 10
    assert PLANTED.encode() not in path.read_bytes()
    assert [child.name for child in path.parent.iterdir()] == [path.name]
    read = f"select count(*), min(v) from read_parquet('{path}', encryption_config = {{footer_key: 'lake'}})"
    assert connection.execute(read).fetchone() == (10, PLANTED)
    with pytest.raises(duckdb.Error):
        connection.execute(f"select * from read_parquet('{path}')")


def test_a_failed_part_has_no_final_name(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    path = lake.part_path("oltp", "customer", "l1", 0)
    with pytest.raises(duckdb.Error):
        write_part(connection, "select if(range = 9000, error('stop'), range) from range(10000)", path)
    assert not path.exists()


def test_a_path_with_a_quote_is_a_path(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "it's" / "part.parquet"
    assert write_part(connection, "select 1 as one", path) == 1
    assert path.is_file()


def test_the_seal_says_what_every_file_is(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    land(connection, lake, "l1", 3, 4)
    folder = lake.load_folder("oltp", "customer", "l1")
    manifest = json.loads((folder / SEAL).read_text())
    assert manifest["run_id"] == "r1"
    assert manifest["files"] == [
        {
            "name": name,
            "rows": rows,
            "bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name, rows in (("part-00000.parquet", 3), ("part-00001.parquet", 4))
    ]
    (load,) = lake.sealed_loads("oltp", "customer")
    assert (load.load_id, load.rows, load.manifest) == ("l1", 7, manifest)
    assert [file.path.name for file in load.files] == ["part-00000.parquet", "part-00001.parquet"]
    assert load.size == sum(file["bytes"] for file in manifest["files"])


def test_a_load_without_rows_can_be_sealed(lake: Lake) -> None:
    lake.seal("oltp", "customer", "l1", {"rows": {}})
    (load,) = lake.sealed_loads("oltp", "customer")
    assert (load.files, load.rows, load.size) == ((), 0, 0)


@pytest.mark.parametrize("rows", [{}, {"part-00000.parquet": 3}, {"part-00000.parquet": 3, "part-00002.parquet": 4}])
def test_files_that_were_not_counted_are_not_sealed(
    connection: duckdb.DuckDBPyConnection, lake: Lake, rows: dict[str, int]
) -> None:
    land(connection, lake, "l1", 3, 4, seal=False)
    with pytest.raises(LoadIncomplete, match="2 files were written"):
        lake.seal("oltp", "customer", "l1", {"rows": rows})
    assert lake.sealed_loads("oltp", "customer") == []


def test_only_sealed_loads_count_oldest_first_and_the_rest_is_discarded(
    connection: duckdb.DuckDBPyConnection, lake: Lake
) -> None:
    land(connection, lake, "20240102", 1)
    land(connection, lake, "20240103", 1, seal=False)
    land(connection, lake, "20240101", 1)
    assert [load.load_id for load in lake.sealed_loads("oltp", "customer")] == ["20240101", "20240102"]
    assert lake.discard_unsealed("oltp", "customer") == ["20240103"]
    assert not lake.load_folder("oltp", "customer", "20240103").exists()
    assert [load.load_id for load in lake.sealed_loads("oltp", "customer")] == ["20240101", "20240102"]


def test_a_table_that_never_landed_has_no_loads(lake: Lake) -> None:
    assert lake.sealed_loads("oltp", "customer") == []
    assert lake.discard_unsealed("oltp", "customer") == []


def test_an_untouched_load_verifies_and_a_changed_or_missing_file_is_named(
    connection: duckdb.DuckDBPyConnection, lake: Lake
) -> None:
    land(connection, lake, "l1", 5, 5)
    (load,) = lake.sealed_loads("oltp", "customer")
    load.verify()
    changed = bytearray(load.files[1].path.read_bytes())
    changed[len(changed) // 2] ^= 1
    load.files[1].path.write_bytes(changed)
    with pytest.raises(LoadIncomplete, match=r"part-00001\.parquet is not what was sealed"):
        load.verify()
    load.files[0].path.unlink()
    with pytest.raises(LoadIncomplete, match=r"part-00000\.parquet is missing"):
        load.verify()
