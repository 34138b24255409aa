"""Layouts of headers: what is found with one is what is found without, whatever it was learned from."""

import os
import random
import struct
import tracemalloc
from collections.abc import Callable, Sequence

from pacslite.dataset.layout import Layout, Layouts
from pacslite.dataset.scan import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.unit.dataset.test_scan import ITEM, ITEM_END, SEQUENCE_END, SEQUENCE_MARKS
from tests.unit.dataset.test_scan_hostile import peak_memory, scan, seconds
from tests.unit.dataset.test_scan_oracle import FILES, data_set_of, mutate, small_headers

CASES = int(os.environ.get("PACSLITE_FUZZ_CASES", "10000"))  # `make fuzz` asks for more
SEED = int(os.environ.get("PACSLITE_FUZZ_SEED", "20000"))


def outcome(data: bytes, syntax: str, layout: Layout | None, piece: int = 1 << 20) -> object:
    """Give all that a scan tells."""
    scanner, refused = scan(data, syntax, piece, layout)
    elements = [(tag, scanner.raw(tag)) for tag in scanner.tags]
    return elements, refused, scanner.explicit, scanner.complete, scanner.leading, scanner.held


def in_runs(layout: Layout) -> int:
    return sum(len(run.tags) for explicit in (True, False) for run in layout.runs(explicit=explicit).values())


def header(lengths: Sequence[int], *, explicit: bool = True, order: str = "<") -> bytes:
    """A header of short elements with values of these lengths."""
    vr = int.from_bytes(b"LO", "little" if order == "<" else "big")
    parts = []
    for number, length in enumerate(lengths, 0x10):
        head = struct.pack(order + "HHHH", 8, number, vr, length)
        parts.append((head if explicit else struct.pack(order + "HHI", 8, number, length)) + b"x" * length)
    return b"".join(parts)


def test_real_files_are_scanned_alike() -> None:
    """All of them by one sender; each again, when its layout may be known."""
    layouts = Layouts()
    known = 0
    for path in FILES:
        data, syntax = data_set_of(path)
        data = data[: 1 << 18]
        for layout in (layouts.of("ALL", "", syntax), Layout(syntax)):
            for _ in range(2):
                assert outcome(data, syntax, layout) == outcome(data, syntax, None), path
            known += in_runs(layout) > 0
    assert known > len(FILES)  # of the second kind nearly all


