"""Columns as Arrow has them: types, schemas with units, arrays with nulls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skelfit.exports.parquet_tables.table_columns import TABLE_VERSION, Column
from skelfit.shards.finished_run import FinishedRun


def arrow_type(column: Column) -> Any:
    """The Arrow type of a column: lists of lists where a value has a shape."""
    kind = pa.bool_() if column.kind == "bool" else getattr(pa, column.kind)()
    for _ in column.shape:
        kind = pa.list_(kind)
    return kind


def table_schema(columns: Sequence[Column], run: FinishedRun) -> Any:
    """The Arrow schema. Each field's metadata has unit and meaning; those of the table say the same as JSON."""
    fields = [
        pa.field(column.name, arrow_type(column), metadata={"unit": column.unit, "meaning": column.meaning})
        for column in columns
    ]
    about = {
        "version": TABLE_VERSION,
        "subset": run.subset,
        "identity_sha256": run.summary.get("identity_sha256"),
        "columns": [column.about() for column in columns],
    }
    return pa.schema(fields, metadata={"skelfit": json.dumps(about)})


def numbers(values: NDArray[Any], known: NDArray[np.bool_] | None = None) -> Any:
    """The Arrow array of values (N, *shape); those that are not known (N,) become null, with no numbers behind."""
    count, shape = len(values), values.shape[1:]
    present = np.ones(count, bool) if known is None else known
    if not shape:
        return pa.array(values, mask=~present)
    kept = np.ascontiguousarray(values[present])
    array = pa.array(kept.reshape(-1))
    for axis in reversed(range(1, len(shape))):
        size = shape[axis]
        array = pa.ListArray.from_arrays(pa.array(np.arange(0, len(array) + 1, size, dtype=np.int32)), array)
    ends = np.concatenate([[0], np.cumsum(present * shape[0])]).astype(np.int32)
    # A null in the offsets makes a null; the offset after it begins where the list before ends.
    offsets = pa.array(ends, mask=np.append(~present, False))
    return pa.ListArray.from_arrays(offsets, array)


def record_batch(schema: Any, arrays: Mapping[str, Any]) -> Any:
    """A batch of a table from an array, or a list of Python values, for each column."""
    columns = [
        array if isinstance(array := arrays[field.name], pa.Array) else pa.array(array, type=field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
