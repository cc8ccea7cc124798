"""The OpenAI-compatible gateway: one HTTP port for all models of a host, in a process of its own.

`python -m slipway_runner.gateway` is the process: `routes` says which model a request is for, `proxy` passes it on,
`control` is the Unix socket on which the runner tells it the table and asks for drains. `keeper` is the runner's side:
it starts the process, or finds the one that an earlier runner left serving.
"""
