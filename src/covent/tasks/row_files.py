"""Rows of data sets as plain Python values, each with its place: JSON Lines, Parquet, folders that `datasets` saved.

What is wrong with one line is said about that line; what is wrong with a file ends the reading of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from covent.errors import DataError, MissingExtraError, MissingPathError
from covent.tasks.base import Split

_TEXT_ENDINGS = (".jsonl", ".ndjson", ".json")
_SPLITS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


class RawRow(NamedTuple):
    """One row as it stands in its file."""

    place: str
    """`file:line`, or `file, row n`, counted from 1."""
    values: dict[str, Any] | None
    """None if the line is no row."""
    problem: str
    """What is wrong with the line; empty for a row."""
    text: str
    """Its beginning, for a person."""


def rows(path: Path) -> Iterator[RawRow]:
    """All rows of a file, or of a folder's files in the order of their names.

    Raises:
        MissingPathError: there is nothing at `path`, or no data in the folder.
        MissingExtraError: it is Parquet or a saved data set, and pyarrow is not installed.
        DataError: a file is not what its name says.
    """
    if not path.exists():
        raise MissingPathError(f"No data at '{path}'. Give a .jsonl or .parquet file, or a folder with such files.")
    files = data_files(path)
    for file in files:
        yield from _file_rows(file)
    if not files:
        raise MissingPathError(
            f"The folder '{path}' holds no .jsonl, .parquet or .arrow file. Give one that does, or a file."
        )


def split_folders(path: Path) -> dict[Split, Path]:
    """The folders of the splits of a `datasets.DatasetDict` that was saved to disk; empty for anything else."""
    listing = path / "dataset_dict.json"
    if not listing.is_file():
        return {}
    try:
        names = json.loads(listing.read_text(encoding="utf-8"))["splits"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{listing} does not list splits: {error}") from error
    return {_SPLITS[name]: path / name for name in names if name in _SPLITS}


def data_files(path: Path) -> list[Path]:
    """The files that `rows` reads, in its order."""
    return [path] if path.is_file() else _files(path)


def _files(folder: Path) -> list[Path]:
    state = folder / "state.json"
    if state.is_file():
        try:
            saved = json.loads(state.read_text(encoding="utf-8"))
            files = [folder / Path(each["filename"]).name for each in saved["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{state} does not list the files of a data set: {error}") from error
        if saved.get("_indices_data_files"):
            raise DataError(
                f"{folder} was saved with an index over its rows; call flatten_indices() and save it again."
            )
        return files
    endings = (*_TEXT_ENDINGS[:2], ".parquet")
    return sorted(file for file in folder.rglob("*") if file.suffix in endings and file.is_file())


def _file_rows(path: Path) -> Iterator[RawRow]:
    if path.suffix in _TEXT_ENDINGS:
        return _lines(path)
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".arrow":
        return _arrow(path)
    raise DataError(f"'{path}' ends with '{path.suffix}'; readable are {', '.join(_TEXT_ENDINGS)} and .parquet.")


def _lines(path: Path) -> Iterator[RawRow]:
    """One JSON object a line; empty lines are skipped."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            place = f"{path}:{number}"
            try:
                # A byte order mark at the start is harmless, and Windows writes one.
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield RawRow(place, None, f"not UTF-8 (byte {error.start + 1})", repr(line[:200]))
                continue
            if text.strip():
                yield _json_row(place, text)


def _json_row(place: str, text: str) -> RawRow:
    shown = text.strip()[:500]
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return RawRow(place, None, f"not one whole JSON object: {error}", shown)
    if not isinstance(values, dict):
        return RawRow(place, None, f"a JSON {type(values).__name__}, not an object with columns", shown)
    return RawRow(place, values, "", shown)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _parquet(path: Path) -> Iterator[RawRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise _missing_pyarrow(path) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from _table_rows(path, file.iter_batches())
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"'{path}' is not a whole Parquet file: {error}") from error


def _arrow(path: Path) -> Iterator[RawRow]:
    try:
        import pyarrow
        import pyarrow.ipc
    except ModuleNotFoundError as error:
        raise _missing_pyarrow(path) from error
    try:
        with pyarrow.OSFile(str(path), "rb") as source, pyarrow.ipc.open_stream(source) as stream:
            yield from _table_rows(path, stream)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"'{path}' is not a whole Arrow file: {error}") from error


def _table_rows(path: Path, batches: Any) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        for values in batch.to_pylist():
            number += 1
            yield RawRow(f"{path}, row {number}", values, "", repr(values)[:500])


def _missing_pyarrow(path: Path) -> MissingExtraError:
    return MissingExtraError(
        f"'{path}' needs pyarrow, which is not installed. Install the extra: pip install 'covent[data]', or give the"
        " data as JSON Lines."
    )
