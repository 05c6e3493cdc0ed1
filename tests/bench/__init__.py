"""What kanikojobs can do on this machine, measured beside the best simple program that does the same.

`python -m tests.bench [GROUP]`, or `make bench CASE=GROUP`. Each group is a module here with a function
`cases(bench) -> list[Case]`; `__main__.py` finds it, and nothing else has to be told of it. Every case runs several
times, in turn with its baselines, so that a machine that is busy for a while is busy for all of them.

BENCH_RUNS sets how often (default 3), BENCH_SIZE scales the amounts (0.1 for a quick look).
"""
