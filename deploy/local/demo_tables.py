"""`python -m deploy.local.demo_tables`: tables, queues and the user of the demo, in one process.

To start Django takes longer than most of these commands. The user is that of DJANGO_SUPERUSER_USERNAME and its like;
with --static-files these are collected too.
"""

import sys

import django
from django.core.management import call_command


def main() -> None:
    django.setup()
    call_command("migrate", verbosity=0)
    call_command("declare_topology")
    call_command("createsuperuser", interactive=False)
    if "--static-files" in sys.argv:
        call_command("collectstatic", interactive=False, verbosity=0)


if __name__ == "__main__":
    main()
