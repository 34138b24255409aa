"""What the headers of one sender have in common, so that most of a scan is a few comparisons.

A walk over elements (PS3.5 §7.1) is led by tags, VRs and lengths alone. Where those of a run of elements are, byte for
byte and in the same places, what they were in a header that was walked before, the walk would go the same way: one
comparison takes the place of a step an element. The instances of a series differ in the lengths of a few values; a
layout learns which, and ends its runs there.
"""

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, SupportsIndex

from pacslite.dataset.element import BIG, EXPLICIT_VR_BIG_ENDIAN, LITTLE, UNDEFINED, Form, measure_header
from pacslite.dataset.nested import OpenElement

__all__ = ["Layout", "Layouts", "Run"]

_WORTH_A_RUN = 6  # looks at headers: comparing costs as much as five
_WORTH_LEARNING = 12  # elements that were walked one by one
_MOST_LOOSE = 4096  # elements: who sends ever new ones has nothing in common
_LESSON = 64  # instances that pay for one: it costs as much as twenty walks
_MOST_LESSONS = 16  # in a row
_KINDS = 32


class Run(NamedTuple):
    """Elements that follow each other."""

    size: int  # bytes
    mask: int  # what of them is tag, VR and length, as an integer in little endian
    headers: int  # and how that was
    tags: tuple[int, ...]
    split: Callable[[bytes, int], tuple[bytes, ...]]  # from a buffer and a position to the encoded elements


class _Seen(NamedTuple):
    """An element as it was walked; those with equal headers are walked alike."""

    tag: int
    mask: bytes
    headers: bytes  # under the mask
    looks: int  # at its headers, those within it included

    @property
    def size(self) -> int:
        return len(self.mask)


class _Account:
    """What all instances that are scanned have paid for lessons."""

    __slots__ = ("paid",)

    def __init__(self) -> None:
        self.paid = _MOST_LESSONS * _LESSON


class Layout:
    """The runs of one kind of instance. Threads may share it: each run is right by itself, whenever it was learned.

    Args:
        account: Of all layouts that may come and go; lessons cost little whatever they are for.
    """

    __slots__ = ("_account", "_form", "_known", "_learned", "_loose")

    def __init__(self, transfer_syntax_uid: str, account: _Account | None = None) -> None:
        self._account = account if account is not None else _Account()
        self._form = BIG if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else LITTLE
        self._learned: tuple[bool, Mapping[bytes, Run]] = (True, {})  # explicit VR, and the runs; replaced together
        self._known: dict[int, int] = {}  # hashes of the elements of the last lesson, by tag and in order
        self._loose: set[int] = set()  # elements that no run goes across

    def runs(self, *, explicit: bool) -> dict[bytes, Run]:
        """By the first eight bytes of their first element; the caller's own."""
        learned_explicit, runs = self._learned
        return dict(runs) if learned_explicit is explicit else {}

    def walked(self, buffer: bytes, start: int, end: int, *, explicit: bool, alone: int) -> None:
        """Hear of a walk from ``start`` to ``end``, ``alone`` of whose elements were in no run; learn if it pays.

        The walk may have gone on behind the buffer, over a value that was not kept.
        """
        account = self._account
        account.paid = min(account.paid + 1, _MOST_LESSONS * _LESSON)
        if alone >= _WORTH_LEARNING and account.paid >= _LESSON:
            account.paid -= _LESSON
            elements = _measure(buffer, start, min(end, len(buffer)), self._form, explicit=explicit)
            self._learned = (explicit, self._learn(buffer, start, elements))

    def _learn(self, buffer: bytes, start: int, elements: list[_Seen]) -> dict[bytes, Run]:
        loose = self._loose | self._differences(elements)
        if loose == self._loose or len(loose) > _MOST_LOOSE:  # the first, or one that has too little in common
            loose = set()
        runs: dict[bytes, Run] = {}
        run: list[_Seen] = []
        at = begin = start
        for element in elements:
            if element.tag in loose:
                _add(runs, run, buffer, begin)
                run = []
                begin = at + element.size
            else:
                run.append(element)
            at += element.size
        _add(runs, run, buffer, begin)
        self._loose = loose
        self._known = {element.tag: hash(element) for element in elements}
        return runs

    def _differences(self, elements: list[_Seen]) -> set[int]:
        """Elements that are not as they were in the last lesson, or follow another."""
        known = self._known
        loose = {element.tag for element in elements if known and known.get(element.tag) != hash(element)}
        following = dict(pairwise(known))
        for one, other in pairwise(element.tag for element in elements):
            if following.get(one, other) != other:
                loose.add(other)
        return loose


