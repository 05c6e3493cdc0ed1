"""Retention: rows go when they are old and nobody needs them, in small batches that stand in nobody's way.

`kinds` says what may go and `ages` when, `pruning` does it a batch at a time, `schedule` has Django-Q2 do it every day,
`seen` tells of it, and `checks` holds the ages against what may still come. Each batch is one short transaction, along
the primary key, and passes over what somebody else holds. How far a run has come, and what it has removed, is a row
that each batch writes with its deletes: so it can be killed at any moment, and the next one goes on there.

The tables are not partitioned. Dropping a partition would be cheaper than deleting its rows, but what may go here is
no stretch of time: an event stays for its open dead letter or its unfinished Kaniko Job, however old it is. And
PostgreSQL wants the partition key in every unique constraint (manual, section 5.12.2.3): (`source`, `event_id`) would
be unique within a partition only, and a message that is delivered again after midnight would be built again.
"""
