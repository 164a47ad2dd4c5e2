"""Rows that are computed once and then memory-mapped. Knows neither images nor networks."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from pytorch_lightning.utilities import rank_zero_info
from tqdm import tqdm

from transfer_learning.atomic import replacing
from transfer_learning.errors import UserError

CHUNK = 256  # rows held in memory while writing


def stored(
    items: Sequence,
    encode: Callable[[Sequence], tuple[np.ndarray, dict[int, str]]],
    key: Mapping,
    folder: str | Path,
) -> tuple[np.ndarray, dict[int, str]]:
    """Row i of the result is what `encode` makes of item i: read from `folder` if it lies there, else computed and written.

    The file is complete or absent: it is written beside its place under a lock, and moved there when done.

    Args:
        items: N things, sliceable.
        encode: a slice of `items` -> (one row each, any shape and dtype; {position in the slice: why its row means nothing}).
        key: plain values: all that the rows depend on. `key["what"]` begins the file's name.
        folder: where such files lie; it is made if missing.

    Returns:
        (rows (N, …), memory-mapped and read-only; {index: why its row means nothing}).

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    folder = Path(folder).expanduser()
    path = folder / f"{key['what']}-{_sha256(key)[:16]}.npy"
    found = _opened(path)
    if found is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):  # a second run waits here, then finds the file
                found = _opened(path)
                if found is None:
                    _write(path, items, encode, key)
                    found = _opened(path)
        except OSError as error:
            raise UserError(
                f"{path}: {error.strerror or error}. Make room there, or choose another folder: data.cache_dir=…"
            ) from error
    rank_zero_info(f"{path}: {len(items)} rows, {path.stat().st_size / 1e6:,.1f} MB")
    return found


def _opened(path: Path) -> tuple[np.ndarray, dict[int, str]] | None:
    """The rows of a complete file, or None where there is none: its notes, its header and its size must agree, or it is computed anew."""
    try:
        about = json.loads(path.with_suffix(".json").read_text())
        if about.pop("sha256") != _sha256(about):
            return None
        dtype, shape = np.dtype(about["dtype"]), tuple(about["shape"])
        header, size = _header(dtype, shape), dtype.itemsize * int(np.prod(shape))
        with open(path, "rb") as file:
            if file.read(len(header)) != header or path.stat().st_size != len(header) + size:
                return None
        rows = np.memmap(path, dtype, mode="r", offset=len(header), shape=shape)
        return rows, {int(index): reason for index, reason in about["left_out"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, items: Sequence, encode: Callable, key: Mapping) -> None:
    left_out = {}
    # Written, not memory-mapped: on a full disk a write raises, while a store into a mapped page kills the process.
    with (
        replacing(path) as file,
        tqdm(total=len(items), desc=key["what"], unit="row", leave=False, disable=None) as bar,
    ):
        for start in range(0, len(items), CHUNK):
            rows, reasons = encode(items[start : start + CHUNK])
            if start == 0:
                dtype, shape = rows.dtype, (len(items), *rows.shape[1:])
                file.write(_header(dtype, shape))
            file.write(np.ascontiguousarray(rows).data)
            left_out |= {start + position: reason for position, reason in reasons.items()}
            bar.update(len(rows))
        about = {
            "key": dict(key),
            "dtype": dtype.str,
            "shape": shape,
            "left_out": {str(index): why for index, why in left_out.items()},
        }
        with replacing(path.with_suffix(".json")) as notes:
            notes.write(json.dumps(about | {"sha256": _sha256(about)}, indent=1).encode())


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """How a NumPy file of these rows begins."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return file.getvalue()


def _sha256(value: Mapping) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
