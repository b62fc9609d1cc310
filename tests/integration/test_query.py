"""`warehouse query`: rows in every format, and errors that help without showing a value."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest

from tests.conftest import MakeSettings
from tests.integration.small_warehouse import build
from warehouse.core.errors import ConfigurationError
from warehouse.core.settings import Settings
from warehouse.publish import publish
from warehouse.query import FORMATS, QueryError, run_query, write

ROW = """
    select
        'Ana "the" Ñ' as name, 12345678901234.5678::decimal(18, 4) as amount, 7 as units,
        sum(1) as total, null::varchar as nothing, '2024-01-02 03:04:05+00'::timestamptz as at
"""


@pytest.fixture(scope="module")
def settings(make_settings: MakeSettings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A small warehouse, published."""
    settings = make_settings(tmp_path_factory.mktemp("query") / "home")
    build(settings)
    publish(settings, lambda _: None)
    return settings


def written(settings: Settings, sql: str, output_format: str) -> bytes:
    stream = io.BytesIO()
    write(run_query(settings, sql), output_format, stream)  # parametrised
    assert not stream.closed
    return stream.getvalue()


def test_public_is_the_default_schema(settings: Settings) -> None:
    assert run_query(settings, "select product_name from Dim_product").to_pylist() == [{"product_name": "Laptop"}]


def test_csv(settings: Settings) -> None:
    assert written(settings, ROW, "csv").decode() == (
        '"name","amount","units","total","nothing","at"\n'
        '"Ana ""the"" Ñ",12345678901234.5678,7,1,,2024-01-02 03:04:05.000000Z\n'
    )


def test_json_keeps_every_digit(settings: Settings) -> None:
    assert json.loads(written(settings, ROW, "json")) == [
        {
            "name": 'Ana "the" Ñ',
            "amount": "12345678901234.5678",
            "units": 7,
            "total": 1,
            "nothing": None,
            "at": "2024-01-02T03:04:05Z",
        }
    ]


def test_parquet(settings: Settings) -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(written(settings, ROW, "parquet")))
    assert table["amount"].to_pylist() == [Decimal("12345678901234.5678")]
    assert table.num_columns == 6


def test_table_for_people(settings: Settings) -> None:
    text = written(settings, "select 'Laptop' as product_name, 150 as total_sell", "table").decode()
    assert "product_name" in text
    assert "│        150 │" in text
    assert "1 row" in text


def test_a_value_cannot_drive_the_terminal(settings: Settings) -> None:
    text = written(settings, "select chr(27) || '[31mred' || chr(7) as value, '[bold]not markup[/bold]' as b", "table")
    assert b"\x1b[31m" not in text
    assert b"\x07" not in text
    assert b"[bold]not markup[/bold]" in text


@pytest.mark.parametrize("output_format", FORMATS)
def test_no_rows(settings: Settings, output_format: str) -> None:
    assert written(settings, "select product_name from public.dim_product where false", output_format)


def test_unknown_table_suggests_close_names(settings: Settings) -> None:
    with pytest.raises(QueryError, match="no published table dim_prodcut") as caught:
        run_query(settings, "select * from dim_prodcut")
    assert "public.dim_product" in caught.value.todo


@pytest.mark.parametrize(
    "sql",
    [
        "select product_name::integer from public.dim_product",
        "select cast(product_name as date) from public.dim_product",
        "select error(product_name) from public.dim_product",
        "select strptime(product_name, '%Y') from public.dim_product",
        "select product_name::json from public.dim_product",
    ],
)
def test_errors_never_show_a_value(settings: Settings, sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        run_query(settings, sql)
    assert "Laptop" not in json.dumps(caught.value.to_dict())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_syntax_error_says_where(settings: Settings) -> None:
    with pytest.raises(QueryError, match='at or near "selec"'):
        run_query(settings, "selec 1")


def test_locked_door_is_explained(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="reads the published warehouse and nothing else"):
        run_query(settings, f"copy (select 1) to '{tmp_path}/out.csv'")
    assert not list(tmp_path.glob("out*"))


def test_nothing_published_is_a_clear_error(make_settings: MakeSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing has been published yet"):
        run_query(make_settings(tmp_path / "home"), "select 1")
