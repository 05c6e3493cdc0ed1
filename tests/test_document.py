"""The names and numbers of the document about job start events, in the three places that have them: what is deployed,
what `declare_topology` declares, and what the settings default to. The literals are the document's, by its sections.
"""

import re
from typing import Any

import pytest
import yaml
from django.conf import settings

from kanikojobs.topology import Queue, topology
from project.document_settings import variables
from tests.deployment import OVERLAYS, config, of_kind, only

# "Job Start Event Data"
EVENT_TYPE = "network.notifi.lambda.job.start"
EVENT_SOURCE = "network.notifi.kaniko-jobs"
# "RabbitMQ Queue" and "RabbitMQ Settings"
QUEUE = "kaniko-jobs"
DEAD_LETTER_EXCHANGE = "dlx"
TTL = 24 * 3600 * 1000
MAX_LENGTH = 10_000
OVERFLOW = "drop-head"
CLUSTER = "rabbitmq-cluster"
RABBITMQ_NAMESPACE = "rabbitmq-dev"
# "Dead Letter Queue"
DEAD_LETTER_QUEUE = "kaniko-jobs.dlq"
# "Knative Trigger"
TRIGGER = "kaniko-jobs-trigger"
SINK = "knative-lambda-builder"
# "Monitor Processing" and "Debug Commands"
BUILDER_NAMESPACE = "knative-lambda-dev"
DEVELOPMENT_SERVICE = "knative-lambda-builder-dev"
# "Async Job Creator Settings"
ASYNC_JOB_CREATOR = {"workerCount": 5, "maxRetries": 3, "retryDelay": "100ms", "maxQueueSize": 100}
# "Alerts"
QUEUE_DEPTH, FAILURE_RATE, AVERAGE_SECONDS = 1000, 0.05, 30

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def declared(name: str) -> Queue:
    return next(queue for queue in topology().queues if queue.name == name)


def test_the_settings_default_to_the_documents_names_and_numbers() -> None:
    async_job_creator = {
        "workerCount": settings.KANIKOJOBS_WORKER_COUNT,
        "maxRetries": settings.KANIKOJOBS_MAX_RETRIES,
        "retryDelay": f"{settings.KANIKOJOBS_RETRY_DELAY.total_seconds() * 1000:g}ms",
        "maxQueueSize": settings.KANIKOJOBS_MAX_QUEUE_SIZE,
    }

    assert settings.KANIKOJOBS_EVENT_TYPE == EVENT_TYPE
    assert settings.KANIKOJOBS_EVENT_SOURCE == EVENT_SOURCE
    assert settings.KANIKOJOBS_QUEUE == QUEUE
    assert settings.KANIKOJOBS_DLQ == DEAD_LETTER_QUEUE
    assert settings.KANIKOJOBS_DLX == DEAD_LETTER_EXCHANGE
    assert settings.KANIKOJOBS_MESSAGE_TTL_MS == TTL
    assert settings.KANIKOJOBS_MAX_LENGTH == MAX_LENGTH
    assert settings.KANIKOJOBS_OVERFLOW == OVERFLOW
    assert async_job_creator == ASYNC_JOB_CREATOR


def test_the_declared_queue_is_the_documents() -> None:
    arguments = declared(QUEUE).arguments

    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-message-ttl"] == TTL
    assert arguments["x-max-length"] == MAX_LENGTH
    assert arguments["x-overflow"] == OVERFLOW
    assert arguments["x-dead-letter-exchange"] == DEAD_LETTER_EXCHANGE
    assert topology().dead_letter_exchange == DEAD_LETTER_EXCHANGE
    assert {queue.name for queue in topology().queues} == {QUEUE, DEAD_LETTER_QUEUE}


@every_overlay
def test_the_deployed_topology_is_the_declared_one(overlay: str) -> None:
    queues = {queue["spec"]["name"]: queue["spec"] for queue in of_kind(overlay, "Queue").values()}
    bindings = {
        (spec["destination"], spec["source"], spec["routingKey"])
        for spec in (binding["spec"] for binding in of_kind(overlay, "Binding").values())
    }
    exchange = only(overlay, "Exchange")["spec"]

    assert {name: {"x-queue-type": q["type"]} | q["arguments"] for name, q in queues.items()} == {
        queue.name: dict(queue.arguments) for queue in topology().queues
    }
    assert all(queue["durable"] and not queue["autoDelete"] for queue in queues.values())
    assert bindings == {(queue.name, *binding) for queue in topology().queues for binding in queue.bindings}
    assert (exchange["name"], exchange["type"], exchange["durable"]) == (
        topology().dead_letter_exchange,
        "direct",
        True,
    )
    for obj in (*of_kind(overlay, "Queue").values(), *of_kind(overlay, "Binding").values(), only(overlay, "Exchange")):
        assert obj["spec"]["rabbitmqClusterReference"] == {"name": CLUSTER}


