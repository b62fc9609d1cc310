"""Publishing: what readers get, that they are never disturbed, and that they can do nothing but read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pytest

from tests.conftest import MakeSettings
from tests.integration.small_warehouse import build
from warehouse.core.database import open_published, open_warehouse
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.paths import Home
from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.publish import is_current, new_copy, publish, publish_accounts


def quiet(_: str) -> None:
    """Progress for nobody."""


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    """A small warehouse, not published yet."""
    settings = make_settings(tmp_path / "home")
    build(settings)
    return settings


def products(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [
        name for (name,) in connection.execute("select product_name from public.dim_product order by all").fetchall()
    ]


def rename_product(settings: Settings, name: str) -> None:
    with open_warehouse(settings) as connection:
        connection.execute("update public.dim_product set product_name = ?", [name])


def test_readers_see_marts_and_bookkeeping_and_nothing_else(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        connection.execute("create view public.products as select product_name from public.dim_product")
        connection.execute("create schema features")
        connection.execute("create table features.customer as select 1 as feature")
        connection.execute("create schema public_dbt_test__audit")
        connection.execute("create table public_dbt_test__audit.failures as select 'x' as value")

    report = publish(settings, quiet)

    with open_published(settings) as connection:
        found = connection.execute("select table_schema, table_name from information_schema.tables").fetchall()
        tables = {f"{schema}.{table}" for schema, table in found}
        assert connection.execute("select * from public.products").fetchall() == [("Laptop",)]
    assert tables == set(report.tables)
    assert {name.split(".")[0] for name in tables} == {"public", "features", "raw_ops"}
    assert {name for name in tables if name.startswith("raw_")} == {"raw_ops.load_manifest", "raw_ops.run_steps"}
    assert report.tables["public.fct_sales"] == 2
    assert report.bytes == Home.of(settings).published.stat().st_size


def test_example_query_runs_verbatim(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        connection.execute("update public.dim_product set total_sell = 150")
    publish(settings, quiet)
    with open_published(settings) as connection:
        rows = connection.execute(
            """
            SELECT p.product_name, p.category, p.total_sell
            FROM OLAP_STRIP_PROJECT.PUBLIC.Dim_product p
            WHERE p.total_sell > 100;
            """
        ).fetchall()
    assert rows == [("Laptop", "Electronics", 150)]


def test_copy_is_encrypted_under_its_own_key_and_private(settings: Settings) -> None:
    publish(settings, quiet)
    published = Home.of(settings).published
    assert published.stat().st_mode & 0o777 == 0o600
    assert b"Laptop" not in published.read_bytes()
    other = Home.of(settings).keys / "lake.key"
    (Home.of(settings).keys / "published.key").write_text(other.read_text())
    with pytest.raises(ConfigurationError, match="does not open with this key"), open_published(settings):
        pass


def test_descriptions_of_the_manifest_become_comments(settings: Settings) -> None:
    node = {
        "schema": "public",
        "alias": "dim_product",
        "description": "One row per product; it's current.",
        "columns": {
            "product_name": {"description": "What it's called."},
            "gone": {"description": "Not in the table."},
        },
    }
    target = Home.of(settings).dbt_target
    target.mkdir()
    (target / "manifest.json").write_text(json.dumps({"nodes": {"model.x.dim_product": node}}))

    publish(settings, quiet)

    with open_published(settings) as connection:
        assert connection.execute(
            "select comment from duckdb_tables() where table_name = 'dim_product'"
        ).fetchall() == [("One row per product; it's current.",)]
        assert connection.execute("select comment from duckdb_columns() where column_name = 'product_name'").fetchall()[
            0
        ] == ("What it's called.",)


def test_where_only_the_accounts_of_runs_are_new_only_they_are_copied(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        connection.execute("create table ops.ops_run_steps as select 'first' as run_id")
        connection.execute("comment on column ops.ops_run_steps.run_id is 'Which run.'")
    publish(settings, quiet)
    with open_published(settings) as reader:
        rename_product(settings, "Tablet")  # the planted change: had everything been copied, readers would see it
        with open_warehouse(settings) as connection:
            connection.execute("insert into ops.ops_run_steps values ('second')")
        assert publish_accounts(settings) == [
            ("ops", "ops_run_steps"),
            ("raw_ops", "load_manifest"),
            ("raw_ops", "run_steps"),
        ]
        assert reader.execute("select * from ops.ops_run_steps").fetchall() == [("first",)]
    with open_published(settings) as reader:
        assert reader.execute("select * from ops.ops_run_steps order by all").fetchall() == [("first",), ("second",)]
        assert products(reader) == ["Laptop"]
        assert reader.execute("select count(*) from public.fct_sales").fetchall() == [(2,)]
    assert Home.of(settings).published.stat().st_mode & 0o777 == 0o600
    assert b"second" not in Home.of(settings).published.read_bytes()


def test_a_published_copy_is_current_until_something_is_built_or_changes_its_length(settings: Settings) -> None:
    state = Home.of(settings).build_state
    assert not is_current(settings), "nothing is published"
    state.write_text("{}")
    publish(settings, quiet)
    assert is_current(settings)
    with open_warehouse(settings) as connection:
        connection.execute("create table public.dim_longer as select 1 as n")
    assert not is_current(settings), "there is one table more"
    publish(settings, quiet)
    with open_warehouse(settings) as connection:
        connection.execute("insert into public.dim_longer values (2)")
    assert not is_current(settings), "there is one row more"
    publish(settings, quiet)
    assert is_current(settings)
    later = Home.of(settings).published.stat().st_mtime + 1
    os.utime(state, (later, later))
    assert not is_current(settings), "something was built since"
    state.unlink()
    assert not is_current(settings), "nobody knows what was built"


def test_open_reader_keeps_its_copy_through_a_swap(settings: Settings) -> None:
    publish(settings, quiet)
    with open_published(settings) as reader:
        rename_product(settings, "Tablet")
        publish(settings, quiet)
        assert products(reader) == ["Laptop"]
    with open_published(settings) as reader:
        assert products(reader) == ["Tablet"]


def test_reader_in_another_process_keeps_its_copy_through_a_swap(settings: Settings) -> None:
    publish(settings, quiet)
    reader = subprocess.Popen(
        [sys.executable, "-c", _READER, str(settings.warehouse_home)],
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    assert reader.stdout.readline() == "Laptop\n"
    rename_product(settings, "Tablet")
    publish(settings, quiet)
    answer, _ = reader.communicate("again\n", timeout=60)
    assert answer == "Laptop\n"
    assert reader.returncode == 0


_READER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from warehouse.core.database import open_published
    from warehouse.core.settings import load_settings

    with open_published(load_settings(warehouse_home=Path(sys.argv[1]))) as connection:
        for _ in range(2):
            print(connection.execute("select product_name from public.dim_product").fetchone()[0], flush=True)
            sys.stdin.readline()
    """
)


