"""kanikojobs: the control room for event-driven image builds.

One event's way through the house, and the order to read the files in:

1. in: `amqp` hands over deliveries, `sink` HTTP requests; `cloudevent` reads either into an event or its faults
2. rows: `intake` writes a whole batch in one transaction; `models` holds the rows, `states` who moves them,
   `dead_letters` what could not be used
3. queue: `queue` claims due Kaniko Jobs for Django-Q2's workers, `tasks` is what those call
4. Job: `creation` takes a claimed Kaniko Job to Kubernetes; `naming`, `source` and `manifest` say what it looks like,
   `kube` speaks to the API server
5. seen: `stats` is the read side of `admin`, `api` and `metrics`

`errors` and `checks` serve all of it: what can go wrong with an event, and with a configuration.
"""
