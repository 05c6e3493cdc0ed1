"""What a log line looks like: one JSON object per step for machines, or text for a person's terminal.

Lines carry ids, states and reasons, never payloads and never secrets. Text that comes from events is hostile: what is
not printable is written out, so that no value can forge a second line, move the cursor or turn the text around.
"""

import json
import logging.config
import re
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

Processor = structlog.typing.Processor

SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_settings(*, format: str, level: str) -> dict[str, Any]:
    """Django's LOGGING for the `format` "json" or "console"."""
    renderers: list[Processor] = [structlog.processors.JSONRenderer(default=str)]
    if format == "console":
        renderers = [written_out, structlog.dev.ConsoleRenderer(colors=False)]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {
                "()": LineFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    *renderers,
                ],
                "foreign_pre_chain": SHARED,
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Each of these would add lines per event, of which ours say the same with the ids that matter.
            "django-q": {"level": "WARNING"},
            # pika logs what it also raises, with tracebacks.
            "pika": {"level": "CRITICAL"},
            "kubernetes": {"level": "WARNING"},
            "urllib3": {"level": "ERROR"},
        },
    }


def configure(settings: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG: the standard library's configuration, then structlog on top of it."""
    logging.config.dictConfig(settings)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


_UNPRINTABLE = re.compile(r"[^ -~]")


def written_out(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Every value as text of one line. The lines of a traceback, which are our own, stand behind a bar."""
    for name, value in list(line.items()):
        if name == "exception":
            line[name] = "\n".join(f"  | {_printable(part)}" for part in str(value).splitlines())
        elif not isinstance(value, int | float | bool | None):
            line[name] = _printable(str(value))
    return line


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0].isprintable() else ascii(found[0])[1:-1], text)


_JSON = json.JSONEncoder(default=str)


@dataclass(frozen=True, slots=True)
class Steps:
    """Many lines in one record: a batch of 500 messages has as many, and each would cost more than its message.

    `rows` are what tells the lines apart, with at least one entry each; `common` is in all of them.
    """

    rows: tuple[Mapping[str, Any], ...]
    common: Mapping[str, Any]

    def __str__(self) -> str:
        rest = _JSON.encode(self.common).removeprefix("{")
        return "\n".join(f"{_JSON.encode(row)[:-1]}, {rest}" for row in self.rows)


class LineFormatter(structlog.stdlib.ProcessorFormatter):
    """structlog's own, and the lines of `Steps` by the last of its processors alone."""

    def format(self, record: logging.LogRecord) -> str:
        if not isinstance(record.msg, Steps):
            return super().format(record)
        if isinstance(self.processors[-1], structlog.processors.JSONRenderer):
            return str(record.msg)
        lines = []
        for row in record.msg.rows:
            found: Any = {**row, **record.msg.common}
            for processor in self.processors[2:]:
                found = processor(None, "info", found)
            lines.append(found)
        return "\n".join(lines)


def steps(logger: str, step: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Log the same step of many events, a line each."""
    log = logging.getLogger(logger)
    if not log.isEnabledFor(logging.INFO):
        return
    common = {"event": step, "logger": logger, "level": "info", "timestamp": f"{datetime.now(UTC):%FT%T.%fZ}"}
    if told := tuple(rows):
        log.info(Steps(told, common))