def test_failure_at_the_swap_keeps_the_old_copy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(settings, quiet)
    rename_product(settings, "Tablet")

    def fail(self: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(WarehouseError) as caught:
            publish(settings, quiet)

    assert "stays readable" in caught.value.kept
    assert not new_copy(Home.of(settings).published).exists()
    with open_published(settings) as reader:
        assert products(reader) == ["Laptop"]
    publish(settings, quiet)
    with open_published(settings) as reader:
        assert products(reader) == ["Tablet"]


def test_full_disk_keeps_the_old_copy(settings: Settings) -> None:
    """A real refusal to write: the process may not make a file of more than 4 MB, the copy needs about 16."""
    publish(settings, quiet)
    with open_warehouse(settings) as connection:
        connection.execute(
            "create table public.fct_big as"
            " select md5(i::varchar) || md5((i + 1)::varchar) as big_key from range(200000) as numbers(i)"
        )
    assert settings.dbt_env_secret_warehouse_key is not None
    outcome = subprocess.run(
        [sys.executable, "-c", _LIMITED_PUBLISH, str(settings.warehouse_home)],
        cwd=PROJECT_ROOT,
        input=settings.dbt_env_secret_warehouse_key.get_secret_value(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    error = json.loads(outcome.stdout)
    assert "no space left" in error["what"]
    assert "stays readable" in error["kept"]
    assert "warehouse publish" in error["todo"]
    assert sorted(path.name for path in Home.of(settings).published.parent.iterdir()) == [
        Home.of(settings).published.name
    ]
    with open_published(settings) as reader:
        assert products(reader) == ["Laptop"]


_LIMITED_PUBLISH = textwrap.dedent(
    """
    import json, resource, signal, sys
    from pathlib import Path
    from warehouse.core.errors import WarehouseError
    from warehouse.core.settings import load_settings
    from warehouse.publish import publish

    settings = load_settings(warehouse_home=Path(sys.argv[1]), dbt_env_secret_warehouse_key=sys.stdin.read())
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
    try:
        publish(settings, lambda _: None)
    except WarehouseError as error:
        print(json.dumps(error.to_dict()))
    """
)


def test_half_written_copy_of_a_killed_run_is_replaced(settings: Settings) -> None:
    new = new_copy(Home.of(settings).published)
    new.parent.mkdir(parents=True)
    new.write_bytes(b"half a database")
    publish(settings, quiet)
    assert not new.exists()
    with open_published(settings) as reader:
        assert products(reader) == ["Laptop"]


def test_nothing_to_publish_is_a_clear_error(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "home")
    with open_warehouse(settings):
        pass
    with pytest.raises(ConfigurationError, match="no marts yet"):
        publish(settings, quiet)
    assert not Home.of(settings).published.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_csv('{file}')",
        "select * from read_text('{file}')",
        "select * from '{file}'",
        "select * from glob('/*')",
        "copy (select 1) to '{home}/out.csv'",
        "copy public.dim_product to '{home}/out.parquet'",
        "export database '{home}/out'",
        "attach '{home}/other.duckdb'",
        "attach '{home}/warehouse.duckdb' as writer (encryption_key 'x')",
        "install spatial",
        "load '{home}/extensions/x.duckdb_extension'",
        "select * from 'https://127.0.0.1:9/x.parquet'",
        "set enable_external_access = true",
        "set threads = 1",
        "reset lock_configuration",
        "create secret (type s3, key_id 'x', secret 'y')",
        "create table public.mine as select 1",
        "insert into public.dim_product from public.dim_product",
        "update public.dim_product set product_name = 'x'",
        "drop table public.dim_product",
        "comment on table public.dim_product is 'x'",
    ],
)
def test_locked_connection_refuses(published: Settings, tmp_path: Path, statement: str) -> None:
    file = tmp_path / "readable.csv"
    file.write_text("a,b\n1,2\n")
    before = set(published.warehouse_home.rglob("*"))
    with open_published(published) as connection:
        with pytest.raises(duckdb.Error):
            connection.execute(statement.format(file=file, home=published.warehouse_home)).fetchall()
        assert products(connection) == ["Laptop"]
    assert set(published.warehouse_home.rglob("*")) == before


def test_unlocked_connection_would_allow_it(published: Settings, tmp_path: Path) -> None:
    """The refusals above come from the lock, not from a mistake in the statements."""
    file = tmp_path / "readable.csv"
    file.write_text("a,b\n1,2\n")
    with open_published(published, locked_down=False) as connection:
        assert connection.execute(f"select * from read_csv('{file}')").fetchall() == [(1, 2)]
        connection.execute("set threads = 1")


def test_key_cannot_be_seen_from_sql(published: Settings) -> None:
    key = (Home.of(published).keys / "published.key").read_text().strip()
    with open_published(published) as connection:
        for statement in (
            "select * from duckdb_databases()",
            "select * from duckdb_settings()",
            "from pragma_database_list",
        ):
            assert key not in str(connection.execute(statement).fetchall())


@pytest.fixture(scope="module")
def published(make_settings: MakeSettings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A small warehouse, published."""
    settings = make_settings(tmp_path_factory.mktemp("published") / "home")
    build(settings)
    publish(settings, quiet)
    return settings
