"""The judge: what the archive shows over the network against what the clients' history allows.

acknowledged -> visible, retrievable, byte-identical; visible -> invoked by somebody, with the content he sent, and
whole; one row a UID; C-FIND at every level, the counts it gives, and C-GET agree.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from tests.faults.history import History
from tests.support.instances import digest_of
from tests.support.wire import CT_IMAGE, STUDY_ROOT_FIND, STUDY_ROOT_GET, Context, Wire, encode_elements

__all__ = ["Seen", "judge", "observe"]

_STUDY, _SERIES, _INSTANCE = 0x0020000D, 0x0020000E, 0x00080018
_STUDY_COUNT, _SERIES_COUNT = 0x00201208, 0x00201209


@dataclass
class Seen:
    """What one look at the archive showed."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)  # study, series, instance
    series_counts: dict[str, int] = field(default_factory=dict)
    study_counts: dict[str, int] = field(default_factory=dict)
    content: dict[str, str] = field(default_factory=dict)  # SOP Instance UID to digest
    looked_into: set[str] = field(default_factory=set)


def _identifier(level: str, **keys: str) -> bytes:
    """Level and keys: ``study``, ``series``, ``instance``; an empty one is a return key."""
    tags = {"study": _STUDY, "series": _SERIES, "instance": _INSTANCE}
    elements = [(0x00080052, "CS", level.encode().ljust(len(level) + len(level) % 2))]
    elements += [(tags[name], "UI", uid.encode() + b"\0" * (len(uid) % 2)) for name, uid in keys.items()]
    if level == "STUDY":
        elements.append((_STUDY_COUNT, "IS", b""))
    if level == "SERIES":
        elements.append((_SERIES_COUNT, "IS", b""))
    return encode_elements(sorted(elements))


def _uid(row: dict[int, bytes], tag: int) -> str:
    return row[tag].decode("ascii").rstrip("\0 ")


def _count(row: dict[int, bytes], tag: int) -> int:
    return int(row.get(tag, b"").strip() or -1)


async def observe(port: int, *, called: str = "PACSLITE", retrieve: Collection[str] | None = None) -> Seen:
    """List all studies, and of the given ones (None: all) what is in them by C-FIND, and their content by C-GET."""
    seen = Seen()
    contexts = [Context(1, STUDY_ROOT_FIND), Context(3, STUDY_ROOT_GET), Context(5, CT_IMAGE, scp_role=True)]
    async with await Wire.associate(port, contexts, called=called, calling="CHECKER") as wire:
        for study_row in await wire.find(STUDY_ROOT_FIND, _identifier("STUDY", study="")):
            study = _uid(study_row, _STUDY)
            assert study not in seen.study_counts, f"C-FIND lists study {study} twice"
            seen.study_counts[study] = _count(study_row, _STUDY_COUNT)
        looked_into = set(seen.study_counts) if retrieve is None else set(retrieve) & set(seen.study_counts)
        for study in looked_into:
            for series_row in await wire.find(STUDY_ROOT_FIND, _identifier("SERIES", study=study, series="")):
                series = _uid(series_row, _SERIES)
                seen.series_counts[series] = _count(series_row, _SERIES_COUNT)
                key = _identifier("IMAGE", study=study, series=series, instance="")
                rows = await wire.find(STUDY_ROOT_FIND, key)
                seen.rows += [(study, series, _uid(row, _INSTANCE)) for row in rows]
            instances, final = await wire.get(STUDY_ROOT_GET, _identifier("STUDY", study=study))
            assert final.status == 0, f"C-GET of study {study} ended with {final}"
            seen.looked_into.add(study)
            for instance in instances:
                assert instance.sop_instance_uid not in seen.content, f"{instance.sop_instance_uid} came twice"
                seen.content[instance.sop_instance_uid] = digest_of(instance.data)
    return seen


def judge(history: History, seen: Seen) -> list[str]:
    """The violations, each a sentence."""
    found = [f"{uid} has {count} rows" for uid, count in Counter(row[2] for row in seen.rows).items() if count > 1]
    place = {uid: (study, series) for study, series, uid in seen.rows}
    promised: Counter[str] = Counter()
    for attempt in history.acknowledged():
        promised[attempt.study_uid] += 1
        known = attempt.study_uid in seen.study_counts and attempt.study_uid not in seen.looked_into
        if attempt.uid not in place and not known:
            found.append(f"{attempt.uid} was acknowledged and is not found")
    for study, count in promised.items():  # those that were not looked into, by their number
        if study in seen.study_counts and seen.study_counts[study] < count:
            found.append(f"study {study} has {seen.study_counts[study]} instances, {count} were acknowledged")
    for uid, (study, series) in place.items():
        sent = history.attempts.get(uid)
        if sent is None:
            found.append(f"{uid} is found, but nobody sent it")
            continue
        if (study, series) != (sent.study_uid, sent.series_uid):
            found.append(f"{uid} is found in series {series}, it was sent in {sent.series_uid}")
        digest = seen.content.get(uid)
        if digest is None:
            found.append(f"{uid} is found, but does not come back")
        elif digest != sent.digest:
            found.append(f"{uid} came back with other bytes than were sent")
        if sent.refusals and not sent.acknowledged:
            found.append(f"{uid} is found although it was refused with {sent.refusals}")
    found += [f"{uid} comes back, but is not found" for uid in seen.content if uid not in place]
    by_series = Counter(row[1] for row in seen.rows)
    by_study = Counter(row[0] for row in seen.rows)
    for counts, real, level in ((seen.series_counts, by_series, "series"), (seen.study_counts, by_study, "study")):
        for uid, count in counts.items():
            if level == "study" and uid not in seen.looked_into:
                continue
            if real[uid] == 0:
                found.append(f"{level} {uid} is found, but has no instance")
            elif count not in (-1, real[uid]):
                found.append(f"{level} {uid} says it has {count} instances, {real[uid]} are found")
    return found
