"""The OpenAI-compatible gateway: one HTTP port for all models of a host, in a process of its own.

`python -m slipway_runner.gateway` is the process: `routes` says which model a request is for, `body` names it in the
request, `proxy` passes it on, `control` is the Unix socket on which the runner tells it the table and asks for drains.
The runner's side: `keeper` keeps the process and its table, `launch` starts the process or finds the one that an
earlier runner left serving, `scrape` shows its metrics among the runner's.
"""
