"""kanikojobs: the control room for event-driven image builds.

One event's way through the house, and the order to read the files in:

1. in: `amqp` hands over deliveries, which `consuming` batches, and `sink` takes HTTP requests, `undelivered` what
   Knative brings in vain; `cloudevent/` reads either into an event or its faults; `topology` says which queues there
   must be
2. rows: `intake` writes a whole batch in one transaction; `models` holds the rows, `states` who moves them,
   `letters` and `dead_letters` what could not be used, `tallies` the counts
3. queue: `claims` says which Kaniko Jobs are next; `queue` hands them to Django-Q2's workers, who call `tasks`
4. Job: `creation` takes a claimed Kaniko Job to Kubernetes; `naming` and `manifest/` say what it looks like, `kube`
   speaks to the API server, `kube_answers` tells what it meant, `outages` knows when asking is of no use
5. after: `watching` leads or stands by (`leader`); whoever leads works through a `term`, with a `desk` (`agenda`,
   `readers`). `feeds` and `kube_watch` say what happens to Jobs and pods (`colours` come off their logs); `observed`
   and `tracking` are what is known of them; `diagnosis` says what it comes to (`pushes`, `obstacles`, `log_words`),
   `judging` what that means for the row, and `applying` writes it. `readings` fetch what is missing and `evidence`
   keeps what Kubernetes throws away (`redaction`); `refusals`, `absences` and `sweeping` are about Jobs without pods,
   rows without Jobs and Jobs without rows, `deletions` about Jobs that nobody wants; `retry` is what people do, with
   `advice`; `concurrency` and `lines` keep the builds of one parser apart, `outcomes` and `outbox` tell how they ended
6. failures: `fingerprints` tells which are equal, `failure_groups` counts them, `inspection` shows one dead letter;
   `replay/` plans, runs and stops its way back through intake, and `audit` keeps who did what and why
7. seen: `stats` is the read side of `admin/`, `api/` and `metrics`, `flows` compares direct events with the queue;
   `health` answers the orchestrator
8. gone: `retention/` removes what is old and needed by nobody

`messages` and `errors` are the words that these share; `checks`, `logs`, `tracing/` and `database_time` serve all of
it. `capacity` says on paper how much of what a load needs.
"""
