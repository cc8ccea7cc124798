"""Who looks after which model, and which models are active."""

from collections.abc import Iterator

from slipway_service.fault import Fault, Reason

from slipway_runner.models.means import Means
from slipway_runner.models.states import State
from slipway_runner.models.supervisor import Supervisor

# A stop usually takes seconds; who asks again then finds it gone.
UNLOADING_RETRY_SECONDS = 5.0


class Roster:
    """The supervisors of a runner, by model id."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._supervisors: dict[str, Supervisor] = {}

    def __iter__(self) -> Iterator[Supervisor]:
        """All of them, by id; those that come or go meanwhile do not matter."""
        return iter([self._supervisors[model_id] for model_id in sorted(self._supervisors)])

    def get(self, model_id: str) -> Supervisor:
        """The one of that id. Raises Fault: MODEL_NOT_FOUND."""
        if (found := self._supervisors.get(model_id)) is None:
            known = ", ".join(sorted(self._supervisors)) or "none"
            text = f"there is no model {model_id}; models here: {known}"
            raise Fault(Reason.MODEL_NOT_FOUND, text, resource=f"models/{model_id}")
        return found

    def find(self, model_id: str) -> Supervisor | None:
        """The one of that id, None when there is none."""
        return self._supervisors.get(model_id)

    def serving(self, model_id: str) -> Supervisor | None:
        """The one of that id unless its model is in ERROR, where a load begins anew.

        Raises:
            Fault: MODEL_UNLOADING.
        """
        found = self._supervisors.get(model_id)
        if found is not None and found.life.state is State.UNLOADING:
            raise Fault(
                Reason.MODEL_UNLOADING,
                f"{model_id} is being unloaded; load it again when it is gone",
                retry_after=UNLOADING_RETRY_SECONDS,
            )
        return None if found is None or found.life.state is State.ERROR else found

    # What supervisors need of it (`supervisor.Owner`).

    def by_uid(self, uid: str) -> Supervisor | None:
        """Who looks after the model of that uid, if anybody still does."""
        return next((one for one in self._supervisors.values() if one.model.uid == uid), None)

    def take_in(self, supervisor: Supervisor) -> None:
        """There is a model more."""
        self._supervisors[supervisor.model.id] = supervisor

    def forget(self, supervisor: Supervisor) -> None:
        """The model is no more; its supervisor says so."""
        if self._supervisors.get(supervisor.model.id) is supervisor:
            del self._supervisors[supervisor.model.id]

    def active_changed(self, before: str | None, after: str | None) -> None:
        """Write down which models are active, and have those two told of it."""
        self._means.scribe.save_active(self._means.active.all())
        for model_id in (before, after):
            if model_id in self._supervisors:
                self._supervisors[model_id].show_active()
