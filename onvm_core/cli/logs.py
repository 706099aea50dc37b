"""The form in which managers and agents write their own logs."""

from __future__ import annotations

import logging
import os

from onvm_sdk._hosting.output import LOG_FORMAT, formatter

__all__ = ["begin_logging"]

_TEXT = "%(asctime)s %(name)s: %(message)s"


def begin_logging(form: str = "") -> None:
    """Write records from level INFO to stderr.

    Args:
        form: text or json, for NF hosts too; "": as the environment says.
    """
    if form:
        os.environ[LOG_FORMAT] = form
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
