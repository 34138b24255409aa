"""Make an index of N studies without their files: what a query sees of a large archive.

    python -m benchmarks.generate_index PATH [STUDIES]

Each study has three series and says it has 200 instances; the first thousand studies really have rows for theirs. The
same number gives the same index. UIDs count up, as if one device had made them, or are ``scattered``: each study's
under a root of its own, so that what is stored later comes among them and not behind them. ``attributes`` are bytes
kept of each instance besides its columns; a CT slice has 650.
"""

import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine

from benchmarks.workers import Start, run_workers
from pacslite.archive.index.schema import HEAD, metadata
from pacslite.archive.keys import KEYS, Level
from pacslite.archive.normalise import normalise
from pacslite.archive.phonetic import name_sounds


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


FAMILIES = words(
    """
    Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez
    Wilson Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris Sanchez Clark
    Ramirez Lewis Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill Flores Green Adams
    Nelson Baker Hall Rivera Campbell Mitchell Carter Müller Schmidt Schneider Fischer Weber Meyer
    Wagner Becker Schulz Hoffmann Dubois Lefèvre Moreau Laurent Sørensen Åberg Kowalski Nowák Horváth
    Ivanov Petrov Popescu Rossi Ferrari Esposito Bianchi Silva Santos Oliveira Sousa Tanaka Suzuki
    Yamada Watanabe Kim Park Choi Wang Li Zhang Liu Chen Singh Kumar Sharma Patel Khan Ahmed Hassan Ali
    Okafor Mensah
    """
)
GIVEN = words(
    """
    James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Richard Susan
    Joseph Jessica Thomas Sarah Charles Karen Christopher Lisa Daniel Nancy Matthew Betty Anthony Sandra
    Mark Margaret Donald Ashley Anna Lukas Emma Léa Noah Zoë Björn Astrid Giulia Marco Sofia Hiroshi
    Yuki Jin Mei Wei Arjun Priya Omar Fatima
    """
)
MODALITIES = ["CT"] * 30 + ["MR"] * 25 + ["CR"] * 15 + ["DX"] * 15 + ["US"] * 10 + ["MG"] * 3 + ["NM", "XA"]
DESCRIPTIONS = [
    one.replace("_", " ")
    for one in words(
        """
    HEAD^ROUTINE CHEST_PA_AND_LATERAL ABDOMEN_WITH_CONTRAST KNEE_LEFT KNEE_RIGHT LUMBAR_SPINE BRAIN_MRA
    THORAX_LOW_DOSE PELVIS MAMMOGRAPHY_SCREENING CARDIAC_CTA WHOLE_BODY LIVER_DYNAMIC SHOULDER WRIST
    CERVICAL_SPINE
    """
    )
]
FIRST_DAY = date(2014, 1, 1)
DAYS = 365 * 12
WITH_INSTANCES = 1000


def generate(
    path: Path, studies: int, *, with_instances: int = WITH_INSTANCES, scattered: bool = False, attributes: int = 0
) -> None:
    """Write the index; what stood there is replaced."""
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        name.unlink(missing_ok=True)
    engine = create_engine(URL.create("sqlite", database=str(path)))
    metadata.create_all(engine)
    engine.dispose()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -400000;")
    connection.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    connection.execute("INSERT INTO alembic_version VALUES (?)", (HEAD,))
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    connection.execute("BEGIN")
    _fill(connection, studies, with_instances, _ROOTS[scattered], bytes(attributes) or None)
    for _, sql in indexes:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.executescript("PRAGMA journal_mode = WAL;")
    connection.close()


def generate_beside(archive: Path, studies: int, **options: Any) -> float:
    """Make the directory ``archive`` with an index, in a process of its own; gives the seconds it took."""
    began = time.monotonic()
    archive.mkdir()

    def job(start: Start) -> None:
        start()
        generate(archive / "index.sqlite", studies, **options)

    run_workers([job], seconds=1800)
    os.sync()
    return time.monotonic() - began


def _counting(_: int) -> str:
    return "1.2.826.0.1.3680043.9.7433"


def _scattered(study: int) -> str:
    """Under 2.25 (PS3.5 B.2); the same for the same study."""
    return f"2.25.{10**19 + random.Random(study).randrange(9 * 10**19)}"


_ROOTS = {False: _counting, True: _scattered}


