"""The run folder of finetuning: finished, to be resumed, or another run's."""

import io
from collections.abc import Mapping
from typing import Any

import torch

from memfeat.config import FinetuneConfig
from memfeat.errors import RunError
from memfeat.runs import FINETUNED, PROVENANCE, begin_run, is_complete, read_object
from memfeat.runs.files import CONFIG, require_same_run
from memfeat.storage import write_atomically

STATE = "state.pt"  # of an unfinished run

# Not compared: paths, for the hashes of labels and weights are, and what only changes the speed.
IGNORED = {"manifest", "root", "run", "weights", "decoders"}


def is_finished(config: FinetuneConfig, facts: Mapping[str, Any]) -> bool:
    """Return whether `config.run` holds this very run, complete.

    Raises:
        RunError: it holds another one, or is damaged.
    """
    if not is_complete(config.run):
        return False
    if not (config.run / FINETUNED).is_file():
        raise RunError(
            f"{config.run} already holds a run of another kind; give another folder with --run"
        )
    found, its_facts = (read_object(config.run / name) for name in (CONFIG, PROVENANCE))
    _require(config, facts, found, its_facts)
    return True


def begin(config: FinetuneConfig, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Make the folder this run's; return the state that an earlier attempt left, if it did.

    Raises:
        RunError: the folder holds another unfinished run, a damaged one, or cannot be written to.
    """
    folder = config.run
    state = None
    if (folder / STATE).is_file():
        try:
            state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            found = {name: dict(state[name]) for name in ("config", "facts")}
        except Exception as error:  # torch fails in every way there is on bytes that are no state
            reason = str(error).strip().partition("\n")[0]
            raise RunError(
                f"{folder / STATE} is damaged ({reason}); delete it to train again from the start"
            ) from error
        _require(config, facts, found["config"], found["facts"])
    begin_run(config)
    return state


def save_state(config: FinetuneConfig, facts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Save what is needed to resume from here, atomically.

    Raises:
        OSError: the disk is full, and so on; the state saved before remains.
    """
    whole = {"config": config.model_dump(mode="json"), "facts": dict(facts), **state}
    content = io.BytesIO()
    torch.save(whole, content)
    write_atomically(config.run / STATE, content.getvalue())


def _require(
    config: FinetuneConfig,
    facts: Mapping[str, Any],
    found: Mapping[str, Any],
    found_facts: Mapping[str, Any],
) -> None:
    others = []
    if found_facts.get("started_from_sha256") != facts["started_from_sha256"]:
        others.append("it started from other weights")
    if found_facts.get("labels_sha256") != facts["labels_sha256"]:
        others.append("its videos, splits or scores differ")
    here = config.model_dump(mode="json", exclude=IGNORED)
    require_same_run(config.run, found, here, *others)
