"""A control taken away, one at a time: which text goes, what comes in its place, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass

ENCRYPTION = "tests/security/test_encryption.py"
ATTACKS = "tests/security/test_attacks.py"
BOUNDARY = "tests/unit/test_boundary.py"
TOKENS = "tests/unit/test_tokens.py"
AUDIT = "tests/security/test_audit.py"
AUDIT_ROTATION = "tests/security/test_audit_rotation.py"
ROTATION = "tests/security/test_rotation.py"
RETENTION = "tests/security/test_retention.py"
RESTRICTION = "tests/security/test_restriction.py"
ERASURE = "tests/security/test_erasure.py"
BACKUP = "tests/security/test_backup.py"
REPLACE = "tests/unit/test_replace.py"
TOTP = "tests/security/test_totp.py"
ROLES = "tests/security/test_roles.py"
CLASSIFICATION = "tests/security/test_classification.py"
S3_LAKE = "tests/integration/test_s3_lake.py"


@dataclass(frozen=True)
class Deletion:
    """`old` stands once in `file`; `tests` are pytest arguments."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


SETTINGS = "warehouse/core/settings.py"
DATABASE = "warehouse/core/database.py"
LANDING = "ingestion/boundary.py"
LOG = "warehouse/privacy/audit.py"
TOKEN_CODE = "warehouse/privacy/tokens.py"  # a path
RULES = "warehouse/privacy/detections/rules.py"

