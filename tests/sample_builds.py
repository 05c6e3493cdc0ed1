"""The document's sample as a build, with the plainest options and with all of them."""

from dataclasses import replace
from typing import Any

from kanikojobs.manifest import Build, BuildOptions, Resources, SecretKey
from kanikojobs.manifest.source_rules import SourceRules

PREFIX = "kanikojobs.notifi.network/"
SAMPLE = Build(
    source="network.notifi.kaniko-jobs",
    event_id="5d2b6e0e-8f43-4d6f-a4b5-5a4f1f0a7c11",
    number=1,
    third_party_id="0307ea43639b4616b044d190310a26bd",
    parser_id="0197ad6c10b973b2b854a0e652155b7e",
    correlation_id="c0ffee",
    job_name="kaniko-job-0307ea43639b4616b044d190310a26bd-0197ad6c10b973b2b854a0e652155b7e",
    priority=1,
    runtime="nodejs18",
    source_url="https://github.com/notifi/parsers/0197ad6c10b973b2b854a0e652155b7e",
    build_timeout=1800,
    environment={"NODE_ENV": "production", "BUILD_MODE": "optimized"},
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
OPTIONS = BuildOptions(
    namespace="builds",
    destination="registry.example.com/{third_party_id}/{parser_id}:{short_hash}",
    source_rules=SourceRules(allowed_buckets=("s3://sources", "gs://sources")),
)
EVERYTHING = replace(
    OPTIONS,
    registry_secret="registry",
    git_secrets={"github.com": "github"},
    bucket_secret="bucket",
    secret_environment={"NPM_TOKEN": SecretKey(secret="npm", key="token")},
    environment={"HTTPS_PROXY": "http://proxy:3128"},
    cache_repo="registry.example.com/cache/{third_party_id}",
    registry_mirrors=("mirror.example.com",),
    insecure_registries=("registry.tools:5000",),
    skip_tls_verify_registries=("registry.lab:5000",),
    kaniko_arguments=("--skip-push-permission-check=true",),
    build_resources=Resources("1", "4", "2Gi", "8Gi", "5Gi", "50Gi"),
    deadline_allowance=120,
    service_account="builder",
    image_pull_secrets=("pull",),
    priority_classes={1: "urgent"},
    node_selector={"pool": "builds"},
    tolerations=({"key": "builds", "operator": "Exists", "effect": "NoSchedule"},),
    runtime_class="gvisor",
    kueue_queue="builds",
    user_namespaces=True,
)


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The spec of a Job's pods."""
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod
