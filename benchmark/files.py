"""JSON and CSV files, written whole or not at all."""

import csv
import io
import json
import os
import threading
from pathlib import Path

from .words import BadInput


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename: a kill, a full disk or another writer never leaves half
    a file."""
    temporary = path.with_name(f"{path.name}.{threading.get_native_id()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> dict | None:
    """The object in a JSON file; None where there is no such file, it cannot be read, or no
    object is in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict) -> None:
    """Write an object, for people to read too."""
    write_atomically(path, json.dumps(value, indent=2).encode())


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot read {path}: {getattr(error, 'strerror', error)}") from None


def write_csv(path: Path, columns: list[str], rows: list[list]) -> None:
    """Write a CSV file, None as nothing."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, buffer.getvalue().encode())