DELETIONS = (
    Deletion(
        DATABASE, '"temp_file_encryption": "true"', '"temp_file_encryption": "false"', (ENCRYPTION, "-k", "spill")
    ),
    Deletion(
        DATABASE,
        '    connection.execute("SET enable_external_access = false")\n',
        "",
        (ATTACKS, "-k", "statement_gets_out"),
    ),
    Deletion(
        DATABASE, '    connection.execute("SET lock_configuration = true")\n', "", (ATTACKS, "-k", "statement_gets_out")
    ),
    Deletion(
        "ingestion/lake.py",
        "        f\"ENCRYPTION_CONFIG {{footer_key: '{key}'}})\"\n",
        '        ")"\n',
        (ENCRYPTION, "-k", "lake"),
    ),
    Deletion(
        SETTINGS,
        "if refused := sorted(_UNSAFE_OPTIONS & query.keys()):",
        "if refused := []:",
        (ENCRYPTION, "-k", "plain_address"),
    ),
    Deletion(
        SETTINGS, 'query.get("sslmode") == "verify-full"', '"sslmode" in query', (ENCRYPTION, "-k", "plain_address")
    ),
    Deletion(
        SETTINGS,
        'if self.kafka_bootstrap and self.kafka_security == "plaintext":',
        "if False:",
        (ENCRYPTION, "-k", "plain_address"),
    ),
    Deletion(
        "warehouse/core/kafka.py",
        '"ssl.endpoint.identification.algorithm": "https"',
        '"ssl.endpoint.identification.algorithm": "none"',
        (ENCRYPTION, "-k", "host_name and Kafka"),
    ),
    Deletion(LANDING, '    if leaf.data_class == "forbidden":\n        return []\n', "", (BOUNDARY,)),
    Deletion(
        LANDING,
        "not list_contains(known, k) and lower(k) not in ({_FORBIDDEN_LIST})",
        "not list_contains(known, k)",
        (BOUNDARY,),
    ),
    Deletion(
        LANDING,
        "regexp_full_match(message_key, '[A-Z]{2,16}[_-]?[0-9]{1,12}')",
        "true",
        ("tests/security/test_message_keys.py",),
    ),
    Deletion(
        LANDING,
        "            when json_type(v) in ('OBJECT', 'ARRAY')\n",
        "            when false\n",
        (BOUNDARY, ATTACKS, "-k", "smuggled or structure or shape or scalar"),
    ),
    Deletion(TOKEN_CODE, "encode({domain} || '|') || ", "", (TOKENS,)),
    Deletion(
        TOKEN_CODE,
        "when getvariable(name) is null then error('the token key is not set on this connection')::blob",
        "when getvariable(name) is null then ''::blob",
        (TOKENS,),
    ),
    Deletion(
        "ingestion/rekey.py", "        when _row_hash = {old} then {new}\n", "", (ROTATION, "-k", "nothing_lands_twice")
    ),
    Deletion(
        "warehouse/rotation.py",
        "        snapshot_rows = _rekey_snapshots(connection, version)\n",
        "        snapshot_rows = 0\n",
        (ROTATION, "-k", "nothing_lands_twice"),
    ),
    Deletion(
        "warehouse/rotation.py",
        "if (broken := _broken(before, after)) or before.tokens != after.tokens:",
        "if (broken := 0) or False:",
        (ROTATION, "-k", "not_hidden"),
    ),
    Deletion(
        "warehouse/core/locks.py",
        "        refuse_interrupted(settings)\n",
        "        pass\n",
        (ROTATION, "-k", "killed_lake"),
    ),
    Deletion(
        "warehouse/core/keys.py",
        "    if mode & 0o077:",
        "    if False:",
        ("tests/unit/test_status.py",),
    ),
    Deletion(LOG, "    if not signed:\n", "    if False:\n", (AUDIT, "-k", "tamper or head")),
    Deletion(
        LOG,
        "            if not _is_signed(line, ring.key_of(sequence))\n",
        "            if False\n",
        (AUDIT, "-k", "forged"),
    ),
    Deletion(
        LOG,
        "    if not _is_signed(line, signer.public):\n",
        "    if False:\n",
        (AUDIT, "-k", "forged"),
    ),
    Deletion(
        LOG,
        "        if first or chain.change or reached:\n",
        "        if reached:\n",
        (AUDIT_ROTATION, "-k", "forged or past"),
    ),
    Deletion(LOG, "        problems += ring.breaks()\n", "", (AUDIT_ROTATION, "-k", "forged")),
    Deletion(
        LOG,
        "        if not found.intact:\n            raise _broken(found.problems[0])\n",
        "",
        (AUDIT_ROTATION, "-k", "not_intact"),
    ),
    Deletion(
        "warehouse/file_keys.py",
        "    receipts = sign_receipts_anew(settings)\n",
        "    receipts: list[Path] = []\n",
        (AUDIT_ROTATION, "-k", "receipts"),
    ),
    Deletion(
        "warehouse/core/objects.py",
        '        if written.get("ServerSideEncryption") != ENCRYPTION:\n',
        "        if False:\n",
        (S3_LAKE, "-k", "written_anew"),
    ),
    Deletion(
        LOG,
        "        digest = None if statement is None else statement_digest(signer.seed, statement)\n",
        "        digest = statement\n",
        (AUDIT, "-k", "no_statement"),
    ),
    Deletion(
        "warehouse/privacy/scanner.py",
        "    return total % 10 == 0\n",
        "    return total % 10 == 1\n",
        ("tests/security/test_scanner.py",),
    ),
    Deletion(
        "macros/masking/suppress_small_groups.sql",
        "case when {{ group_size }} >= {{ k }}",
        "case when {{ group_size }} >= 1",
        (ATTACKS, "-k", "average or narrowed or crowd"),
    ),
    Deletion(
        RULES,
        'any(map(_is_personal_key, e.names("key"))) and e.code not in WRITERS',
        "False",
        ("tests/security/test_detections.py", "-k", "personal_key"),
    ),
    Deletion(
        "warehouse/privacy/breaches.py",
        "NOTIFY_WITHIN = timedelta(hours=72)",
        "NOTIFY_WITHIN = timedelta(hours=96)",
        ("tests/security/test_drill.py", "-k", "leaked_key and authority"),
    ),
    Deletion(
        "warehouse/dbt.py", "if name in _PASSED_ON or name.startswith(_PREFIXES)", "if name", (ATTACKS, "-k", "one_key")
    ),
    Deletion(
        "ingestion/sources/files/formats.py",
        "_EXPANSION = 200\n",
        "_EXPANSION = 10**9\n",
        (ATTACKS, "-k", "bomb and documents"),
    ),
    Deletion(
        "ingestion/sources/files/formats.py",
        "expanded > _EXPANSION_FREE + _EXPANSION * size or facts.num_rows",
        "facts.num_rows",
        (ATTACKS, "-k", "bomb and values"),
    ),
    Deletion(
        "ingestion/sources/files/formats.py",
        " or facts.num_rows > _ROWS_PER_BYTE * size:",
        ":",
        (ATTACKS, "-k", "bomb and rows"),
    ),
    Deletion(
        "ingestion/erasure.py",
        "    expired = expired_sql(connection, table) if ledger == LEDGER else None\n",
        "    expired = None\n",
        (RETENTION, "-k", "brings_it_back"),
    ),
    Deletion(
        "ingestion/retention.py",
        '    return f"({old} and not {held})" if held else old\n',
        "    return old\n",
        (RETENTION, "-k", "held_subject"),
    ),
    Deletion(
        "warehouse/exports.py",
        "    if not pseudonyms:\n",
        "    if pseudonyms or True:\n",
        (RESTRICTION, "-k", "no_export"),
    ),
    Deletion(
        "ingestion/erasure.py",
        "    named = None if table.keeps_erased else _named_sql(connection, table, ledger)\n",
        "    named = None\n",
        (ERASURE, "-k", "neither_replay"),
    ),
    Deletion(
        "warehouse/erasure/run.py",
        "    demand_no_hold(settings, canonical, wants_erasure=True)\n",
        "",
        (ERASURE, "-k", "hold_restricts"),
    ),
    Deletion(
        "warehouse/erasure/run.py",
        "    if report.findings or report.unopened:\n",
        "    if report.unopened:\n",
        (ERASURE, "-k", "what_is_left"),
    ),
    Deletion(
        "warehouse/erasure/run.py",
        '        "backups": erase_from_backups,\n',
        "",
        (BACKUP, "-k", "erased_from"),
    ),
    Deletion(
        "warehouse/erasure/receipt.py",
        "            signer.public.verify(signature, _message(receipt))\n",
        "",
        (ERASURE, "-k", "nothing_is_left"),
    ),
    Deletion(
        "warehouse/core/replace.py",
        "    overwritten = overwrite_room(connection, path, alias, untouched)\n",
        "    overwritten = 0\n",
        (REPLACE, "-k", "no_byte"),
    ),
    Deletion(
        "warehouse/privacy/scan.py",
        '            self.report.unopened[f"{channel}: {place}"] = searched\n',
        "",
        ("tests/security/test_scan.py", "-k", "cannot_be_searched"),
    ),
    Deletion("warehouse/core/replace.py", " if name not in changed}\n", "}\n", (REPLACE, "-k", "noticed")),
    Deletion("warehouse/core/replace.py", "        if not stale:\n", "        if True:\n", (REPLACE, "-k", "noticed")),
    Deletion(
        "warehouse/backup.py",
        "    verify_contents(place)\n",
        "",
        (BACKUP, "-k", "damaged"),
    ),
    Deletion(
        "warehouse/backup.py",
        "    _merge(settings, ledger)\n",
        "",
        (BACKUP, "-k", "could_reach"),
    ),
    Deletion(
        "warehouse/privacy/scan.py",
        "not self.findings and not self.unopened and bool(self.files)",
        "not self.findings and bool(self.files)",
        ("tests/security/test_scan.py", "-k", "does_not_open"),
    ),
    Deletion(
        "warehouse/privacy/scan.py",
        "not self.findings and not self.unopened and bool(self.files)",
        "not self.findings and not self.unopened",
        ("tests/security/test_scan.py", "-k", "proves_nothing"),
    ),
    Deletion("warehouse/privacy/totp.py", "    if matching[-1] <= enrolment.last_step:\n", "    if False:\n", (TOTP,)),
    Deletion("warehouse/privacy/totp.py", "        if enrolment.closed_until > now:\n", "        if False:\n", (TOTP,)),
    Deletion("warehouse/privacy/totp.py", "        if role not in enrolment.roles:\n", "        if False:\n", (TOTP,)),
    Deletion(
        "warehouse/privacy/authorisation.py",
        "    if power not in policy.role(role).powers:\n",
        "    if False:\n",
        (TOTP,),
    ),
    Deletion(
        "warehouse/privacy/subject_keys.py",
        "    return _SEPARATOR.join((owner, source, table, row_key, path))\n",
        "    return owner\n",
        ("tests/security/test_vault.py", "-k", "moved"),
    ),
    Deletion(
        "warehouse/privacy/roles.py",
        "if rule is None or found is None or not rule.covers(relation.name):",
        "if rule is None or found is None:",
        (ROLES, "-k", "exactly or planted"),
    ),
    Deletion(
        "warehouse/exports.py",
        "where {' and '.join(conditions) or 'true'}",
        "where true",
        (ROLES, "-k", "only_its_rows"),
    ),
    Deletion(
        "warehouse/exports.py",
        "        lock_down(connection)\n        yield connection\n",
        "        yield connection\n",
        (ROLES, "-k", "locked_down"),
    ),
    Deletion(
        "warehouse/privacy/lineage.py",
        "trace for trace in found if trace.part not in self._breakers[name]",
        "trace for trace in found if False",
        (CLASSIFICATION, "-k", "breaker"),
    ),
    Deletion(
        "warehouse/privacy/classification.py",
        "    if forged := breakers_used(sql) - called:\n",
        "    if forged := set():\n",
        (CLASSIFICATION, "-k", "broken_project"),
    ),
    Deletion(
        "macros/masking/suppress_small_groups.sql",
        "{% if diversity is not none %} and {{ diversity }} >= {{ l }}{% endif %}",
        "",
        (ATTACKS, "-k", "average or narrowed or crowd"),
    ),
    Deletion(
        "warehouse/query.py",
        "        raise _explain(connection, error) from None\n",
        "        raise ConfigurationError(str(error)) from None\n",
        (ATTACKS, "-k", "quotes_no_row"),
    ),
    Deletion(
        "ingestion/sources/files/drops.py",
        "    return entry.is_dir(follow_symlinks=False)\n",
        "    return entry.is_dir()\n",
        (ATTACKS, "-k", "point_out"),
    ),
    # seen only where the process ends half-way
    Deletion(
        "warehouse/erasure/run.py",
        "        receipt.steps[name] = step(settings, plan)\n        mark_done(settings, plan, name)\n",
        "        mark_done(settings, plan, name)\n        receipt.steps[name] = step(settings, plan)\n",
        (ERASURE, "-k", "interrupted_before_and_after"),
    ),
    Deletion(
        "warehouse/retention.py",
        "    drop_from_vault(settings, report.tables)\n",
        "    if gone:\n        drop_from_vault(settings, report.tables)\n",
        (RETENTION, "-k", "killed_anywhere"),
    ),
    Deletion(
        "warehouse/rotation.py",
        "        if state.exists():\n",
        "        if False:\n",
        (ROTATION, "-k", "before_a_kill"),
    ),
)