def _fill(
    connection: sqlite3.Connection,
    studies: int,
    with_instances: int,
    root: Callable[[int], str],
    attributes: bytes | None,
) -> None:
    chance = random.Random(studies)
    patients = max(1, studies * 6 // 10)
    _insert(connection, "patient", Level.PATIENT, (_patient(at, chance, studies / patients) for at in range(patients)))
    _insert(connection, "study", Level.STUDY, (_study(at, chance, patients, root(at)) for at in range(studies)))
    _insert(connection, "series", Level.SERIES, (_series(at, chance, root(at // 3)) for at in range(studies * 3)))
    series = range(min(studies, with_instances) * 3)
    instances = (_instance(at, number, base) for at in series for base in (root(at // 3),) for number in range(67))
    _insert(connection, "instance", Level.IMAGE, (one | {"attributes": attributes} for one in instances))


def _patient(at: int, chance: random.Random, share: float) -> dict[str, object]:
    name = f"{chance.choice(FAMILIES)}^{chance.choice(GIVEN)}^{chance.choice('ABCDEFGHIJKLMNOPQRSTUVWXYZ')}{at % 997}"
    born = date(1920, 1, 1) + timedelta(chance.randrange(36500))
    return {
        "id": at + 1,
        "identity": f"PID{at:08d}\\",
        "patient_name": name,
        "patient_name_sounds": name_sounds(name),
        "patient_id": f"PID{at:08d}",
        "patient_birth_date": f"{born:%Y%m%d}",
        "patient_sex": chance.choice("MFO"),
        "number_of_studies": round(share),
        "number_of_series": round(share * 3),
        "number_of_instances": round(share * 200),
    }


def _study(at: int, chance: random.Random, patients: int, root: str) -> dict[str, object]:
    day = FIRST_DAY + timedelta(chance.randrange(DAYS))
    modality = MODALITIES[at % len(MODALITIES)]
    return {
        "id": at + 1,
        "patient_fk": at % patients + 1,
        "study_instance_uid": f"{root}.1.{at}",
        "study_date": f"{day:%Y%m%d}",
        "study_time": f"{chance.randrange(24):02d}{chance.randrange(60):02d}{chance.randrange(60):02d}",
        "accession_number": f"ACC{at:09d}",
        "study_id": str(at % 1000),
        "study_description": chance.choice(DESCRIPTIONS),
        "referring_physician_name": f"{chance.choice(FAMILIES)}^{chance.choice(GIVEN)}^^Dr",
        "institution_name": "General Hospital",
        "patient_age": f"{chance.randrange(100):03d}Y",
        "modalities": modality if at % 10 else f"{modality}\\SR",
        "sop_classes": "1.2.840.10008.5.1.4.1.1.2",
        "number_of_series": 3,
        "number_of_instances": 200,
    }


def _series(at: int, chance: random.Random, root: str) -> dict[str, object]:
    return {
        "id": at + 1,
        "study_fk": at // 3 + 1,
        "series_instance_uid": f"{root}.2.{at}",
        "modality": MODALITIES[at // 3 % len(MODALITIES)],
        "series_number": str(at % 3 + 1),
        "series_description": chance.choice(DESCRIPTIONS),
        "body_part_examined": "CHEST",
        "number_of_instances": 67 if at % 3 else 66,
    }


def _instance(series: int, number: int, root: str) -> dict[str, object]:
    return {
        "series_fk": series + 1,
        "sop_instance_uid": f"{root}.3.{series}.{number}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "instance_number": str(number + 1),
        "rows_": 512,
        "columns_": 512,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "data_set_offset": 400,
        "data_set_length": 526_000,
        "digest": bytes(16),
        "received_at": 1_700_000_000,
    }


def _insert(connection: sqlite3.Connection, table: str, level: Level, rows: Iterator[dict[str, object]]) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    keys = [key for key in KEYS if key.level is level and key.match != key.column]
    normal: dict[tuple[str, object], object] = {}

    def complete(row: dict[str, object]) -> list[object]:
        for key in keys:
            text = row.get(key.column)
            if isinstance(text, str):
                form = normal.get((key.vr, text))
                if form is None:
                    form = normal[key.vr, text] = normalise(key.vr, text)
                row[key.match] = form
        return [row.get(name) for name in columns]

    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", map(complete, rows))


if __name__ == "__main__":
    started = time.monotonic()
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    generate(Path(sys.argv[1]), wanted)
    print(f"{wanted} studies in {time.monotonic() - started:.0f} s, {Path(sys.argv[1]).stat().st_size >> 20} MiB")
