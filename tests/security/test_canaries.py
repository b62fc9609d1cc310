"""The proof: 12 classes of personal data in 8 encodings go into every source, and none is found in what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeSettings, RecordFigure
from tests.security.canary_plants import SOURCES
from warehouse.core.database import open_warehouse
from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.privacy.canaries import CANARIES, ENCODINGS, planted
from warehouse.privacy.scan import Needle, Scan
from warehouse.privacy.scan_home import scan_home, tool_pages
from warehouse.privacy.vault import entries_of, open_vault


@pytest.mark.parametrize("how", ENCODINGS)
def test_every_planted_form_would_be_found(how: str) -> None:
    """Without this the zero below proves nothing."""
    missed = []
    for (name, encoding), text in planted().items():
        scan = Scan([Needle(name, CANARIES[name])])
        scan.content("test", "content", f'{{"a": "{text}"}}'.encode())
        if encoding == how and name not in {finding.what for finding in scan.report.findings}:
            missed.append(name)
    assert not missed


@pytest.mark.parametrize("how", ENCODINGS)
def test_every_planted_form_would_be_found_in_a_column(tmp_path: Path, make_settings: MakeSettings, how: str) -> None:
    settings = make_settings(tmp_path)
    scan = Scan([Needle(name, value) for name, value in CANARIES.items()])
    with open_warehouse(settings) as connection:
        connection.execute("create table leak (document varchar)")
        forms = [(text,) for (_, encoding), text in planted().items() if encoding == how]
        connection.executemany("insert into leak values (?)", forms)
        scan.relation("test", connection, "leak", "leak")
    assert {finding.what for finding in scan.report.findings} >= set(CANARIES)


def test_the_vault_knows_the_planted(planted_company: Settings) -> None:
    """They did go through: what the search does not find was read, and put away."""
    with open_vault(planted_company) as vault:
        owners = [owner for (owner,) in vault.execute("select owner from vault.main.subject_key").fetchall()]
        held = entries_of(vault, planted_company, owners)
    for source in ("oltp", "mongodb"):
        assert {entry.value for entry in held if entry.source == source} >= set(planted().values())
    with open_warehouse(planted_company, read_only=True) as connection:
        events = connection.execute(
            "select count(*) from raw_stream.payments_transactions "
            "where json_extract_string(document, '$.transaction_id') = 'TXNKANARI'"
        ).fetchone()
        assert events == (2 * len(planted()),)
        quarantined = connection.execute("select count(*) from raw_ops.quarantine where source = 'stream'").fetchone()
        assert quarantined
        assert quarantined[0] >= 5


def test_none_is_found_in_every_byte_and_column(planted_company: Settings, record_figure: RecordFigure) -> None:
    report = scan_home(planted_company, project=PROJECT_ROOT, baseline=tool_pages())
    assert not report.findings, "\n".join(map(str, report.findings))
    assert report.unopened == {}
    assert report.clean
    record_figure(
        f"canaries: {len(CANARIES)} classes x {len(ENCODINGS)} encodings in {len(SOURCES)} sources",
        f"{len(report.findings)} found in {sum(report.bytes.values()):,} bytes of {sum(report.files.values()):,} files "
        f"and {sum(report.columns.values()):,} columns of {sum(report.rows.values()):,} rows",
        "0 found",
    )
