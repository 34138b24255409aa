"""The generator: storing clients in a process of their own that keep a history until the server is gone or time is up.

Each association sends a few instances and is followed by another. Half of the instances go into one study that all
associations share, so that its first objects meet; every tenth is sent once more by the next association, under another
AE title.
"""

import argparse
import asyncio
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.history import Recorder
from tests.support.instances import Instance, make_instance
from tests.support.wire import CT_IMAGE, AbortedError, Context, RejectedError, Wire

__all__ = ["main", "work"]

SIZES = (600, 2_000, 4_096, 20_000, 20_000, 65_536, 65_536, 131_072, 524_288)


def _work(arguments: argparse.Namespace, worker: int, numbers: Iterator[int]) -> Iterator[Instance]:
    chance = random.Random(f"{arguments.seed}/{worker}")
    for number in numbers:
        shared = chance.random() < 0.5
        yield make_instance(
            number,
            seed=arguments.seed,
            study=0 if shared else worker + 1,
            series=chance.randrange(3),
            size=arguments.size or chance.choice(SIZES),
        )


async def work(arguments: argparse.Namespace, worker: int, numbers: Iterator[int], recorder: Recorder) -> None:
    """One client: associations one after the other, until the server refuses or the time is up."""
    instances = _work(arguments, worker, numbers)
    again: Instance | None = None
    context = Context(1, CT_IMAGE)
    while time.monotonic() < arguments.until:
        calling = f"LOAD{worker}" if again is None else f"LOADS_AGAIN{worker}"  # headers of another length, too
        try:
            wire = await Wire.associate(arguments.port, [context], called=arguments.called, calling=calling)
        except (OSError, AbortedError, RejectedError):
            if not arguments.persist:
                return
            await asyncio.sleep(0.02)
            continue
        try:
            for instance in itertools.chain([again] if again else [], itertools.islice(instances, arguments.per)):
                recorder.invoke(instance)
                answer = await wire.store(instance.sop_class_uid, instance.sop_instance_uid, instance.data)
                recorder.answer(instance.sop_instance_uid, answer.status)
                again = instance if instance.sop_instance_uid.endswith("0") else None
                if time.monotonic() >= arguments.until:
                    break
            await wire.release()
        except (AbortedError, OSError):
            again = None
        finally:
            wire.close()


async def _run(arguments: argparse.Namespace) -> None:
    recorder = Recorder(arguments.history)
    numbers = itertools.count(arguments.first)
    arguments.until = time.monotonic() + arguments.seconds
    await asyncio.gather(*(work(arguments, worker, numbers, recorder) for worker in range(arguments.associations)))


def main() -> None:
    """See ``--help``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("history", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--called", default="PACSLITE")
    parser.add_argument("--associations", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="number of the first instance")
    parser.add_argument("--size", type=int, default=0, help="bytes of pixels; 0 mixes sizes")
    parser.add_argument("--per", type=int, default=12, help="instances an association")
    parser.add_argument("--persist", action="store_true", help="go on when the server refuses or is gone")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
