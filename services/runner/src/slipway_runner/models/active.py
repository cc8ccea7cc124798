"""Which model is the active one of each task: the one that requests which name no model go to."""

from collections.abc import Mapping

from slipway_service.fault import Fault, Reason

from slipway_runner.backends.base import Task
from slipway_runner.models.record import Activation


class ActiveModels:
    """Task → model id. Changed by calls and by first loads only, never by a recovery.

    Args:
        known: what the journal remembers.
    """

    def __init__(self, known: Mapping[Task, str] | None = None) -> None:
        self._ids = dict(known or {})

    def get(self, task: Task) -> str | None:
        """The id of the active model, None when there is none."""
        return self._ids.get(task)

    def all(self) -> Mapping[Task, str]:
        """Every task that has one."""
        return dict(self._ids)

    def is_active(self, model_id: str) -> bool:
        """Whether the model is active for any task."""
        return model_id in self._ids.values()

    def set(self, task: Task, model_id: str, expected: str | None = None) -> str | None:
        """Make a model the active one if the expectation holds.

        Args:
            task: for what.
            model_id: which model.
            expected: the id that must be active now; "" when none must be; None for no expectation.

        Returns:
            The id that was active.

        Raises:
            Fault: ACTIVE_MISMATCH.
        """
        before = self._ids.get(task)
        if expected is not None and (before or "") != expected:
            raise Fault(
                Reason.ACTIVE_MISMATCH,
                f"{before or 'no model'} is active for {task}, not {expected or 'none'}; read it again and decide anew",
                facts={"active": before or ""},
            )
        self._ids[task] = model_id
        return before

    def activate(self, task: Task, model_id: str, wish: Activation) -> bool:
        """What the first LOADED of a load does. Returns whether the model is the active one now."""
        if wish is Activation.ALWAYS or (wish is Activation.IF_NONE and task not in self._ids):
            self._ids[task] = model_id
        return self._ids.get(task) == model_id

    def drop(self, model_id: str) -> bool:
        """The model goes. Returns whether it was active."""
        tasks = [task for task, active in self._ids.items() if active == model_id]
        for task in tasks:
            del self._ids[task]
        return bool(tasks)
