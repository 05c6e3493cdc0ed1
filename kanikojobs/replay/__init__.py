"""Dead letters back through intake: chosen, foreseen, paced, watched, stopped.

In reading order:

1. `selection` says which dead letters are meant
2. `forecast` says of each what a replay would make of it; `plan` adds that up, and changes nothing
3. `runs` starts, pauses, resumes and cancels; `running` takes the next items, step by step; `handling` asks the same
   forecast about those of a step and writes down what `making` made of them; `settling` closes the dead letters, also
   for a retry by hand; `results` watches what became of them, and stops a run of which too many fail again
4. `mending` replays a body that a person has edited; `disposal` discards and restores; `from_broker` takes messages
   straight from RabbitMQ; `rules` are the standing orders

The database keeps the promises: a dead letter waits in one run at a time (a partial unique index), and what a replay
makes of it is written in one transaction with the item that says so. Nothing is held in memory between two steps, so
that any process may be killed at any moment.
"""
