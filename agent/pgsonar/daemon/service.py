"""The daemon's life: it starts the parts, calls the ticks, answers for its health, and stops within seconds.

The rule: a tick that fails is logged, counted and tried again; nothing but a signal ends the service.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pgsonar import __version__, clock
from pgsonar.clock import Due
from pgsonar.config.fingerprint import config_hash
from pgsonar.config.fixed import refuse_fixed
from pgsonar.config.schema import SIGNALS, Config
from pgsonar.daemon.answer import health_of
from pgsonar.daemon.condition import lacks
from pgsonar.daemon.exporting import Exporting
from pgsonar.daemon.health import Health, HealthEndpoint
from pgsonar.daemon.opening import OpenSources, host_id, open_sources, reopen_sources
from pgsonar.daemon.own import OwnAccount
from pgsonar.daemon.process import set_up_log
from pgsonar.daemon.scraping import Scraping
from pgsonar.errors import PgsonarError
from pgsonar.exporters import ExporterStats
from pgsonar.model import EpisodeEvent, Lack
from pgsonar.pipeline.budget import Budget, Usage
from pgsonar.pipeline.pipeline import Pipeline
from pgsonar.pipeline.reporting import Outlet, Reporter
from pgsonar.signals.identity import Identity
from pgsonar.sources.privileges import hidden_processes

if TYPE_CHECKING:
    from pgsonar.daemon.memory import MemoryLimit
    from pgsonar.daemon.storage import StateDirectory
    from pgsonar.recording.flight import FlightRecorder
    from pgsonar.recording.recorder import Recorder, Sink

log = logging.getLogger("pgsonar")

LOGIN_STOPS_WITHIN = 0.5  # seconds in the end, all together; a question under way ends with the process
DISCOVER = 2.0  # seconds between looks for servers; every second while there is none
FIRST_METRICS = 1_000_000_000  # ns after the start
TITLES = 0.25
SLOWEST_TITLES = 1.0  # when max_cpu stretches them
SETTLE = 1.0
LOOK = 0.5
KEEP = 10.0  # between two times that what is open is written down, when nothing was told of it
DRAIN = 0.1
SETTLE_WITHIN = 0.2  # seconds that encoding what was told may take before the state is written
STOP_WITHIN = 4.0  # seconds until the exporters have flushed; SIGTERM promises five in all


def _say_budget(budget: Budget) -> None:
    if budget.reason == "max_cpu":
        log.warning(
            "scanning every %.0f ms instead of as configured: the agent would take more than %.1f %% of a core "
            "(raise receivers.sockets.max_cpu to scan more often)",
            budget.interval * 1000,
            budget.share * 100,
        )
    else:
        log.info("scanning every %.0f ms again, as configured", budget.interval * 1000)


def _identity(config: Config) -> Identity:
    return Identity(host=socket.gethostname(), host_id=host_id(), version=__version__, extra=config.telemetry.resource)


class Service:
    """Runs until `stop` is set."""

    def __init__(
        self,
        config: Config,
        stop: threading.Event | None = None,
        sink: Sink | None = None,
        load: Callable[[], Config] | None = None,
        reload: threading.Event | None = None,
    ) -> None:
        """What the pipeline reads is written to `sink` as well, else to the flight recorder, if that is on.

        `load` reads the configuration anew when `reload` is set.
        """
        self.stop = stop or threading.Event()
        self.reload = reload or threading.Event()
        self._load = load
        self._refused: str | None = None  # what is wrong with the configuration that was read last
        self._config = config
        self._state = self._open_state()
        self._kept = -1  # events that had been told when the state was written last
        self._retold: list[EpisodeEvent] = []  # what the run before may not have told, and has in its journal
        self._keep = Due(KEEP)
        self._flight = self._open_flight_recorder()
        self._exporting = Exporting(config, self._state.path if self._state is not None else None)
        self._scraping = Scraping(config)
        self._sources = open_sources(config)
        self._recorder: Recorder | None = None
        self._reporter = Reporter(self._outlets(), _identity(config), clock.now().unix, config.telemetry, self._journal)
        self._pipeline = self._make_pipeline(self._reporter, sink or self._flight)
        self._own = OwnAccount(config_hash(config), self._stats, self._lacks, self._scraping.export_own)
        self._reporter.own = self._own
        self._health: HealthEndpoint | None = None
        self._memory: MemoryLimit | None = None
        self._limit_memory()
        self._waiting_said = False
        self._title_cpu = 0  # ns
        self._titles = Due(TITLES)
        self._metrics = Due(config.telemetry.metrics.interval, clock.now().at + FIRST_METRICS)
        self._failed_stages: set[str] = set()

    def _limit_memory(self) -> None:
        """As configured, from now on."""
        settings = self._config.memory_limiter
        self._memory, self._exporting.refuses_metrics = None, False
        if settings is not None:
            from pgsonar.daemon.memory import MemoryLimit  # noqa: PLC0415 - ctypes, for those who limit it

            self._memory, self._check_memory = MemoryLimit(settings), Due(settings.check_interval)

    def _open_state(self) -> StateDirectory | None:
        if self._config.file_storage is None:
            return None
        from pgsonar.daemon.storage import StateDirectory  # noqa: PLC0415 - SQLite, for those who keep state

        return StateDirectory(self._config.file_storage.directory)

    def _open_flight_recorder(self) -> FlightRecorder | None:
        if self._config.flight_recorder is None:
            return None
        from pgsonar.recording.flight import FlightRecorder  # noqa: PLC0415 - memory, for those who record

        return FlightRecorder(self._config.flight_recorder)

    def _stats(self) -> dict[str, ExporterStats]:
        """What each exporter has done, by its id."""
        pushed = {name: exporter.stats for name, exporter in self._exporting.exporters.items()}
        return pushed | self._scraping.stats()

    def _lacks(self) -> list[Lack]:
        """What is missing, failing exporters left out."""
        return [*lacks(self._pipeline), *self._lacks_of_its_own()]

    def _lacks_of_its_own(self) -> list[Lack]:
        found = hidden_processes()
        stores = [store for store in (self._state, self._exporting) if store is not None]
        found += [Lack("state", "file_storage", store.problem) for store in stores if store.problem]
        return found + ([Lack("exporter", "telemetry", self._scraping.problem)] if self._scraping.problem else [])

    def _make_pipeline(self, reporter: Reporter, sink: Sink | None) -> Pipeline:
        config = self._config
        if sink is None:
            return Pipeline(self._sources, config.leaks, reporter)
        from pgsonar.recording.hiding import Hiding  # noqa: PLC0415 - the same
        from pgsonar.recording.recorder import RecordedPipeline, Recorder, header_of  # noqa: PLC0415 - the same

        hiding = Hiding(config.telemetry.redaction, reporter.redaction)
        recorder = Recorder(sink, hiding, header_of(config, hiding, socket.gethostname(), clock.now().unix))
        self._recorder = recorder
        return RecordedPipeline(self._sources, config.leaks, reporter, recorder)

    def _outlets(self) -> dict[str, list[Outlet]]:
        outlets: dict[str, list[Outlet]] = {signal: [self._exporting] for signal in SIGNALS}
        if self._flight is not None:
            outlets["logs"].append(self._flight)
        outlets["metrics"].append(self._scraping)
        return outlets

    def run(self) -> None:
        """Starts everything, works until `stop` is set, then flushes."""
        for warning in self._config.warnings:
            log.warning("%s", warning)
        self._open_health()
        self._sources.sampler.start()
        for poller in self._sources.pollers():
            poller.start()
        if self._state is not None:
            now = clock.now()
            self._pipeline.resume(self._state.load(now), now.at)
            self._retold = self._state.untold(now)
            self._reporter.tell(self._retold)
        try:
            self._work()
        finally:
            self._close()

    def _work(self) -> None:
        pipeline = self._pipeline
        start = clock.now().at
        discover, look = Due(DISCOVER), Due(LOOK, start + round(LOOK * 1e9))
        settle = Due(SETTLE, start + 2_000_000_000)  # what starting took is not what running takes
        while not self.stop.wait(min(DRAIN, max(self._config.sockets.interval, 0.02))):
            at = clock.now().at
            if self.reload.is_set():
                self.reload.clear()
                self._guard("reload", self._reload)
                discover.next = at
            if discover(at):
                self._guard("discovery", lambda: pipeline.discover(clock.now()))
                self._say_waiting()
                if not pipeline.servers and self._sources.sees_servers:
                    discover.next = at + 1_000_000_000
            self._guard("changes", pipeline.fast_tick)
            if self._titles(at):
                self._guard("titles", self._read_titles)
            if look(at):
                self._guard("detection", lambda: pipeline.slow_tick(clock.now()))
                self._guard("state", self._keep_state)
            if self._metrics(at):
                self._guard("metrics", lambda: pipeline.export_tick(clock.now()))
            if self._memory is not None and self._check_memory(at):
                self._guard("memory", partial(self._memory.keep, self._exporting))
            if settle(at):
                self._guard("budget", self._keep_budget)

    def _reload(self) -> None:
        """Reads the configuration anew. One that is wrong is refused as a whole, and the one before runs on."""
        if self._load is None:
            return
        try:
            config = self._load()
            refuse_fixed(self._config, config)
            ways = self._exporting.prepare(config)
            sources = reopen_sources(self._sources, self._config, config)
        except PgsonarError as error:
            self._refused = str(error)
            log.error(  # noqa: TRY400 - no fault of ours: the message says it all
                "the new configuration is refused, the one before runs on: %s%s",
                error,
                f" (hint: {error.hint})" if error.hint else "",
            )
            return
        self._refused = None
        before, self._config = self._config, config
        for warning in config.warnings:
            log.warning("%s", warning)
        if config.telemetry.logs != before.telemetry.logs:
            set_up_log(config.telemetry.logs)
        self._exporting.apply(config, ways)
        self._scraping.apply(config)
        self._own.config_hash = config_hash(config)
        self._reporter.configure(_identity(config), config.telemetry)
        self._metrics.set_period(config.telemetry.metrics.interval)
        self._use(sources, before)
        if config.memory_limiter != before.memory_limiter:
            self._limit_memory()
        if config.health_check != before.health_check:
            self._close_health()
            self._open_health()
        log.info("the configuration was read anew")

    def _use(self, sources: OpenSources, before: Config) -> None:
        """Goes on with other sources; those that stay are not disturbed."""
        config, known = self._config, self._sources
        if config.sockets.interval != before.sockets.interval:
            sources.sampler.set_interval(config.sockets.interval)
        self._sources = sources
        if self._recorder is not None:
            self._recorder.begin_anew(config, socket.gethostname(), clock.now().unix)
        self._pipeline.reconfigure(sources, config.leaks, clock.now().at)
        for poller in sources.pollers():
            if poller not in known.pollers():
                poller.start()
        for poller in known.pollers():
            if poller not in sources.pollers():
                poller.stop(0)
        if known.probe is not None and sources.probe is None:
            known.probe.close()

    def _journal(self, events: list[EpisodeEvent]) -> None:
        """Writes down what is about to be told, so that an agent killed meanwhile tells it when it is back."""
        if self._state is not None and events is not self._retold:
            self._state.save(self._pipeline.episodes.open, clock.now(), events)

    def _keep_state(self) -> None:
        """Writes down what is open whenever something was told of it, and now and then who is in it."""
        episodes, now = self._pipeline.episodes, clock.now()
        if self._state is None or (episodes.told == self._kept and not (episodes.open and self._keep(now.at))):
            return
        if not self._exporting.settle(SETTLE_WITHIN):
            return  # what is being told is not in the queues yet: it stays written down
        if self._state.save(episodes.open, now):
            self._kept = episodes.told

    def _read_titles(self) -> None:
        begun = time.thread_time_ns()
        self._pipeline.title_tick(clock.now().at)
        self._title_cpu += time.thread_time_ns() - begun

    def _keep_budget(self) -> None:
        """Looks as often as receivers.sockets.max_cpu lets it, no more often than asked."""
        budget = self._sources.budget
        before, was = budget.interval, budget.reason
        work = self._pipeline.namespaces.cpu() + self._title_cpu
        budget.settle(Usage(clock.now().at, time.process_time_ns(), work))
        if budget.interval == before:
            return
        self._sources.sampler.set_interval(budget.interval)
        self._titles.set_period(min(TITLES * budget.stretch, SLOWEST_TITLES))
        if budget.reason != was:
            _say_budget(budget)

    def _guard(self, stage: str, tick: Callable[[], object]) -> None:
        """One stage that fails does not take the others with it."""
        try:
            tick()
        except Exception:
            self._pipeline.failures[stage] += 1
            if stage not in self._failed_stages:
                self._failed_stages.add(stage)
                log.exception("%s failed and is tried again; further failures are counted in the health answer", stage)
        else:
            self._failed_stages.discard(stage)

    def _say_waiting(self) -> None:
        if not self._sources.sees_servers:
            return
        if not self._pipeline.servers and not self._waiting_said:
            self._waiting_said = True
            log.info("no PostgreSQL server runs here yet: waiting for one")
        elif self._pipeline.servers:
            self._waiting_said = False

    def _close_health(self) -> None:
        if self._health is not None:
            self._health.close()
            self._health = None

    def _open_health(self) -> None:
        if self._config.health_check is None:
            return
        endpoint = self._config.health_check.endpoint
        try:
            self._health = HealthEndpoint(endpoint, self.health)
        except OSError as error:
            log.warning("no health endpoint at %s: %s (set extensions.health_check.endpoint)", endpoint, error.strerror)
            return
        self._health.start()

    def health(self) -> Health:
        """How the agent is, for whoever asks."""
        facts = {} if self._flight is None else {"flight_recorder": self._flight.report()}
        hides_clients = self._config.telemetry.redaction.is_on
        return health_of(
            self._pipeline,
            self._sources,
            self._stats(),
            others=self._reasons(),
            facts=facts,
            hides_clients=hides_clients,
        )

    def _reasons(self) -> list[str]:
        """What is the matter beside what is looked at, and with whom it is told."""
        reasons = [lack.text for lack in self._lacks_of_its_own()]
        if self._refused:
            reasons.append(f"the configuration was refused, the one before runs on: {self._refused}")
        if self._memory is not None and self._memory.problem:
            reasons.append(self._memory.problem)
        return reasons

    def _close(self) -> None:
        """Stops scanning, ends what is open, and gives every exporter what is left of the time to flush."""
        log.info("stopping")
        begun = time.monotonic()
        self._sources.sampler.stop()
        for poller in self._sources.pollers():
            poller.stop(0)
        self._guard("stop", lambda: self._pipeline.stop(clock.now(), ends=self._state is None))
        if self._state is not None:
            self._guard("state", self._keep_state)
            self._state.close()
        if self._flight is not None:
            self._flight.close()
        self._scraping.close()
        self._exporting.close(max(0.0, begun + STOP_WITHIN - time.monotonic()))
        self._close_health()
        for poller in self._sources.pollers():
            poller.stop(max(0.0, begun + LOGIN_STOPS_WITHIN - time.monotonic()))
        self._sources.sampler.close()
