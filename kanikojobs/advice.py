"""What a person can do about each reason: one sentence each, for the admin, REST and outcome events."""

ADVICE = {
    # The build
    "BuildStepFailed": "A step of the Dockerfile failed; read the log above the error, mend the source, and retry.",
    "BuildFailed": "The log's end says what happened; retry if it looks like an accident.",
    "DockerfileInvalid": "Bring a Dockerfile that kaniko can parse, or name a runtime for which there is a template.",
    "BaseImageNotFound": "The image in a FROM line does not exist in that registry; correct its name or tag.",
    "OOMKilled": "Retry with more memory; --compressed-caching=false and --snapshot-mode=redo lower what kaniko needs.",
    "DiskFull": "Retry with more ephemeral storage, or make the image smaller.",
    "DeadlineExceeded": "Retry with a longer build_timeout, or find in the log what took so long.",
    # Source and registry
    "SourceNotFound": "Check that repository, ref and folder exist and that the git secret may read them.",
    "SourceUnavailable": "The source's host did not answer; retry when it is back.",
    "RegistryAuthFailed": "The registry does not give the base image; check the registry secret's credentials.",
    "RegistryRateLimited": "The registry wants fewer pulls; add credentials or a mirror, and retry later.",
    "RegistryUnavailable": "The registry did not answer; retry when it is back.",
    "PushDenied": "The registry secret may not push to the destination; grant it, or correct the destination.",
    "PushFailed": "The image was built but the registry did not take it; retry.",
    # The cluster
    "ImagePullBackOff": "The node cannot pull kaniko's or the source container's image; check its name.",
    "InvalidImageName": "The name of kaniko's or the source container's image is no image name; correct the setting.",
    "ContainerCannotStart": "A secret or a volume that the pod names is missing or wrong; the message says which.",
    "Evicted": "The node was short of something; retry, with larger requests if it happens again.",
    "NodeLost": "The node went away during the build; retry.",
    "QuotaExceeded": "The namespace's quota is used up; raise it, or lower KANIKOJOBS_MAX_ACTIVE_JOBS.",
    "LimitRangeExceeded": "The namespace's LimitRange forbids these resources; ask for others, or change it.",
    "PodSecurityViolated": "The namespace's Pod Security level forbids the build's pod; builds need `baseline`.",
    "ServiceAccountNotFound": "Create the builds' service account in the namespace, or name another in the settings.",
    "PodRefused": "The cluster refuses to create the pod; the message has its words.",
    "Unschedulable": "It waits: no node has room, or none fits; add nodes, or ask for less.",
    "NodeRefused": "A node would not take the pod although it was sent there; retry, and look at the node.",
    "Ending": "It waits for its pods to go; if that takes long, their node may be gone.",
    "Suspended": "It waits: the Job is suspended, by Kueue for example, until there is room.",
    "JobVanished": "Somebody or something deleted the Job; retry.",
    # Creation
    "CreateRetriesExhausted": "The API server failed too often; see the attempts, then retry.",
    "AdmissionDenied": "A policy of the cluster refuses the Job; the message says which one and why.",
    "Forbidden": "The workers may not create Jobs there, or a rule forbids this one; `manage.py doctor` tells which.",
    "NamespaceNotFound": "Create the namespace that KANIKOJOBS_NAMESPACE names, or name another, and retry.",
    "NamespaceTerminating": "The namespace is being deleted; create it again, and retry.",
    "NameTaken": "A Job that is not ours has the name; retry, which takes the next name.",
    "BuildProfileInvalid": "Correct the third party's profile in the admin, and retry.",
    "BuildTypeUnknown": "Correct the event's build_type and send it again.",
    "DestinationInvalid": "Correct the destination's template, or send the event with what the template needs.",
    "EnvironmentInvalid": "Correct the names in the event's environment and send it again.",
    "ResourcesInvalid": "Retry with quantities such as 500m, 2 or 4Gi.",
    "SourceInvalid": "Correct the event's source_url and send it again.",
    "SourceNotAllowed": "Allow the source's host in KANIKOJOBS_ALLOWED_HOSTS, or use one that is allowed.",
    # Rules and people
    "CancelledByOperator": "Somebody cancelled it; the record of actions says who and why.",
    "ConcurrencyForbidden": "Another build of the same parser was unfinished; send the event again when it is done.",
    "ConcurrencyReplaced": "A newer event of the same parser took its place.",
}


def advice(reason: str) -> str:
    """What to do about a reason; empty for one that needs nothing, or that is only the API server's own."""
    return ADVICE.get(reason, "")
