"""The queues that `jobs.py` compares, a module each. A module is imported by the workers, which are started by its
`commands`, and by the process that enqueues: that calls `prepare` before the workers start, if there is one, then
`connect`, `enqueue` with the numbers of jobs, and `close`. What is enqueued is a number; what is done with it is `done`
of `job.py`. `$BENCH_URL` says where the queue's server is."""
