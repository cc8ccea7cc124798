"""Models on this host: their lives, who drives them, and what everybody sees of them.

What calls in from outside (rpc, gateway, app) needs these and nothing else::

    async with open_fleet(state_dir=…, backends=Backends(adapters, found), sink=…, devices=…) as fleet:
        loaded = await fleet.load(spec, "qwen", activation=Activation.ALWAYS)   # Loaded(model, existing, evicted)
        fleet.get("qwen"), fleet.list(), fleet.log("qwen")
        fleet.unload("qwen", drain_seconds=None)
        fleet.active(task), fleet.set_active("qwen", task=None, expected=None)
        await fleet.shutdown(keep_models=False)

`spec.Spec` is what a caller asks for, `record.Model` what everybody sees; both are immutable. `Model.generation` is new
with every transition (the etag).

What happens is told to a `means.Sink`, synchronously and in order: `publish(model)` for each transition,
`progress(id, uid, load_progress)` in between, `removed(id, uid)` after the last transition.

`snapshots.Snapshots` is what the fleet needs of the registry, `snapshots.LocalPaths` the roots for models on paths,
`means.Drain` and `usage.UseOf` the gateway's part, `means.Numbers` the times and sizes. What is refused is a `Fault`.

Inside: `states` is the table, pure. A `supervisor.Supervisor` for each model drives it: `run` brings a process up,
`health` looks after it, `teardown` brings it down; `slipway_runner.process` knows how processes are started, found and
ended. `load`, `planning` and `choice` decide what is run, `release` keeps the pins right, `adoption` takes over from
the runner before, `saved` is journalled.
"""
