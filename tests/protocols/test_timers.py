"""Timers of a Manager."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from asyncmg import ManagerClosed

from .conftest import Harness, eventually, soon


async def test_one_shot(harness: Harness) -> None:
    manager = harness.manager()
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    begun = loop.time()
    timer = manager.timer_add(30, lambda: fired.append(loop.time()))
    assert timer.active and "inactive" not in repr(timer)
    await eventually(lambda: fired)
    assert 0.028 <= fired[0] - begun < 0.5
    assert not timer.active and "inactive" in repr(timer)
    await asyncio.sleep(0.07)
    assert len(fired) == 1
    timer.cancel()  # nothing happens


async def test_repeating_keeps_to_its_grid(harness: Harness) -> None:
    manager = harness.manager()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    fired: list[float] = []
    timer = manager.timer_add(20, lambda: fired.append(loop.time() - begun), repeat=True)
    await eventually(lambda: len(fired) >= 15)
    ticks = [at / 0.02 for at in fired]
    late = [tick - round(tick - 0.3) for tick in ticks]  # part of an interval behind the grid
    assert all(part >= -0.15 for part in late)
    assert sum(late[-5:]) / 5 < 0.5, "no drift"
    slots = [round(tick - 0.3) for tick in ticks]
    assert slots == sorted(set(slots)) and slots[-1] == len(fired) + timer.skipped


async def test_missed_calls_are_skipped_not_made_up_for(harness: Harness) -> None:
    import time

    manager = harness.manager()
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    timer = manager.timer_add(10, lambda: fired.append(loop.time()), repeat=True)
    await eventually(lambda: fired)
    time.sleep(0.105)  # the loop is held up for ten intervals
    count = len(fired)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(fired) - count <= 2
    assert timer.skipped >= 8


@pytest.mark.parametrize("repeat", [False, True])
async def test_run_now(harness: Harness, repeat: bool) -> None:
    manager = harness.manager()
    fired: list[int] = []
    timer = manager.timer_add(40, lambda: fired.append(1), repeat=repeat, run_now=True)
    assert fired == [], "not inside timer_add"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert fired == [1] and timer.active
    await eventually(lambda: len(fired) == 2)
    assert timer.active is repeat


async def test_an_async_callback_is_never_run_twice_at_a_time(harness: Harness) -> None:
    running = most = runs = 0

    async def callback() -> None:
        nonlocal running, most, runs
        running += 1
        runs += 1
        most = max(most, running)
        await asyncio.sleep(0.035)
        running -= 1

    timer = harness.manager().timer_add(10, callback, repeat=True)
    await eventually(lambda: runs >= 3)
    assert most == 1 and timer.skipped >= 4


async def test_cancel_before_inside_and_twice(harness: Harness) -> None:
    manager = harness.manager()
    fired: list[str] = []
    never = manager.timer_add(5, lambda: fired.append("never"), run_now=True)
    never.cancel()
    never.cancel()
    assert not never.active

    def once() -> None:
        fired.append("once")
        inside.cancel()

    inside = manager.timer_add(5, once, repeat=True)
    await eventually(lambda: fired)
    await asyncio.sleep(0.03)
    assert fired == ["once"] and not inside.active


async def test_cancel_of_an_async_callback_lets_it_finish(harness: Harness) -> None:
    done: list[int] = []

    async def callback() -> None:
        timer.cancel()
        await asyncio.sleep(0.01)
        done.append(1)

    timer = harness.manager().timer_add(1, callback, repeat=True)
    await eventually(lambda: done)
    await asyncio.sleep(0.02)
    assert done == [1]


async def test_cancel_from_another_thread(harness: Harness) -> None:
    manager = harness.manager()
    fired: list[int] = []
    timer = manager.timer_add(60, lambda: fired.append(1))
    thread = threading.Thread(target=timer.cancel)
    thread.start()
    await eventually(lambda: not thread.is_alive())
    thread.join()
    assert not timer.active
    await eventually(lambda: not manager._timers)
    await asyncio.sleep(0.08)
    assert fired == []


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_errors_go_to_the_error_handler_and_the_timer_lives(harness: Harness, kind: str) -> None:
    calls: list[int] = []

    def callback() -> None:
        calls.append(1)
        raise ValueError("in a timer")

    async def callback_async() -> None:
        callback()

    timer = harness.manager().timer_add(5, callback if kind == "sync" else callback_async, repeat=True)
    await eventually(lambda: len(calls) >= 3)
    assert timer.active
    await eventually(lambda: len(harness.errors) >= 3)
    assert {str(error) for error in harness.errors} == {"in a timer"}
    timer.cancel()


async def test_zero_milliseconds(harness: Harness) -> None:
    fired: list[str] = []
    manager = harness.manager()
    manager.timer_add(0, lambda: fired.append("once"))
    assert not fired
    await eventually(lambda: fired)
    again = manager.timer_add(0, lambda: fired.append("again"), repeat=True)
    await eventually(lambda: fired.count("again") >= 10)  # the loop still turns for others
    again.cancel()


async def test_arguments_are_checked(harness: Harness) -> None:
    manager = harness.manager()
    with pytest.raises(OverflowError):
        manager.timer_add(-1, lambda: None)
    for wrong in ("10", None):
        with pytest.raises(TypeError):
            manager.timer_add(wrong, lambda: None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        manager.timer_add(1, None)  # type: ignore[arg-type]
    with pytest.raises((ValueError, OverflowError)):
        manager.timer_add(float("nan"), lambda: None)  # type: ignore[arg-type]
    assert not manager._timers


async def test_nothing_fires_after_the_end(harness: Harness) -> None:
    fired: list[Any] = []
    manager = harness.manager()
    timers = [manager.timer_add(5, lambda: fired.append(1), repeat=repeat) for repeat in (False, True)]
    hanging = asyncio.Event()
    manager.timer_add(0, hanging.wait)
    await asyncio.sleep(0)
    await soon(manager.shutdown(0))
    count = len(fired)
    await asyncio.sleep(0.03)
    assert len(fired) == count and not any(timer.active for timer in timers)
    assert not manager._timers and not manager._tasks
    with pytest.raises(ManagerClosed):
        manager.timer_add(1, lambda: None)
