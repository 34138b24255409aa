"""A listener over real loopback sockets with services of the tests' own, on the loop that the server runs on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop

from tests.support.site import MakeSite, Site


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as in production; modules that say BOTH_LOOPS run on asyncio's own besides."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    module = item.getparent(pytest.Module)
    if module is not None and getattr(module.obj, "BOTH_LOOPS", False):
        loops["asyncio"] = asyncio.new_event_loop
    return loops


@pytest.fixture
async def make_site() -> AsyncIterator[MakeSite]:
    """Makes sites, each started by the test; at the end all are stopped, and nothing may be left of them."""
    made: list[Site] = []
    problems: list[Mapping[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    before = asyncio.all_tasks()

    def make(**options: Any) -> Site:
        made.append(Site(**options))
        return made[-1]

    yield make
    for site in made:
        await site.stop()
        site.assert_clean()
    await asyncio.sleep(0)
    assert not problems
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


@pytest.fixture
async def site(make_site: MakeSite) -> Site:
    """One with nothing special about it."""
    made = make_site()
    await made.start()
    return made
