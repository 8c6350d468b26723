"""Columns and tars as the library `datasets` describes them: for the card's front matter, and for reading the tars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skelfit.exports.parquet_tables.table_columns import OF_METADATA, Column
from skelfit.shards.label_vector import LABEL_SIZE

# Texts of a sample's metadata that the people's table has as columns of their own names, or not at all.
_META_TEXTS = ("key", "subset", "label_file", "status", "layout")


def card_features(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The features of a table, for `dataset_info` in a card."""
    return [{"name": column.name, **_card_type(column.kind, len(column.shape))} for column in columns]


def _card_type(kind: str, dimensions: int) -> dict[str, Any]:
    if not dimensions:
        return {"dtype": kind}
    return {"list": kind if dimensions == 1 else _card_type(kind, dimensions - 1)}


def tar_features(image_endings: Sequence[str]) -> dict[str, Any]:
    """The features of the tars, as `datasets.Features.from_dict` takes them.

    Without them, `datasets` would infer them from the first samples, of which all may lack what later ones have.
    """
    meta = {name: _value("string") for name in _META_TEXTS} | {"row": _value("int64")}
    for name, column in OF_METADATA.items():
        feature = _value(column.kind)
        for _ in column.shape:
            feature = {"_type": "List", "feature": feature}
        meta[name] = feature
    return {
        "__key__": _value("string"),
        "__url__": _value("string"),
        "label.npy": {"_type": "List", "feature": _value("float32"), "length": LABEL_SIZE},
        "meta.json": meta,
        **{ending: {"_type": "Image"} for ending in image_endings},
    }


def _value(kind: str) -> dict[str, Any]:
    return {"_type": "Value", "dtype": kind}
