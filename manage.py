#!/usr/bin/env python
"""Django's command line. Faults of the configuration are told one a line, without a traceback."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        from django.conf import settings

        settings.configured or settings.INSTALLED_APPS  # noqa: B018 - reads the settings now, to tell faults plainly
    except ImproperlyConfigured as error:
        for fault in str(error).splitlines():
            print(f"kanikojobs.E001: {fault}", file=sys.stderr)
        sys.exit(2)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
