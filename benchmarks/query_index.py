"""Measure queries in this process against a generated index: request to first answer, and answers per second.

    python benchmarks/query_index.py PATH [QUERIES]

From the identifier's bytes to the encoded answers, without a network. Each kind is asked with random keys.
"""

import asyncio
import json
import random
import resource
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing, closing
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from benchmarks.generate_index import DAYS, FAMILIES, FIRST_DAY, GIVEN, WITH_INSTANCES, words
from pacslite.archive.index.file import IndexFile
from pacslite.archive.index.reader import IndexReader
from pacslite.archive.query import QueryOptions, parse_query
from pacslite.dataset.charset import encode_text
from pacslite.dataset.dictionary import tag_of, vr_of
from pacslite.dataset.encode import IdentifierEncoder

IMPLICIT = "1.2.840.10008.1.2"
STUDY_KEYS = dict.fromkeys(
    words(
        """
        PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber StudyID StudyInstanceUID
        StudyDescription ReferringPhysicianName ModalitiesInStudy NumberOfStudyRelatedSeries
        NumberOfStudyRelatedInstances
        """
    ),
    "",
)
IMAGE_KEYS = dict.fromkeys(words("SOPInstanceUID SOPClassUID InstanceNumber Rows Columns"), "")


class Kind(NamedTuple):
    """A kind of query; ``limit`` milliseconds to the first answer, at the 99th percentile."""

    name: str
    level: str
    keys: Callable[[random.Random, int], Mapping[str, str]]
    limit: float


def _study(number: int) -> str:
    return f"1.2.826.0.1.3680043.9.7433.1.{number}"


def _day(chance: random.Random, days: int) -> str:
    first = FIRST_DAY + timedelta(chance.randrange(DAYS))
    return f"{first:%Y%m%d}-{first + timedelta(days - 1):%Y%m%d}"


def _images(chance: random.Random, studies: int) -> Mapping[str, str]:
    number = chance.randrange(min(studies, WITH_INSTANCES))
    series = f"1.2.826.0.1.3680043.9.7433.2.{number * 3 + chance.randrange(3)}"
    return {"StudyInstanceUID": _study(number), "SeriesInstanceUID": series, **IMAGE_KEYS}


KINDS = [
    Kind("patient id", "STUDY", lambda c, n: STUDY_KEYS | {"PatientID": f"PID{c.randrange(n * 6 // 10):08d}"}, 5),
    Kind("accession", "STUDY", lambda c, n: STUDY_KEYS | {"AccessionNumber": f"ACC{c.randrange(n):09d}"}, 5),
    Kind(
        "50 study UIDs",
        "STUDY",
        lambda c, n: STUDY_KEYS | {"StudyInstanceUID": "\\".join(_study(c.randrange(n)) for _ in range(50))},
        5,
    ),
    Kind("name prefix", "STUDY", lambda c, _: STUDY_KEYS | {"PatientName": f"{c.choice(FAMILIES)}*"}, 5),
    Kind(
        "longer prefix",
        "STUDY",
        lambda c, _: STUDY_KEYS | {"PatientName": f"{c.choice(FAMILIES)}^{c.choice(GIVEN)}^A*"},
        5,
    ),
    Kind("name infix", "STUDY", lambda c, _: STUDY_KEYS | {"PatientName": f"*{c.choice(FAMILIES)[1:4]}*"}, 20),
    Kind("given name", "STUDY", lambda c, _: STUDY_KEYS | {"PatientName": f"*^{c.choice(GIVEN)}^*"}, 20),
    Kind("name in vain", "STUDY", lambda c, _: STUDY_KEYS | {"PatientName": f"*{c.choice(FAMILIES)}x*"}, 20),
    Kind("one day", "STUDY", lambda c, _: STUDY_KEYS | {"StudyDate": _day(c, 1)}, 20),
    Kind(
        "week and modality", "STUDY", lambda c, _: STUDY_KEYS | {"StudyDate": _day(c, 7), "ModalitiesInStudy": "MR"}, 20
    ),
    Kind("day and name", "STUDY", lambda c, _: STUDY_KEYS | {"StudyDate": _day(c, 1), "PatientName": "s*"}, 20),
    Kind("rare modality", "STUDY", lambda _, __: STUDY_KEYS | {"ModalitiesInStudy": "XA"}, 1000),
    Kind(
        "series of study",
        "SERIES",
        lambda c, n: {"StudyInstanceUID": _study(c.randrange(n)), "SeriesInstanceUID": "", "Modality": ""},
        5,
    ),
    Kind("images of series", "IMAGE", _images, 5),
]


def _identifier(level: str, keys: Mapping[str, str]) -> bytes:
    encoder = IdentifierEncoder(IMPLICIT)
    values = {"SpecificCharacterSet": "ISO_IR 192", "QueryRetrieveLevel": level, **keys}
    tags = sorted((tag_of(keyword) or 0, value) for keyword, value in values.items())
    return b"".join(
        encoder.element(tag, vr_of(tag) or "UN", encode_text(value, "LO", ("ISO_IR 192",)) or b"")
        for tag, value in tags
    )


async def ask(reader: IndexReader, identifier: bytes) -> tuple[float, float, int]:
    """Milliseconds to the first answer (or to the end, if there is none) and to the end; answers."""
    started = time.perf_counter()
    query = parse_query(
        identifier, model="study", transfer_syntax_uid=IMPLICIT, relational=False, options=QueryOptions()
    )
    first = None
    count = 0
    async with aclosing(reader.find(query)) as batches:
        async for batch in batches:
            if batch and first is None:
                first = time.perf_counter()
            count += len(batch)
    ended = time.perf_counter()
    return 1000 * ((first or ended) - started), 1000 * (ended - started), count


async def measure(path: Path, queries: int) -> list[dict[str, object]]:
    """One row a kind."""
    with closing(sqlite3.connect(path)) as connection:
        studies = connection.execute("SELECT count(*) FROM study").fetchone()[0]
    reader = IndexReader(IndexFile(path))
    await reader.start()
    rows: list[dict[str, object]] = []
    try:
        for kind in KINDS:
            chance = random.Random(7)
            await ask(reader, _identifier(kind.level, kind.keys(chance, studies)))  # compiles the statements
            asked = [_identifier(kind.level, kind.keys(chance, studies)) for _ in range(queries)]
            took = [await ask(reader, one) for one in asked]
            first = sorted(one[0] for one in took)
            rows.append(
                {
                    "kind": kind.name,
                    "p50_ms": round(statistics.median(first), 2),
                    "p99_ms": round(first[min(len(first) - 1, len(first) * 99 // 100)], 2),
                    "limit_ms": kind.limit,
                    "total_ms": round(statistics.median(one[1] for one in took), 2),
                    "answers": round(statistics.mean(one[2] for one in took), 1),
                }
            )
            print(rows[-1], flush=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        first_ms, total_ms, count = await ask(reader, _identifier("STUDY", STUDY_KEYS))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        rows.append(
            {
                "kind": "match all",
                "p50_ms": round(first_ms, 2),
                "total_ms": round(total_ms),
                "answers": count,
                "answers_per_second": round(count / total_ms * 1000),
                "grown_mib": round(grown / 1024, 1),
            }
        )
        print(rows[-1])
    finally:
        await reader.stop()
    return rows


if __name__ == "__main__":
    measured = asyncio.run(measure(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / f"query_index_{Path(sys.argv[1]).stem}.json").write_text(json.dumps(measured, indent=1) + "\n")
