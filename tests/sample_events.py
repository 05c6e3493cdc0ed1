"""Sample events: the document's own, and any number that look like it.

The demo, the bench, the tests and `create-job-start-event.py` send these. One seed, one series
of events.
"""

import json
import random
import uuid
from typing import Any

EVENT_TYPE = "network.notifi.lambda.job.start"
EVENT_SOURCE = "network.notifi.kaniko-jobs"

# As it stands in job-start-events.md, byte for byte.
DOCUMENT_EVENT_JSON = """\
{
  "specversion": "1.0",
  "id": "uuid",
  "source": "network.notifi.kaniko-jobs",
  "subject": "parser-id",
  "type": "network.notifi.lambda.job.start",
  "time": "2024-01-01T00:00:00Z",
  "data": {
    "third_party_id": "0307ea43639b4616b044d190310a26bd",
    "parser_id": "0197ad6c10b973b2b854a0e652155b7e",
    "correlation_id": "uuid",
    "job_name": "kaniko-job-0307ea43639b4616b044d190310a26bd-0197ad6c10b973b2b854a0e652155b7e",
    "parameters": {
      "priority": 1,
      "build_type": "container",
      "runtime": "nodejs18",
      "source_url": "https://github.com/notifi/parsers/0197ad6c10b973b2b854a0e652155b7e",
      "build_timeout": 1800,
      "environment": {
        "NODE_ENV": "production",
        "BUILD_MODE": "optimized"
      }
    },
    "priority": 1
  },
  "datacontenttype": "application/json"
}
"""

_RUNTIMES = ("nodejs18", "nodejs20", "python3.11", "go1.22")


def document_event() -> dict[str, Any]:
    """The sample of the document, verbatim, its id `uuid` included."""
    event: dict[str, Any] = json.loads(DOCUMENT_EVENT_JSON)
    return event


def sample_event(
    n: int, *, priority: int | None = None, third_party: str | None = None, seed: int | str = "sample"
) -> dict[str, Any]:
    """The `n`-th event of a seed: a unique id, one of seven third parties, priorities 1 to 10 in turn."""
    chance = random.Random(f"{seed}/{n}")
    event_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    third_party = third_party or uuid.uuid5(uuid.NAMESPACE_OID, f"third party {n % 7}").hex
    parser_id = uuid.UUID(int=chance.getrandbits(128), version=4).hex
    priority = n % 10 + 1 if priority is None else priority
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": EVENT_SOURCE,
        "subject": parser_id,
        "type": EVENT_TYPE,
        "time": f"2024-01-01T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z",
        "data": {
            "third_party_id": third_party,
            "parser_id": parser_id,
            "correlation_id": event_id,
            "job_name": f"kaniko-job-{third_party}-{parser_id}",
            "parameters": {
                "priority": priority,
                "build_type": "container",
                "runtime": _RUNTIMES[n % len(_RUNTIMES)],
                "source_url": f"https://github.com/notifi/parsers/{parser_id}",
                "build_timeout": 1800,
                "environment": {"NODE_ENV": "production", "BUILD_MODE": "optimized"},
            },
            "priority": priority,
        },
        "datacontenttype": "application/json",
    }