@every_overlay
def test_the_deployed_policy_repeats_the_arguments(overlay: str) -> None:
    policy = only(overlay, "Policy")["spec"]

    assert policy["pattern"] == f"^{QUEUE}$"
    assert policy["definition"] == {"message-ttl": TTL, "max-length": MAX_LENGTH}


@every_overlay
def test_the_deployed_settings_are_the_documents(overlay: str) -> None:
    document: Any = yaml.safe_load(config(overlay, "kanikojobs-settings")["settings.yaml"])
    found, _ = variables(document)

    assert document["asyncJobCreator"] == ASYNC_JOB_CREATOR
    assert document["rabbitmq"]["clusterName"] == CLUSTER
    assert document["rabbitmq"]["connectionSecretName"] == "rabbitmq-connection"
    assert document["rabbitmq"]["queues"]["kanikoJobs"] == {
        "name": QUEUE,
        "durable": True,
        "autoDelete": False,
        "messageTtl": TTL,
        "maxLength": MAX_LENGTH,
        "overflow": OVERFLOW,
    }
    for name, value in found.items():
        default = getattr(settings, name)
        assert value == (str(default) if not name.endswith("_DELAY") else "100ms"), name


def test_development_has_the_documents_namespaces() -> None:
    assert of_kind("dev", "Namespace").keys() == {RABBITMQ_NAMESPACE, BUILDER_NAMESPACE, "kaniko-builds"}
    assert only("dev", "RabbitmqCluster")["metadata"]["name"] == CLUSTER
    assert only("dev", "RabbitmqCluster")["metadata"]["namespace"] == RABBITMQ_NAMESPACE
    assert settings.KANIKOJOBS_NAMESPACE in of_kind("dev", "Namespace")


@pytest.mark.parametrize(
    ("kind", "name", "namespace"),
    [
        pytest.param("Queue", QUEUE, RABBITMQ_NAMESPACE, id="kubectl get queue kaniko-jobs"),
        pytest.param("Trigger", TRIGGER, BUILDER_NAMESPACE, id="kubectl get trigger kaniko-jobs-trigger"),
        pytest.param(
            "Service.serving.knative.dev", DEVELOPMENT_SERVICE, BUILDER_NAMESPACE, id="kubectl get ksvc, and its URL"
        ),
        pytest.param("Deployment", SINK, BUILDER_NAMESPACE, id="kubectl logs deployment/knative-lambda-builder"),
    ],
)
def test_the_documents_commands_find_what_they_name(kind: str, name: str, namespace: str) -> None:
    assert of_kind("dev", kind)[name]["metadata"]["namespace"] == namespace


def test_production_has_the_service_that_the_document_calls_the_sink() -> None:
    assert of_kind("prod", "Service.serving.knative.dev").keys() == {SINK}


@pytest.mark.parametrize("overlay", ["dev", "dev-knative"])
def test_the_trigger_filters_by_the_documents_type_and_source(overlay: str) -> None:
    trigger = only(overlay, "Trigger")

    assert trigger["metadata"]["name"] == TRIGGER
    assert trigger["spec"]["filter"] == {"attributes": {"type": EVENT_TYPE, "source": EVENT_SOURCE}}


def test_the_documents_picture_reads_the_documents_queue() -> None:
    assert only("dev-knative", "RabbitmqSource")["spec"]["rabbitmqResourcesConfig"]["queueName"] == QUEUE


@every_overlay
def test_the_documents_three_alerts_have_its_thresholds_and_metrics(overlay: str) -> None:
    rules = {
        rule["alert"]: rule["expr"]
        for group in only(overlay, "PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule  # the others record what an alert reads
    }

    thresholds = {name: [float(number) for number in re.findall(r" > ([0-9.]+)", rule)] for name, rule in rules.items()}

    assert thresholds["KanikoJobsHighQueueDepth"] == [QUEUE_DEPTH]
    assert f'rabbitmq_queue_messages_ready{{queue="{QUEUE}"}}' in rules["KanikoJobsHighQueueDepth"]
    assert thresholds["KanikoJobsHighErrorRate"] == [FAILURE_RATE]
    assert "kaniko_job_creation_failure_total" in rules["KanikoJobsHighErrorRate"]
    assert "kaniko_job_creation_success_total" in rules["KanikoJobsHighErrorRate"]
    assert thresholds["KanikoJobsLongProcessingTime"] == [AVERAGE_SECONDS]
    assert "job_creation_duration_seconds_sum" in rules["KanikoJobsLongProcessingTime"]
    assert "job_creation_duration_seconds_count" in rules["KanikoJobsLongProcessingTime"]
