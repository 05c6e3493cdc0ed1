"""What this project relies on in the Kubernetes API, asked of whatever server there is.

`make test` asks the simulator, `make test-cluster` the current context of a kubeconfig, or the one that
KANIKOJOBS_CONFORMANCE_KUBECONFIG names; where the two differ the simulator is wrong. Against a real server
everything happens in a namespace of its own, and no kubelet is needed: Jobs of `job()` belong to no controller
(`managedBy`), pods name a scheduler that does not exist, and their status is written here as a kubelet would.
What needs the Job controller, the TTL controller or the garbage collector is skipped by name on a server
without them.
"""
