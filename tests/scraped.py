"""What a scrape of `/metrics` says, for tests: each sample by its name and labels."""

from django.test import Client
from prometheus_client import parser

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(client: Client) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(response.content.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def by_label(samples: Samples, name: str, label: str) -> dict[str, int]:
    """The series of a counter by one label, as far as they are not 0."""
    return {dict(labels)[label]: int(number) for (found, labels), number in samples.items() if found == name and number}
