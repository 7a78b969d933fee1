"""The caches that a grid needs, made before it is trained."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from memfeat.cli.extract import fill_cache, say_summary
from memfeat.cli.finetune import finetune_weights
from memfeat.cli.options import read_settings
from memfeat.config import FinetuneConfig
from memfeat.errors import MemfeatError

if TYPE_CHECKING:
    from memfeat.ablation import CacheRequest


def make_caches(requests: Iterable["CacheRequest"]) -> None:
    """Make caches, or what they lack; say of one that cannot be made why, and go on."""
    for request in requests:
        click.echo(f"cache {request.extract.cache}", err=True)
        try:
            if request.finetune:
                finetune_weights(_finetuning(request))
            say_summary(fill_cache(request.extract), request.extract)
        except MemfeatError as error:
            click.echo(f"cannot make {request.extract.cache}: {error}", err=True)


def _finetuning(request: "CacheRequest") -> FinetuneConfig:
    own = request.extract
    flags = {"manifest": own.manifest, "device": own.device, "run": request.finetune_run}
    return read_settings(FinetuneConfig, "finetune", request.finetune, flags)