def test_mutated_headers_are_scanned_alike_fuzz() -> None:
    """A header, what damage makes of it, and that learned as well: twenty in a row, whole and in pieces."""
    rng = random.Random(SEED)
    headers = small_headers()
    known = 0
    for _ in range(CASES // 20):
        whole, syntax = rng.choice(headers)
        layout = Layout(syntax)
        for number in range(20):
            data = mutate(whole, rng) if number % 3 else whole
            piece = rng.choice((1 << 20, 1 << 20, 400))
            assert outcome(data, syntax, layout, piece) == outcome(data, syntax, None, piece), (syntax, data)
            known += in_runs(layout) > 0
    assert known > CASES // 2


def test_a_series_is_learned_but_for_what_differs() -> None:
    for syntax, explicit, order in (
        (EXPLICIT_VR_LITTLE_ENDIAN, True, "<"),
        (IMPLICIT_VR_LITTLE_ENDIAN, False, "<"),
        (EXPLICIT_VR_BIG_ENDIAN, True, ">"),
    ):
        layout = Layout(syntax)
        for number in range(5):
            lengths = [12] * 50
            lengths[10], lengths[30] = 2 * number, 20 - 2 * number
            data = header(lengths, explicit=explicit, order=order)
            assert outcome(data, syntax, layout) == outcome(data, syntax, None)
        assert sorted(len(run.tags) for run in layout.runs(explicit=explicit).values()) == [10, 19, 19]


def test_an_element_more_or_less_ends_a_run() -> None:
    layout = Layout(EXPLICIT_VR_LITTLE_ENDIAN)
    with_it = header([12] * 40)
    without = with_it[: 20 * 20] + with_it[21 * 20 :]
    for data in (with_it, without) * 3:
        assert outcome(data, EXPLICIT_VR_LITTLE_ENDIAN, layout) == outcome(data, EXPLICIT_VR_LITTLE_ENDIAN, None)
    assert sorted(len(run.tags) for run in layout.runs(explicit=True).values()) == [18, 20]  # the one behind the gap


def test_implicit_vr_is_not_taken_for_the_explicit_that_was_learned() -> None:
    """Some senders switch: the first eight bytes and the places of the headers may be the same."""
    layout = Layout(EXPLICIT_VR_LITTLE_ENDIAN)
    for _ in range(3):
        for explicit in (True, False):
            data = header([12] * 30, explicit=explicit)
            assert outcome(data, EXPLICIT_VR_LITTLE_ENDIAN, layout) == outcome(data, EXPLICIT_VR_LITTLE_ENDIAN, None)


def test_what_unknown_holds_is_looked_at_in_its_own_way() -> None:
    """It is little endian and implicit (PS3.5 §6.2.2), or not: what is learned of one is not taken for the other."""
    contents = [
        bytes.fromhex("08000001 02000000") + b"42",
        bytes.fromhex("08000001") + b"SH\2\0" + b"42",
        bytes.fromhex("08000001 04000000") + b"4242",
        bytes.fromhex("08000001") + b"SH\4\0" + b"4242",
        struct.pack("<HHI", 8, 0x0100, 0x4144) + bytes(0x4144),  # as a VR, DA
        bytes.fromhex("08000001") + b"DA\0\0",
        bytes.fromhex("08000001") + b"DA\0\0" + bytes.fromhex("08000101") + b"SH\2\0" + b"42",
        struct.pack("<HHI", 8, 0x0100, 0x4144) + bytes.fromhex("08000001") + b"SH\2\0" + bytes(0x413C),
    ]
    for syntax, order in ((EXPLICIT_VR_LITTLE_ENDIAN, "<"), (EXPLICIT_VR_BIG_ENDIAN, ">")):
        for is_nested in (False, True):
            layout = Layout(syntax)
            known = 0
            for content in contents * 3:
                element = struct.pack(order + "HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF)
                element += ITEM + content + ITEM_END + SEQUENCE_END
                if is_nested:
                    marks = [struct.pack(order + "HHI", 0xFFFE, *mark) for mark in SEQUENCE_MARKS]
                    element = (
                        marks[0] + element + struct.pack(order + "HH2sH", 0x000A, 1, b"LO", 0) + marks[1] + marks[2]
                    )
                    element = struct.pack(order + "HH2sHI", 0x0008, 0x2112, b"SQ", 0, 0xFFFFFFFF) + element
                data = header([12] * 20, order=order) + element + header([12] * 20, order=order)
                assert outcome(data, syntax, layout) == outcome(data, syntax, None)
                known += in_runs(layout) > 0
            assert known == len(contents) * 3


def test_a_value_that_goes_on_for_gigabytes_costs_no_memory() -> None:
    data = header([12] * 40) + struct.pack("<HH2sHI", 9, 1, b"UN", 0, 0xFFFFFFF0)
    layout = Layout(EXPLICIT_VR_LITTLE_ENDIAN)

    def compare() -> None:
        assert outcome(data, EXPLICIT_VR_LITTLE_ENDIAN, layout) == outcome(data, EXPLICIT_VR_LITTLE_ENDIAN, None)

    assert peak_memory(compare) < 1 << 20
    assert in_runs(layout) == 40


def count_lessons(headers: Sequence[bytes], layout_of: Callable[[int], Layout]) -> int:
    """Lessons are seen by what is known after them."""
    lessons = 0
    for number, data in enumerate(headers):
        layout = layout_of(number)
        before = layout.runs(explicit=True)
        outcome(data, EXPLICIT_VR_LITTLE_ENDIAN, layout)
        lessons += layout.runs(explicit=True) != before
    return lessons


def test_who_sends_nothing_twice_is_learned_from_now_and_then_only() -> None:
    rng = random.Random(SEED)
    layout = Layout(EXPLICIT_VR_LITTLE_ENDIAN)
    headers = [header([2 * rng.randrange(2 + number % 20) for _ in range(40)]) for number in range(1280)]
    assert 10 < count_lessons(headers, lambda _: layout) <= 16 + 1280 // 64


def test_more_kinds_than_are_kept_are_learned_from_now_and_then_only() -> None:
    """Each layout is gone when its next instance comes."""
    layouts = Layouts()
    headers = [header([12] * 40)] * 1280
    lessons = count_lessons(headers, lambda number: layouts.of("A", f"1.{number % 33}", EXPLICIT_VR_LITTLE_ENDIAN))
    assert 16 <= lessons <= 16 + 1280 // 64


def test_elements_that_never_come_again_are_not_remembered_for_ever() -> None:
    layout = Layout(EXPLICIT_VR_LITTLE_ENDIAN)
    few = header([2])

    def send(lessons: int) -> None:
        for lesson in range(lessons):
            numbers = ((number, lesson) for number in range(1000))
            outcome(
                b"".join(struct.pack("<HH2sH", 9 + 2 * group, number, b"LO", 0) for number, group in numbers),
                EXPLICIT_VR_LITTLE_ENDIAN,
                layout,
            )
            for _ in range(64):
                outcome(few, EXPLICIT_VR_LITTLE_ENDIAN, layout)

    send(10)
    tracemalloc.start()
    try:
        send(30)
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_run_is_not_compared_with_each_of_its_likes() -> None:
    first = struct.pack("<HH2sH", 8, 1, b"LO", 0)
    layout = Layout(EXPLICIT_VR_LITTLE_ENDIAN)
    outcome(first + header([300] * 26), EXPLICIT_VR_LITTLE_ENDIAN, layout)
    assert in_runs(layout) == 27

    repeated = first * 2048
    plain = seconds(repeated, EXPLICIT_VR_LITTLE_ENDIAN, len(repeated))
    assert seconds(repeated, EXPLICIT_VR_LITTLE_ENDIAN, len(repeated), layout) < 4 * plain


def test_what_changes_for_good_is_learned_anew() -> None:
    """Another device under the same AE title: after some lessons what it sends is known."""
    layout = Layout(EXPLICIT_VR_LITTLE_ENDIAN)
    for lengths in ([12] * 40, [14] * 40, [16] * 60):
        for _ in range(300):
            outcome(header(lengths), EXPLICIT_VR_LITTLE_ENDIAN, layout)
        assert in_runs(layout) == len(lengths)


def test_layouts_are_kept_for_those_who_sent_last() -> None:
    layouts = Layouts()
    first = layouts.of("A", "1.2", EXPLICIT_VR_LITTLE_ENDIAN)
    assert layouts.of("A", "1.2", EXPLICIT_VR_LITTLE_ENDIAN) is first
    assert layouts.of("A", "1.2", IMPLICIT_VR_LITTLE_ENDIAN) is not first
    for number in range(32):
        layouts.of(f"B{number}", "1.2", EXPLICIT_VR_LITTLE_ENDIAN)
    assert layouts.of("A", "1.2", EXPLICIT_VR_LITTLE_ENDIAN) is not first
