"""A Dagster storage that lives as long as the process: runs of one project see each other, and no disk is waited for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml
from dagster import DagsterInstance
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log import InMemoryEventLogStorage
from dagster._core.storage.runs import InMemoryRunStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from sqlalchemy import Connection, NullPool, create_engine, text


class _Runs(InMemoryRunStorage):
    def dispose(self) -> None:
        """An instance says that it is done with its copy; the next one goes on with what is here."""

    def close(self) -> None:
        super().dispose()


class _Events(InMemoryEventLogStorage):
    """Keeps one connection: Dagster's opens one for each statement, an eighth of a run's time."""

    def __init__(self) -> None:
        super().__init__()
        engine = create_engine(self._engine.url, poolclass=NullPool, connect_args={"check_same_thread": False})
        self._connection = engine.connect()
        with self._connection.begin():
            self._connection.execute(text("PRAGMA foreign_keys=ON"))

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._db_lock, self._connection.begin():
            yield self._connection

    def dispose(self) -> None:
        """As for the runs."""

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()
        super().dispose()  # type: ignore[no-untyped-call]


_KEPT: dict[str, tuple[_Runs, _Events]] = {}


@contextmanager
def kept_in_memory(home: Path) -> Iterator[None]:
    """Let the Dagster instance of this folder keep its runs and events in memory."""
    own = {"module": __name__, "class": MemoryStorage.__name__, "config": {"name": str(home)}}
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"custom": own}, "telemetry": {"enabled": False}}))
    runs, events = _KEPT.setdefault(str(home), (_Runs(), _Events()))
    yield
    del _KEPT[str(home)]
    runs.close()
    events.close()


class MemoryStorage(DagsterStorage[DagsterInstance], ConfigurableClass):
    """What a ``dagster.yaml`` names."""

    def __init__(self, inst_data: ConfigurableClassData | None, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inst_data = inst_data
        # A storage belongs to one instance; copies of it share its tables.
        runs, events = _KEPT[name]
        self._runs, self._events = copy.copy(runs), copy.copy(events)

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        return {"name": str}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data, **config_value)

    @property
    def run_storage(self) -> InMemoryRunStorage:
        return self._runs

    @property
    def event_log_storage(self) -> InMemoryEventLogStorage:
        return self._events

    @property
    def schedule_storage(self) -> Any:
        """None: nothing is scheduled."""
        return None

    @property
    def run_storage_data(self) -> None: ...

    @property
    def event_storage_data(self) -> None: ...

    @property
    def schedule_storage_data(self) -> None: ...
