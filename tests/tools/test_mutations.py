"""The list of faults that the tests catch is of today's sources: else a fault would be tried no more."""

from __future__ import annotations

from mutations import MUTATIONS, ROOT


def test_every_fault_can_be_made_and_has_its_tests() -> None:
    for fault in MUTATIONS:
        source = ROOT / "skelfit" / fault.file
        assert source.is_file() and source.read_text("utf-8").count(fault.old) == 1, (fault.file, fault.old)
        missing = [name for name in fault.tests.split() if not (ROOT / "tests" / name).is_file()]
        assert missing == [], fault.file
