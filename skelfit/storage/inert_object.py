"""What stands for the objects of a pickle whose classes are not read.

Files from elsewhere hold paths, dates, devices, configurations and tables beside their numbers. Their classes need not
be installed here, and nothing of them may run.
"""

from __future__ import annotations


class InertObject:
    """An object of a file that was not made; `name` is that of its class or function.

    It takes whatever the file does with it, and does nothing.
    """

    name = ""

    def __new__(cls, *_: object, **__: object) -> InertObject:
        return super().__new__(cls)

    def __call__(self, *_: object, **__: object) -> InertObject:
        return self

    def __setstate__(self, _: object) -> None:
        """Attributes, which mean nothing here."""

    def __setitem__(self, _: object, __: object) -> None:
        """Entries of dictionaries with a class of their own (yacs)."""

    def append(self, _: object) -> None:
        """Items of lists with a class of their own."""

    def extend(self, _: object) -> None:
        """As `append`."""

    def add(self, _: object) -> None:
        """Items of sets with a class of their own."""


def inert_class(name: str) -> type[InertObject]:
    """A class of its own for a global 'package.module.name' of a file."""
    return type("InertObject", (InertObject,), {"name": name})
