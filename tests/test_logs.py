"""log_set() and log_get(): levels of Mongoose on the loggers of asyncmg."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from asyncmg import logs
from asyncmg.logs import MG_LL_DEBUG, MG_LL_ERROR, MG_LL_INFO, MG_LL_NONE, MG_LL_VERBOSE, log_get, log_set


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_level", MG_LL_NONE)
    level = logging.getLogger("asyncmg").level
    yield
    logging.getLogger("asyncmg").setLevel(level)


def test_the_numbers_of_mongoose() -> None:
    assert (MG_LL_NONE, MG_LL_ERROR, MG_LL_INFO, MG_LL_DEBUG, MG_LL_VERBOSE) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (MG_LL_NONE, []),
        (-7, []),
        (MG_LL_ERROR, ["ERROR", "CRITICAL"]),
        (MG_LL_INFO, ["INFO", "WARNING", "ERROR", "CRITICAL"]),
        (MG_LL_DEBUG, ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
        (MG_LL_VERBOSE, ["Level 5", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
        (2**70, ["Level 5", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
    ],
)
def test_levels(level: int, shown: list[str]) -> None:
    records: list[logging.LogRecord] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Collect()
    logging.getLogger("asyncmg").addHandler(handler)
    try:
        log_set(level=level)
        for number in (5, 10, 20, 30, 40, 50):
            logging.getLogger("asyncmg.mqtt").log(number, "message")
    finally:
        logging.getLogger("asyncmg").removeHandler(handler)
    assert [record.levelname for record in records] == shown
    assert log_get() == level


def test_only_ints() -> None:
    wrong: Any
    for wrong in ("2", None, 1.5):
        with pytest.raises(TypeError):
            log_set(wrong)
    assert log_get() == MG_LL_NONE


def test_without_a_call_nothing_changes() -> None:
    """In a process of its own: pytest has handlers."""
    program = (
        "import logging, asyncmg.logs as logs; log = logging.getLogger('asyncmg.ws'); log.error('seen'); "
        "assert logs.log_get() == 0; logs.log_set(0); log.critical('unseen'); logs.log_set(1); log.error('again')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stderr.split() == ["seen", "again"]
