"""The standard OTEL_* variables as a configuration: what pgsonar does when nothing else says where to send.

The rule: where no exporter is declared, the variables make the default one, or one for each signal where the
per-signal variables ask for different ones. Where exporters are declared, OTEL_EXPORTER_OTLP_ENDPOINT, its per-signal
variants and OTEL_EXPORTER_OTLP_HEADERS fill an OTLP exporter that has no endpoint of its own (the headers never go to
an endpoint that a file names: they are another's secret); every other exporter variable is left alone, with a warning.
OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME stand below `service.telemetry.resource` always.
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

from pgsonar.config.addresses import DEFAULT_ENDPOINTS, Unusable, display, url
from pgsonar.config.grpc_targets import grpc_target
from pgsonar.config.problems import Problems
from pgsonar.config.reading import Document
from pgsonar.config.schema import SIGNALS
from pgsonar.model import is_own_attribute

_OTLP = "OTEL_EXPORTER_OTLP_"
_RESOURCE = "service.telemetry.resource"
_EXPORTER_OF_PROTOCOL = {"http/protobuf": "otlp_http", "grpc": "otlp_grpc"}
_TLS_FILES = {"CERTIFICATE": "ca_file", "CLIENT_CERTIFICATE": "cert_file", "CLIENT_KEY": "key_file"}
_VARIABLE_OF = {  # others are called as the key is
    **{key: name for name, key in _TLS_FILES.items()},
    "temporality": "METRICS_TEMPORALITY_PREFERENCE",
}
_SIGNAL_PREFIXES = tuple(f"{signal.upper()}_" for signal in SIGNALS)
_PER_SIGNAL = ("ENDPOINT", "PROTOCOL", "HEADERS", "COMPRESSION", "TIMEOUT", "INSECURE", *_TLS_FILES)
_TEMPORALITY = f"{_OTLP}METRICS_TEMPORALITY_PREFERENCE"
_TEMPORALITIES = ("cumulative", "delta", "lowmemory")
_URLS = ("http://", "https://")  # they say themselves whether there is TLS
# Below it seconds were probably meant, which some SDKs take the same variables for: 10, 30, 60 or 120 of them.
_SECONDS_MEANT = 200
_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')  # not one between quotes: an even number of quotes follows


class Defaults(NamedTuple):
    """The exporters the variables make, and which one each signal goes to."""

    exporters: Document
    of_signal: dict[str, str]


class _Exporter(NamedTuple):
    type: str
    own_endpoint: str | None  # of one signal
    settings: Document


def without_own(attributes: Mapping[str, str], key: str, problems: Problems) -> dict[str, str]:
    """What a user may say of the resources, with a warning that names what is left out."""
    own = [name for name in attributes if is_own_attribute(name)]
    if own:
        what = "is" if len(own) == 1 else "are"
        problems.warn(key, f"{', '.join(own)} {what} pgsonar's own to say: left out")
    return {name: value for name, value in attributes.items() if name not in own}


class Environment:
    """The OTEL_* variables of one environment. An empty variable counts as not set."""

    def __init__(self, environ: Mapping[str, str], problems: Problems) -> None:
        self._set = {name: text.strip() for name, text in environ.items() if name.startswith("OTEL_") and text.strip()}
        self._problems = problems
        self._used: set[str] = set()
        self._warned: set[str] = set()

    def resource(self) -> dict[str, str]:
        """Resource attributes; OTEL_SERVICE_NAME wins over a service.name among the attributes."""
        written = self._pairs("OTEL_RESOURCE_ATTRIBUTES", self._set.get("OTEL_RESOURCE_ATTRIBUTES", ""))
        attributes = without_own(written, "OTEL_RESOURCE_ATTRIBUTES", self._problems)
        if name := self._set.get("OTEL_SERVICE_NAME"):
            attributes["service.name"] = name
            self._problems.origins.note_below(f"{_RESOURCE}.service.name", name, "OTEL_SERVICE_NAME")
        self._problems.origins.note_below(_RESOURCE, attributes, "OTEL_RESOURCE_ATTRIBUTES")
        return attributes

    def metric_interval(self) -> str | None:
        """OTEL_METRIC_EXPORT_INTERVAL as a duration of ours."""
        variable = "OTEL_METRIC_EXPORT_INTERVAL"
        self._used.add(variable)
        interval = self._milliseconds(variable)
        self._problems.origins.note_below("service.telemetry.metrics.interval", interval, variable)
        return interval

    def defaults(self) -> Defaults:
        """The default OTLP exporter, with everything the variables say."""
        self._used |= {"OTEL_SDK_DISABLED", _TEMPORALITY}
        self._used |= {f"{_OTLP}{prefix}{name}" for name in _PER_SIGNAL for prefix in ("", *_SIGNAL_PREFIXES)}
        if self._set.get("OTEL_SDK_DISABLED", "").lower() == "true":
            self._problems.warn("OTEL_SDK_DISABLED", "is true: nothing is sent anywhere")
            return Defaults({}, {})
        found: dict[str, _Exporter] = {signal: self._exporter(signal) for signal in SIGNALS}
        first = found["metrics"]
        if any((one.type, one.settings) != (first.type, first.settings) for one in found.values()):
            return self._one_each(found)
        settings = {f"{signal}_endpoint": one.own_endpoint for signal, one in found.items() if one.own_endpoint}
        if general := self._endpoint(first.type, f"{_OTLP}ENDPOINT"):
            settings["endpoint"] = general
        settings |= first.settings
        self._note(f"exporters.{first.type}", first.type, settings, "metrics")
        return Defaults({first.type: settings}, dict.fromkeys(SIGNALS, first.type))

    def fill(self, key: str, exporter_type: str, written: Document) -> Document:
        """A declared OTLP exporter, with what the variables add where the file names no endpoint."""
        if any(written.get(key) for key in ("endpoint", *(f"{signal}_endpoint" for signal in SIGNALS))):
            return written
        protocol = self._set.get(f"{_OTLP}PROTOCOL")
        if protocol is not None and _EXPORTER_OF_PROTOCOL.get(protocol) != exporter_type:
            return written
        self._used.add(f"{_OTLP}PROTOCOL")
        added: Document = {}
        variables = {"endpoint": f"{_OTLP}ENDPOINT"}
        if exporter_type == "otlp_http":
            variables |= {f"{signal}_endpoint": f"{_OTLP}{signal.upper()}_ENDPOINT" for signal in SIGNALS}
        for name, variable in variables.items():
            if endpoint := self._endpoint(exporter_type, variable):
                added[name] = endpoint
        if written.get("headers") is None and f"{_OTLP}HEADERS" in self._set:
            added["headers"] = self._pairs(f"{_OTLP}HEADERS", self._set[f"{_OTLP}HEADERS"])
            self._used.add(f"{_OTLP}HEADERS")
        if exporter_type == "otlp_grpc" and "endpoint" in added and written.get("tls") is None:
            added["tls"] = {"insecure": self._insecure()}
        self._note(key, exporter_type, added, "")
        return written | added

    def warn_of_unused(self) -> None:
        """Names the exporter variables that had no say."""
        unused = sorted(
            name
            for name in self._set
            if name not in self._used
            and (name.startswith(_OTLP) or name in ("OTEL_SDK_DISABLED", "OTEL_METRIC_EXPORT_INTERVAL"))
        )
        if unused:
            self._problems.warn(", ".join(unused), "without effect here")

    def _one_each(self, found: dict[str, _Exporter]) -> Defaults:
        exporters: Document = {}
        of_signal = {}
        for signal, one in found.items():
            endpoint: Document = {}
            if one.own_endpoint:
                endpoint = {f"{signal}_endpoint": one.own_endpoint}
            elif one.type == "otlp_http":
                endpoint = {"endpoint": self._endpoint(one.type, f"{_OTLP}ENDPOINT")}
            of_signal[signal] = f"{one.type}/{signal}"
            exporters[of_signal[signal]] = endpoint | one.settings
            self._note(f"exporters.{of_signal[signal]}", one.type, exporters[of_signal[signal]], signal)
        return Defaults(exporters, of_signal)

    def _exporter(self, signal: str) -> _Exporter:
        protocol_variable, protocol = self._find("PROTOCOL", signal) or ("", "http/protobuf")
        exporter_type = _EXPORTER_OF_PROTOCOL.get(protocol)
        if exporter_type is None:
            allowed = ", ".join(_EXPORTER_OF_PROTOCOL)
            self._problems.error(protocol_variable, f"{protocol!r} is not supported", f"allowed: {allowed}")
            exporter_type = "otlp_http"
        settings: Document = {}
        if headers := self._find("HEADERS", signal):
            settings["headers"] = self._pairs(*headers)
        if compression := self._find("COMPRESSION", signal):
            settings["compression"] = compression[1]
            if compression[1] not in ("gzip", "none"):
                self._problems.error(compression[0], f"{compression[1]!r} is not supported", "allowed: gzip, none")
                settings["compression"] = "gzip"
        if preference := self._temporality():
            settings["temporality"] = preference
        if timeout := self._find("TIMEOUT", signal):
            settings["timeout"] = self._milliseconds(timeout[0])
        tls: Document = {key: found[1] for name, key in _TLS_FILES.items() if (found := self._find(name, signal))}
        if exporter_type == "otlp_grpc":
            tls["insecure"] = self._insecure(signal)
        if tls:
            settings["tls"] = tls
        own = self._endpoint(exporter_type, f"{_OTLP}{signal.upper()}_ENDPOINT")
        if exporter_type == "otlp_grpc":  # one channel, one endpoint
            general = f"{_OTLP}ENDPOINT"
            settings["endpoint"] = own or self._endpoint(exporter_type, general) or DEFAULT_ENDPOINTS["otlp_grpc"]
            own = None
        return _Exporter(exporter_type, own, settings)

    def _note(self, key: str, exporter_type: str, settings: Document, signal: str) -> None:
        """Says of each setting of an exporter at `key` which variable it came from."""
        for name, value in settings.items():
            if name == "tls":
                self._note(f"{key}.tls", exporter_type, value, signal)
                continue
            if name.endswith("_endpoint"):
                found = self._find("ENDPOINT", name.removesuffix("_endpoint"))
            elif name == "insecure" and (self._find("ENDPOINT", signal) or ("", ""))[1].lower().startswith(_URLS):
                found = self._find("ENDPOINT", signal)  # a scheme says it
            else:
                is_general = exporter_type == "otlp_http" and name == "endpoint"
                found = self._find(_VARIABLE_OF.get(name, name.upper()), "" if is_general else signal)
            if found:
                self._problems.origins.note_below(f"{key}.{name}", value, found[0])

    def _find(self, name: str, signal: str) -> tuple[str, str] | None:
        """The variable of this signal, else the general one, with its text."""
        for variable in ((f"{_OTLP}{signal.upper()}_{name}",) if signal else ()) + (f"{_OTLP}{name}",):
            if variable in self._set:
                return variable, self._set[variable]
        return None

    def _endpoint(self, exporter_type: str, variable: str) -> str | None:
        text = self._set.get(variable)
        if text is None:
            return None
        self._used.add(variable)
        try:
            if exporter_type == "otlp_http":
                url(text)
                return text
            target = grpc_target(text)
        except Unusable as unusable:
            self._problems.error(variable, f"{unusable}; got {display(text)!r}", unusable.hint)
            return None
        # What is not written with https:// may go to this host without TLS.
        is_plain = target.scheme == "http" or (target.scheme == "https" and not target.is_here)
        return str(target.place) if is_plain else text

    def _insecure(self, signal: str = "") -> bool:
        """Whether gRPC goes without TLS: a scheme says so itself, else OTEL_EXPORTER_OTLP_INSECURE does."""
        endpoint = (self._find("ENDPOINT", signal) or ("", "http://"))[1].lower()
        if endpoint.startswith(_URLS):
            return endpoint.startswith("http://")
        variable, text = self._find("INSECURE", signal) or ("", "false")
        self._used.add(variable)
        if text.lower() not in ("true", "false"):
            self._problems.error(variable, f"expected true or false, got {text!r}")
        return text.lower() == "true"

    def _temporality(self) -> str | None:
        """Which metrics tell what they have grown by: the specification's words, in any case of letters."""
        preference = self._set.get(_TEMPORALITY, "").lower()
        if preference and preference not in _TEMPORALITIES:
            allowed = ", ".join(_TEMPORALITIES)
            self._problems.error(_TEMPORALITY, f"{preference!r} is not known", f"allowed: {allowed}")
            return None
        return preference or None

    def _milliseconds(self, variable: str) -> str | None:
        text = self._set.get(variable)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            self._problems.error(variable, f"expected milliseconds, a whole number above 0, got {text!r}")
            return None
        if int(text) < _SECONDS_MEANT and variable not in self._warned:
            self._warned.add(variable)  # one variable may serve three signals
            what = f"{text} is taken for {text} milliseconds, as the specification has it"
            self._problems.warn(variable, f"{what}; if {text} seconds are meant, write {text}000")
        return f"{text}ms"

    def _pairs(self, variable: str, text: str) -> dict[str, str]:
        """`key=value,key2=value2`, values quoted or percent-encoded or neither."""
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1]
        if text.count('"') % 2:
            self._problems.error(variable, "a quotation mark is not closed", 'write %22 for a " within a value')
            return {}
        pairs: dict[str, str] = {}
        for number, item in enumerate(_COMMA.split(text), start=1):
            if not item.strip():
                continue
            key, equals, value = item.partition("=")
            if not equals or not key.strip():
                self._problems.error(variable, f"item {number} is not key=value", "separate the items with commas")
                continue
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            pairs[unquote(key.strip())] = unquote(value)
        return pairs
