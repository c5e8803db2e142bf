"""The log: one JSON object a line, on stderr; prompts are left out unless asked for."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

NAME = "hybridstitch.serve"


class JsonLines(logging.Formatter):
    """A record as a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info is not None:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def note(event: str, level: int = logging.INFO, **facts: Any) -> None:
    """Write a line.

    Args:
        event: what happened.
        level: how grave it is.
        facts: about it; those that are None or empty are left out.
    """
    kept = {name: fact for name, fact in facts.items() if fact not in (None, "", (), [])}
    logging.getLogger(NAME).log(level, event, extra={"facts": kept})


def configure() -> None:
    """Let this process write its log, and uvicorn's, so."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.captureWarnings(True)
    others = {"uvicorn": logging.WARNING, "asyncio": logging.ERROR, "py.warnings": logging.WARNING}
    for name, level in {NAME: logging.INFO, **others}.items():
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(level)