class Layouts:
    """The layouts of the kinds of instances that have come lately."""

    def __init__(self) -> None:
        self._account = _Account()
        self._of = lru_cache(_KINDS)(self._new)

    def of(self, sender: str, sop_class_uid: str, transfer_syntax_uid: str) -> Layout:
        """Give the one that is kept, or a new one."""
        return self._of(sender, sop_class_uid, transfer_syntax_uid)

    def _new(self, _sender: str, _sop_class_uid: str, transfer_syntax_uid: str) -> Layout:
        return Layout(transfer_syntax_uid, self._account)


def _add(runs: dict[bytes, Run], elements: list[_Seen], buffer: bytes, begin: int) -> None:
    if sum(element.looks for element in elements) < _WORTH_A_RUN:
        return
    runs[buffer[begin : begin + 8]] = Run(
        sum(element.size for element in elements),
        int.from_bytes(b"".join(element.mask for element in elements), "little"),
        int.from_bytes(b"".join(element.headers for element in elements), "little"),
        tuple(element.tag for element in elements),
        struct.Struct("".join(f"{element.size}s" for element in elements)).unpack_from,
    )


# a walk that notes what it looks at


class _Watch(bytes):
    """A buffer that notes what is looked at."""

    seen: list[tuple[int, int]]

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        assert isinstance(key, slice)
        self.seen.append((key.start, key.stop))
        return super().__getitem__(key)

    def through(self, form: Form) -> Form:
        """The same form, which has what it looks at noted."""

        def noting(unpack: Callable[..., Any], size: int) -> Callable[..., Any]:
            def unpack_and_note(buffer: bytes | bytearray, position: int) -> Any:
                self.seen.append((position, position + size))
                return unpack(buffer, position)

            return unpack_and_note

        return form._replace(header=noting(form.header, 8), wide=noting(form.wide, 8), length=noting(form.length, 4))


def _measure(buffer: bytes, position: int, end: int, form: Form, *, explicit: bool) -> list[_Seen]:
    """The elements from ``position`` on, as far as they are all there."""
    elements: list[_Seen] = []
    watch = _Watch(buffer)
    watching, little = watch.through(form), watch.through(LITTLE)
    while position + 8 <= end:
        group, number, length = form.wide(buffer, position)
        header = 8
        if explicit:
            header, length, _ = measure_header(form, buffer, position)
        watch.seen = [(position, position + header)]
        behind = position + header + length
        if length == UNDEFINED:
            unknown = explicit and buffer[position + 4 : position + 6] == b"UN"
            element = OpenElement(watching, position, header, explicit=explicit, is_unknown=unknown, little=little)
            behind = element.walk(watch, position + header, 0)
            if element.is_open:
                break
        if behind > end:
            break
        mask = bytearray(behind - position)
        for begin, until in watch.seen:
            mask[begin - position : until - position] = b"\xff" * (until - begin)
        masked = int.from_bytes(buffer[position:behind], "little") & int.from_bytes(mask, "little")
        headers = masked.to_bytes(len(mask), "little")
        elements.append(_Seen(group << 16 | number, bytes(mask), headers, len(watch.seen)))
        position = behind
    return elements
