"""`manage.py show_manifest`: the Kubernetes Job of an event as YAML, and what the API server would say to it."""

import sys
from pathlib import Path
from typing import Any

import yaml
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError

from kanikojobs import cloudevent, intake, kube
from kanikojobs.errors import CreationError, InvalidEvent, NotOurs, PermanentError
from kanikojobs.kube_answers import AlreadyExists
from kanikojobs.manifest import job_manifest
from kanikojobs.manifest.builds import Build
from kanikojobs.manifest.options import BuildOptions
from kanikojobs.manifest.settings import build_options, profile_options
from kanikojobs.models import BuildProfile, JobStartEvent, KanikoJob
from kanikojobs.retry import build_of


class Command(BaseCommand):
    help = (
        "Prints the Kubernetes Job of an event as YAML. For a file no database is needed; without one the profile of "
        "the third party is missing. With --server-dry-run the API server checks it and makes none; its verdict is "
        "printed after it, and a refusal exits with 1."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", metavar="EVENT|FILE", help="A recorded event's id, a file with a CloudEvent, or -.")
        parser.add_argument("--server-dry-run", action="store_true", help="Ask the API server as well.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            build, place = asked_for(options["what"])
            manifest = job_manifest(build=build, options=self.options_for(build.third_party_id))
        except (PermanentError, ValueError) as error:
            raise CommandError(f"No Job can be made of it: {error}") from None
        manifest["metadata"] |= place
        self.stdout.write(as_yaml(manifest), ending="")
        if options["server_dry_run"]:
            self.stderr.write(verdict(manifest))

    def options_for(self, third_party_id: str) -> BuildOptions:
        """The operator's options, with the third party's profile if that can be read. Raises `ValueError`."""
        try:
            profile = BuildProfile.objects.filter(third_party_id=third_party_id).first()
        except (DatabaseError, InterfaceError) as error:
            self.stderr.write(f"The third party's profile is not in it: {first_line(error)}")
            profile = None
        if profile is None:
            return build_options()
        return profile_options(
            destination=profile.destination, resources=profile.resources, allowed_hosts=profile.allowed_hosts
        )


def asked_for(what: str) -> tuple[Build, dict[str, str]]:
    """The build of an event, and the name and namespace of its row if it has one."""
    if what == "-":
        return from_cloudevent(sys.stdin.buffer.read()), {}
    if Path(what).is_file():
        return from_cloudevent(Path(what).read_bytes()), {}
    try:
        events = list(JobStartEvent.objects.filter(event_id=what)[:2])
    except (DatabaseError, InterfaceError) as error:
        raise CommandError(f"{what!r} is no file, and no event can be read: {first_line(error)}") from None
    if not events:
        raise CommandError(f"{what!r} is neither a file nor the id of a recorded event.")
    if len(events) > 1:
        raise CommandError(f"There are events {what!r} of several sources. Write one of them to a file.")
    job = KanikoJob.objects.filter(event=events[0]).latest("number")
    return build_of(job.event, number=job.number).edited(job.overrides), {"name": job.name, "namespace": job.namespace}


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def from_cloudevent(body: bytes) -> Build:
    """The first build of a CloudEvent in structured JSON form."""
    try:
        event = cloudevent.from_http(
            body=body, content_type="application/cloudevents+json", headers={}, rules=intake.rules()
        )
    except InvalidEvent as invalid:
        faults = "\n".join(f"  {fault}" for fault in invalid.faults)
        raise CommandError(f"It is no job start event:\n{faults}") from None
    except NotOurs as others:
        raise CommandError(f"{others}.") from None
    return Build.of(event, number=1, environment=event.environment)


def verdict(manifest: dict[str, Any]) -> str:
    """What the API server says. Raises `CommandError` when it would make no Job of it."""
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    try:
        kube.would_create_job(manifest, namespace=namespace)
    except AlreadyExists:
        return f"The API server has a Job {name} in namespace {namespace} already."
    except PermanentError as error:
        raise CommandError(f"The API server refuses it ({error.http_status} {error.reason}): {error.message}") from None
    except CreationError as error:
        raise CommandError(f"The API server gave no verdict ({error.reason}): {error.message}") from None
    return f"The API server would create it in namespace {namespace}."


class Dumper(yaml.SafeDumper):
    """YAML as a person writes it: scripts as blocks, nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _text)


def as_yaml(manifest: dict[str, Any]) -> str:
    document: str = yaml.dump(manifest, Dumper=Dumper, sort_keys=False, allow_unicode=False, width=120)
    return document
