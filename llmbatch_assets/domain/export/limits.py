"""The limits of export formats, and what an export will exceed, as far as the table and schema show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from llmbatch_assets.domain.export.columns import Column
from llmbatch_assets.domain.export.records import Join
from llmbatch_assets.domain.text import counted, cut, utf16_length
from llmbatch_assets.errors import ConfigError

# https://support.microsoft.com/en-us/office/excel-specifications-and-limits-1672b34d-7043-467e-8e27-269d656771c3
XLSX_ROWS = 1_048_576
XLSX_COLUMNS = 16_384
XLSX_CHARS = 32_767

_NAME_CHARS = 60


def require_columns_fit(formats: Collection[str], columns: Sequence[Column]) -> None:
    """Raise ``ConfigError`` if a format cannot hold that many columns."""
    if "xlsx" in formats and len(columns) > XLSX_COLUMNS:
        raise ConfigError(
            f"outputs.formats: the export has {len(columns):,} columns, but an xlsx sheet holds at most {XLSX_COLUMNS:,}; "
            "remove xlsx"
        )


def size_warnings(formats: Collection[str], columns: Sequence[Column], join: Join) -> list[str]:
    """Warnings about rows and cells that a format cannot hold as they are. Outputs may add to them."""
    if "xlsx" not in formats:
        return []
    # Each sheet has a header row.
    n_records, n_per_sheet = _fewest_records(join), XLSX_ROWS - 1
    warnings = []
    if n_records > n_per_sheet:
        warnings.append(
            f"outputs.formats: {n_records:,} records need {-(-n_records // n_per_sheet)} xlsx sheets, because a sheet has "
            f"{XLSX_ROWS:,} rows; programs that read only the first sheet miss the rest"
        )
    warnings += [_long_name(column.name) for column in columns if _is_too_long(column.name)]
    return [*warnings, *_long_cells(join)]


def _fewest_records(join: Join) -> int:
    """The number of records if every item gets an output; a lower bound if it depends on the outputs."""
    if join.mode == "rows" or (join.mode == "expand" and not join.max_rows_per_group):
        return join.snapshot.n_rows
    sizes = Counter(row.get(join.grouping_column, "") for row in join.snapshot.rows)
    if join.mode == "expand":
        return sum(min(size, join.max_rows_per_group) for size in sizes.values())
    return len(sizes) if join.mode == "one" else 0


def _long_cells(join: Join) -> list[str]:
    long = Counter(name for row in join.snapshot.rows for name in join.input_columns if _is_too_long(row.get(name, "")))
    return [
        f"outputs.formats: {counted(number, 'cell')} of column {_shown(name)} will be cut in xlsx at {XLSX_CHARS:,} "
        "characters, Excel's limit; the other formats keep the whole text"
        for name, number in long.items()
    ]


def _long_name(name: str) -> str:
    return (
        f"outputs.formats: the name of column {_shown(name)} will be cut in xlsx at {XLSX_CHARS:,} characters, Excel's "
        "limit; the other formats keep it"
    )


def _shown(name: str) -> str:
    return repr(cut(name, _NAME_CHARS)[0])


def _is_too_long(text: str) -> bool:
    # Excel counts UTF-16 units, at most two for each character.
    return len(text) > XLSX_CHARS // 2 and utf16_length(text) > XLSX_CHARS
