"""What a log line looks like: one JSON object per step for machines, or coloured text for a person's terminal.

Lines carry ids, states and reasons, never payloads and never secrets. Text that comes from events is JSON-escaped
by the renderer, so that a hostile value cannot forge a second line.
"""

import logging.config
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
    renderer: Processor = structlog.processors.JSONRenderer()
    if format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=False)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    renderer,
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
