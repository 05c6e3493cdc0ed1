"""A simulated Kubernetes API server (1.36) for the demo and the tests: small, asynchronous, one process.

`python -m deploy.local.kubernetes_simulator --port 0 --kubeconfig PATH [--namespace builds] [--token T]` serves Jobs,
Pods, Events, Namespaces, Secrets, ConfigMaps and ServiceAccounts on 127.0.0.1 as a real API server does (validation,
resource versions, selectors, watches, deletion), and plays Job controller, garbage collector, scheduler and kubelet.
`tests/kubernetes_conformance` holds it against a real server; where the two differ the simulator is wrong.
Not offered: server-side apply, protobuf, the Table format, admission plugins other than the namespace's life.

**What becomes of a Job's pods** is scripted by an outcome (`outcomes.py` lists them), in this order: the Job's
annotation `simulator.kanikojobs/outcome`; the first matching rule of `POST /simulator/outcomes`; the default
(`--outcome`). `evicted,oom` scripts the first and the second pod; the last one repeats, but a disruption (evicted,
node-lost) does not: the pod that replaces it succeeds. `simulator.kanikojobs/run-seconds` sets how long a build runs.

**Control API**, JSON, without authentication, since the server listens on the loopback only. With `--control-port`
it is served on a second port as well, which stays open during an outage.

| request | does |
|---|---|
| `GET /simulator/stats[?detail=1]` | what the server saw (below) |
| `GET /simulator/requests` | the last 5,000 requests |
| `POST /simulator/outcomes` | `{"default": "succeed", "rules": […]}` replaces the rules (below) |
| `POST /simulator/jobs/NAME/outcome`, `…/pods/NAME/outcome` | `{"outcome": "evicted"}`: ends the running pod so |
| `POST /simulator/jobs/NAME/log`, `…/pods/NAME/log` | `{"lines": ["…"]}`: adds to the log |
| `POST /simulator/jobs/NAME/deadline` | lets activeDeadlineSeconds pass now |
| `POST /simulator/settings` | `{"pod_start_seconds": 0.05, "run_seconds": 0.2, "termination_seconds": 0.05}` |
| `POST /simulator/faults` | adds one fault or a list; `GET` shows them with their hits, `DELETE` removes all |
| `POST /simulator/access` | `{"deny": [{"verb": "create", "resource": "jobs"}]}`: RBAC refuses |
| `POST /simulator/outage` | `{"seconds": 5}`: connections are cut and refused for so long |
| `POST /simulator/break-watches` | cuts every open watch; `{"politely": true}` ends them in good order |
| `POST /simulator/compact` | forgets the history: resuming watches and continue tokens get 410 |
| `POST /simulator/reset` | forgets all objects, scripts, settings, faults and counts |

**Stats** count creates by name and by identity (`source|event id|number`), requests by verb and status, active Jobs
now and at most (over all, by third party, by parser) and how Jobs ended. `detail` adds each name, each identity, and
the sequence of creations and ends.

A **rule** for outcomes has any of `name` (a regular expression), `labels`, `annotations` and `event_id`, then
`outcome` and, where wanted, `run_seconds`: `{"labels": {…}, "outcome": "oom", "run_seconds": 1}`.

A **fault** is `{"do": …}` with any of these to match by, and `verb` (create, get, list, watch, update, patch, delete,
deletecollection; several by comma), `path` (a regular expression), `probability` with `seed`, `skip` (let the first
N pass) and `count` (then only N times). `do` is one of

- `status` with `status` (429, 500, 503, …), `retry_after` (seconds), `reason`, `message`, `plain` (text, no Status)
- `timeout-before`, `timeout-after`: no answer for `seconds` (60), then the connection is closed; *after* has carried
  the request out
- `drop`, `drop-after`: the connection is closed at once, *after* having carried the request out
- `latency` of `seconds`; `garbage` (an HTML body, status 200 or `status`)
- `forbidden` (RBAC's wording), `quota` (403 `exceeded quota: …`), `webhook` (an admission webhook's denial)
"""
