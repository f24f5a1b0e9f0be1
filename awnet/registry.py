"""Names for what the command line can choose: one registry a kind, one decorator, an error that knows the close matches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from awnet.errors import unknown

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A read-only mapping from names to values of one kind, filled by `register` where the values are defined."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator (or plain call) that enters a value under `name`; a name is given once."""

        def enter(value: T) -> T:
            assert name not in self._entries, f"two {self.kind}s are named {name!r}"
            self._entries[name] = value
            return value

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
