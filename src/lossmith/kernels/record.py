"""Small frozen classes that cost nothing to define.

A dataclass writes its methods as text and compiles it, for every class anew: two dozen of them would take longer than
all else that a first call with a warm cache does. The methods here are the same ones for all classes.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, TypeVar, dataclass_transform

_R = TypeVar("_R", bound="Record")


@dataclass_transform(frozen_default=True)
class Record:
    """Base of classes that are their fields: compared, hashed, shown and matched by them, and never changed."""

    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.__match_args__ = tuple(inspect.get_annotations(cls))

    def __init__(self, *args: Any, **named: Any) -> None:
        fields, own = self.__match_args__, self.__dict__
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} has {len(fields)} fields, got {len(args)}")
        own.update(zip(fields, args, strict=False))
        for name in fields[len(args) :]:
            own[name] = named.pop(name) if name in named else getattr(type(self), name)
        if named:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(named)}, or has it twice")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


def replaced(record: _R, **changes: Any) -> _R:
    """Return the record with some fields changed."""
    return type(record)(**{**record.__dict__, **changes})
