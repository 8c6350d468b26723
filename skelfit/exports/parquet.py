"""One Parquet file with a line for each person and named columns, for tables of any program."""

from __future__ import annotations

import importlib.util

from skelfit.errors import OutputError, SkelfitError
from skelfit.exports.exporter import Exporter, ExportOptions, ExportResult
from skelfit.shards.finished_run import FinishedRun
from skelfit.storage.locations import Location


def require_packages(what: str, *names: str) -> None:
    """Raise SkelfitError where a package of the extra `hub` is not installed; what: what needs it."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise SkelfitError(f"{what} needs {' and '.join(missing)}: pip install 'skelfit[hub]'")


class ParquetExporter(Exporter):
    """One Parquet file; the metadata of its schema say what each column is, and in which unit."""

    name = "parquet"
    endings = (".parquet",)
    summary = "one table with named columns"

    def write(self, run: FinishedRun, out: Location, options: ExportOptions) -> ExportResult:
        """Write the file `out`. Raises OutputError also for a name that does not end in .parquet."""
        require_packages("a Parquet table", "pyarrow")
        # Imported here because pyarrow is no requirement of skelfit.
        from skelfit.exports.parquet_tables.parquet_files import write_parquet
        from skelfit.exports.parquet_tables.people_table import people_batches, people_schema

        if out.suffix != ".parquet":
            raise OutputError(f"{out}: expected a file name that ends in .parquet")
        if out.exists() and not options.overwrite:
            raise OutputError(f"{out}: exists already; choose another name or --overwrite")
        table = write_parquet(lambda _: out, people_schema(run), people_batches(run), options.step)
        notes = (
            f"{table.lines} people in {out} ({self.name})",
            f"next: pandas.read_parquet({str(out)!r}); the columns are listed in docs/publish.md",
        )
        return ExportResult(table.lines, (out.name,), notes)
