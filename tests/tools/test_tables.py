"""Tables of an agent's folder, and what a query of them may do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.tools import ToolContext, ToolRunner
from service.tools.sources.base import SourceFault
from service.tools.sources.tables import TableTools
from service.tools.tables import MAX_RESULT_ROWS, Column, QueryFailed, Table, Tables

MakeContext = Callable[..., ToolContext]
USAGE = "month,plan,teams,price,code\n2026-01,Crew,6100,1.5,007\n2026-02,Fleet,,2,008\n"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "usage.csv").write_text(USAGE)
    return tmp_path


def test_types_are_inferred_plainly(folder: Path) -> None:
    columns = (
        Column("month", "TEXT", ("2026-01", "2026-02")),
        Column("plan", "TEXT", ("Crew", "Fleet")),
        Column("teams", "INTEGER"),
        Column("price", "REAL"),
        Column("code", "TEXT", ("007", "008")),
    )
    assert Tables(folder / "tables").tables == (Table("usage", columns, 2),)


def test_the_tool_lists_its_tables_and_answers(folder: Path, context: MakeContext) -> None:
    query_table = TableTools().tools(folder)["query_table"]
    assert "usage(month TEXT of '2026-01'/'2026-02'" in query_table.description
    assert (query_table.risk, query_table.idempotent) == ("read", True)
    asked = {"sql": "SELECT plan, teams FROM usage ORDER BY plan"}
    result = ToolRunner().call(query_table, asked, context())
    assert json.loads(result.content) == {
        "columns": ["plan", "teams"],
        "rows": [["Crew", 6100], ["Fleet", None]],
    }


def test_a_folder_without_tables_has_no_tool(tmp_path: Path) -> None:
    assert TableTools().tools(tmp_path) == {}
    (tmp_path / "tables").mkdir()
    assert TableTools().tools(tmp_path) == {}


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE usage",
        "INSERT INTO usage VALUES (1, 2, 3, 4, 5)",
        "UPDATE usage SET teams = 1",
        "DELETE FROM usage",
        "CREATE TEMP TABLE more (a)",
        "ATTACH '/tmp/more.db' AS more",
        "VACUUM INTO '/tmp/more.db'",
        "PRAGMA table_info(usage)",
        "SELECT * FROM pragma_table_info('usage')",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_schema",
        "SELECT load_extension('more')",
        "SELECT randomblob(1000000000)",
        "SELECT printf('%1000000000d', 1)",
        "SELECT zeroblob(1000000000)",
        "BEGIN",
        "SELECT 1; DROP TABLE usage",
        "",
        "-- nothing",
        "SELECT nothing FROM usage",
        "SELECT",
        "SELECT " + "x" * 5_000,
    ],
)
def test_only_one_select_is_run(folder: Path, sql: str) -> None:
    tables = Tables(folder / "tables")
    with pytest.raises(QueryFailed) as failed:
        tables.query(sql)
    assert str(failed.value)
    assert tables.query("SELECT count(*) FROM usage").rows == [[2]]


@pytest.mark.parametrize("rest", ["SELECT count(*) FROM c", "SELECT x FROM c ORDER BY x DESC"])
def test_an_endless_query_is_stopped(folder: Path, rest: str) -> None:
    with pytest.raises(QueryFailed, match="took longer"):
        Tables(folder / "tables").query(ENDLESS + rest, seconds=0.2)


def test_values_that_grow_are_stopped(folder: Path) -> None:
    grown = "'aaaaaaaaaa'"
    for _ in range(8):
        grown = f"replace({grown}, 'a', 'aaaaaaaaaa')"
    with pytest.raises(QueryFailed, match="too much data"):
        Tables(folder / "tables").query(f"SELECT {grown}")


LONG = "(SELECT " + "replace(" * 3 + "'xxxxxxxxxx'" + ", 'x', 'xxxxxxxxxx')" * 3 + " AS s)"


@pytest.mark.parametrize(
    "found",
    [
        "instr(s, substr(s, 1, 5000) || 'y')",
        "replace(s, substr(s, 1, 5000) || 'y', 'z')",
        "trim(s, substr(replace(s, 'x', 'yz'), 1, 5000))",
        "replace(s, 'x', s)",
    ],
)
def test_texts_whose_search_takes_long_are_refused(folder: Path, found: str) -> None:
    with pytest.raises(QueryFailed, match="too much data"):
        Tables(folder / "tables").query(f"SELECT {found} FROM {LONG}")


def test_text_functions_are_stopped_too(folder: Path) -> None:
    with pytest.raises(QueryFailed, match="took longer"):
        Tables(folder / "tables").query(
            f"{ENDLESS}SELECT sum(instr(s, 'y' || x)) FROM c, {LONG}", seconds=0.2
        )


def test_text_functions_are_sqlites(folder: Path) -> None:
    """NULL gives NULL, a number is its text."""
    asked = (
        "SELECT instr('abc', 'c'), instr('abc', 'x'), instr(NULL, 'x'), replace('a-b', '-', ''), "
        "replace('ab', '', 'x'), replace(105, 0, 1), trim('xaxx', 'x'), ltrim('xa', 'x'), rtrim('ax', 'x'), "
        "trim('  a '), instr('über', 'b')"
    )
    expected = [3, 0, None, "ab", "ab", "115", "a", "a", "a", "a", 2]
    assert Tables(folder / "tables").query(asked).rows == [expected]


def test_a_long_result_is_cut_and_says_so(folder: Path, context: MakeContext) -> None:
    query_table = TableTools().tools(folder)["query_table"]
    result = ToolRunner().call(query_table, {"sql": ENDLESS + "SELECT x, 'y' FROM c"}, context())
    told = json.loads(result.content)
    assert len(told["rows"]) == MAX_RESULT_ROWS and "more rows" in told["note"]


@pytest.mark.parametrize(
    ("file", "text", "place", "words"),
    [
        ("usage.csv", b"", ("tables/usage.csv", 1), "header"),
        ("usage.csv", b"month,Month 2\n", ("tables/usage.csv", 1), "'Month 2' must match"),
        ("usage.csv", b"a,a\n", ("tables/usage.csv", 1), "twice"),
        ("usage.csv", b"a,b\n1,2\n\n1,2,3\n", ("tables/usage.csv", 4), "has 3 cells, the header 2"),
        ("usage.csv", b'a\n"x', ("tables/usage.csv", 2), "not CSV"),
        ("usage.csv", b"a\n\xff\n", ("tables/usage.csv", 0), "UTF-8"),
        ("usage.csv", b"a\n" + b"x" * 2_001 + b"\n", ("tables/usage.csv", 2), "2000 characters"),
        ("usage.csv", b"a\n" + b"1\n" * 100_001, ("tables", 0), "100000 rows"),
        ("usage.csv", b"a\n" + b"1" * 5_000_000, ("tables/usage.csv", 0), "bytes"),
        ("My usage.csv", b"a\n", ("tables/My usage.csv", 0), "file name"),
        ("sqlite_a.csv", b"a\n", ("tables/sqlite_a.csv", 0), "file name"),
    ],
)
def test_a_fault_names_file_and_line(
    folder: Path, file: str, text: bytes, place: tuple[str, int], words: str
) -> None:
    (folder / "tables" / file).write_bytes(text)
    with pytest.raises(SourceFault, match=words) as caught:
        TableTools().tools(folder)
    assert (caught.value.file, caught.value.line) == place
