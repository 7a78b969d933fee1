"""Published weights: in the Hugging Face hub's cache, downloaded into it, or unknown.

The hub's client is imported when it is needed, for not every encoder's weights are there.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from memfeat.encoders.checkpoints import SUFFIXES
from memfeat.encoders.family import RANDOM
from memfeat.errors import EncoderError, UnknownNameError

TIMEOUT_SECONDS = 5


def cached(repository: str, files: Iterable[str]) -> Path | None:
    """Return the first of a repository's files that is in the cache. Touches no network."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    for file in files:
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def download(repository: str, files: Sequence[str]) -> Path:
    """Download the first of `files` that a repository has, and return where it is in the cache."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415
    from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

    for file in files[:-1]:
        try:
            return Path(hf_hub_download(repository, file))
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(repository, files[-1]))


def fetch(
    name: str,
    tag: str,
    wanted: str,
    download: Callable[[], str | Path],
    otherwise: str = f"give --weights FILE, a checkpoint; or --weights {RANDOM}, for features "
    "without learned content",
) -> Path:
    """Download the weights `tag` of the encoder `name`, `wanted` in words, into the cache.

    `otherwise` says what to do without them.

    Raises:
        EncoderError: they cannot be had; the message says what to do.
    """
    from huggingface_hub import constants, get_session  # noqa: PLC0415

    try:
        # One request first: without a connection the hub's client retries for most of a minute.
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
        return Path(download())
    except Exception as error:  # whatever HTTP library the hub's client is built on
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise EncoderError(
            f"{name}'s weights {tag!r} cannot be had: {wanted} is not in the hub's cache, "
            f"{constants.HF_HUB_CACHE}, and could not be downloaded ({reason}). Do the same on a "
            f"connected machine and copy that folder; or {otherwise}. `memfeat doctor` shows which "
            "weights are there"
        ) from error


def unknown_weights(
    name: str, weights: str, library: str, known: Iterable[str]
) -> UnknownNameError:
    """Build the error for weights that are no tag of an encoder, no file and not `random`."""
    return UnknownNameError(
        f"{name} has no weights {weights!r}; {library} knows for it: {', '.join(known) or 'none'}. "
        f"Give one of these, the path of a checkpoint ({', '.join(SUFFIXES)}), or {RANDOM} for "
        "features without learned content"
    )
