"""Downloads: records, the table of their states, and who runs when.

How a service uses it (everything from one event loop)::

    settings = EngineSettings(state_directory=…, hub=cache_roots(os.environ).hub, endpoint=hub_settings.endpoint,
                              offline=hub_settings.offline)
    async with download_engine(settings, credential=credentials.service, quota=gateway.budget, listener=…) as engine:
        download, new = await engine.scheduler.create(
            requests.CreateRequest(repo=repo, revision=revision, commit=commit, listing=files, paths=[…]))
        await engine.scheduler.pause(id) / resume(id) / cancel(id, discard_partial=…) / get(id) / page(limit=…) /
            head() / preview(request)

* `assemble.download_engine`: opens the database, locks state directory and cache (`DirectoryTakenError`,
  `CacheTakenError`), takes up what an earlier process left, works, drains at the end.
* `listener(store)` makes a `ledger.Listener`: `transition(store.Entry)` in revision order, `progress(Download,
  Progress)` on a timer, both in the event loop. Before it is called, `store.epoch`, `store.head()`,
  `store.replay(after)` and `store.page(…)` tell the log's identity and history, to load an `eventlog.EventLog`.
* `records.Download` is the resource (`name`, `etag`, `state`, `failure`, `progress` …). Errors are `Fault`s.
* A `CreateRequest.credential` of kind CALLER makes a download that is PAUSED(CREDENTIAL_REQUIRED) after a restart.
"""
