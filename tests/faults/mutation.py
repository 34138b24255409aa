"""Mutations of recorded associations: bits, lengths, order, truncation, duplication, noise, the words of others."""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.faults.conversations import SENT, Conversation, Step, split_pdus

__all__ = ["Case", "mutate"]

_INTERESTING = (0, 1, 2, 3, 4, 6, 0x7F, 0x80, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_ENDS = ("half close", "close", "reset", "half close")


@dataclass
class Case:
    """What is said to the server, and how the connection then ends."""

    number: int
    name: str
    steps: list[Step]
    end: str
    how: list[str] = field(default_factory=list)  # the mutations, for whoever looks into a failure


def mutate(number: int, recorded: Sequence[Conversation]) -> Case:
    """Case ``number``; the same each time. One in twenty is left as it was recorded."""
    chance = random.Random(number)
    conversation = chance.choice(recorded)
    case = Case(number, conversation.name, _with_own_uids(conversation.steps, number), chance.choice(_ENDS))
    if number % 20:
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            mutation = chance.choice(_MUTATIONS)
            case.how.append(mutation.__name__)
            mutation(case, chance, recorded)
            if not case.steps:
                break
    return case


def _with_own_uids(steps: Sequence[Step], number: int) -> list[Step]:
    """Instances of a case are its own: 8 digits of each recorded UID become others."""
    changed = list(steps)
    for at, instance in enumerate(SENT):
        old = instance.sop_instance_uid.encode()
        new = old[:-8] + b"%08d" % (20_000_000 + number * len(SENT) + at)
        changed = [Step(step.answers, step.words.replace(old, new)) for step in changed]
    return changed


def _pick(case: Case, chance: random.Random) -> int:
    """A step; the request for the association less often than the rest, or nothing else would be reached."""
    if len(case.steps) > 1 and chance.random() < 0.75:
        return chance.randrange(1, len(case.steps))
    return chance.randrange(len(case.steps))


def _change(case: Case, at: int, words: bytes) -> None:
    case.steps[at] = Step(case.steps[at].answers, words)


def flip_bits(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    at = _pick(case, chance)
    words = bytearray(case.steps[at].words)
    for _bit in range(chance.choice((1, 1, 2, 8))):
        if words:
            # headers stand at the beginning, and matter more
            where = chance.randrange(min(len(words), chance.choice((16, 100, 1_000_000))))
            words[where] ^= 1 << chance.randrange(8)
    _change(case, at, bytes(words))


def change_length(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    """A length of a PDU, PDV, item or element, or what might be one."""
    at = _pick(case, chance)
    words = bytearray(case.steps[at].words)
    if len(words) < 12:
        return
    kind = chance.random()
    value = chance.choice(_INTERESTING) if chance.random() < 0.7 else chance.randrange(1 << 16)
    if kind < 0.3:
        struct.pack_into(">I", words, 2, value & 0xFFFFFFFF)  # PDU-length
    elif kind < 0.6:
        struct.pack_into(">I", words, 6, value & 0xFFFFFFFF)  # Item-length of the first PDV
    elif kind < 0.8:
        struct.pack_into("<H", words, chance.randrange(len(words) - 1), value & 0xFFFF)
    else:
        struct.pack_into("<I", words, chance.randrange(len(words) - 3), value & 0xFFFFFFFF)
    _change(case, at, bytes(words))


def change_byte(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    at = _pick(case, chance)
    words = bytearray(case.steps[at].words)
    if words:
        words[chance.randrange(min(len(words), 40))] = chance.choice(_INTERESTING) & 0xFF
    _change(case, at, bytes(words))


def swap(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    one, other = _pick(case, chance), _pick(case, chance)
    words = case.steps[one].words
    _change(case, one, case.steps[other].words)
    _change(case, other, words)


def repeat(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    at = _pick(case, chance)
    case.steps[at:at] = [case.steps[at]] * chance.choice((1, 1, 2, 20))


def leave_out(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    del case.steps[_pick(case, chance)]


def cut_off(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    at = _pick(case, chance)
    words = case.steps[at].words
    _change(case, at, words[: chance.randrange(len(words) + 1)])
    if chance.random() < 0.8:
        del case.steps[at + 1 :]


def insert_noise(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    at = _pick(case, chance)
    words = case.steps[at].words
    where = chance.randrange(len(words) + 1)
    noise = chance.randbytes(chance.choice((1, 2, 6, 100)))
    _change(case, at, words[:where] + noise + words[where:])


def cut_out(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    at = _pick(case, chance)
    words = case.steps[at].words
    where = chance.randrange(len(words) + 1)
    _change(case, at, words[:where] + words[where + chance.choice((1, 2, 4, 50)) :])


def splice(case: Case, chance: random.Random, recorded: Sequence[Conversation]) -> None:
    """A PDU of another conversation in the midst of this one."""
    pdus = [pdu for step in chance.choice(recorded).steps for pdu in split_pdus(step.words)]
    at = _pick(case, chance)
    case.steps.insert(at, Step(case.steps[at].answers, chance.choice(pdus)))


def do_not_wait(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    """Say it all at once, but for what needs the association."""
    del chance
    case.steps = [Step(min(step.answers, 1), step.words) for step in case.steps]


def dribble(case: Case, chance: random.Random, _: Sequence[Conversation]) -> None:
    """The same words in pieces."""
    at = _pick(case, chance)
    answers, words = case.steps[at]
    size = chance.choice((1, 3, 7, 100))
    pieces = [words[start : start + size] for start in range(0, min(len(words), 40 * size), size)]
    case.steps[at : at + 1] = [Step(answers, piece) for piece in [*pieces, words[40 * size :]] if piece]


_MUTATIONS: Sequence[Callable[[Case, random.Random, Sequence[Conversation]], None]] = (
    flip_bits, flip_bits, change_length, change_length, change_byte, swap, repeat, leave_out, cut_off, insert_noise,
    cut_out, splice, do_not_wait, dribble,
)  # fmt: skip
