"""The comments that describe the fields of a dataclass, read from its source."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize


def field_comments(cls: type) -> dict[str, str]:
    """Field name -> its description: the comment lines above the field, then the comment behind it.

    A field without a comment has an empty description.
    """
    source = textwrap.dedent(inspect.getsource(cls))
    comments = _comments_by_line(source)
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    descriptions: dict[str, str] = {}
    previous_end = definition.lineno
    for statement in definition.body:
        end = statement.end_lineno or statement.lineno
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            lines = range(previous_end + 1, end + 1)
            descriptions[statement.target.id] = " ".join(comments[n] for n in lines if n in comments)
        previous_end = end
    return descriptions


def _comments_by_line(source: str) -> dict[int, str]:
    """Line number, from 1 -> the text of its comment, without the hash."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
