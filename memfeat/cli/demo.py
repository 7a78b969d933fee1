"""`memfeat demo`: the embedded dataset."""

from pathlib import Path

import click


@click.command("demo", epilog="Example: memfeat demo && memfeat extract pipelines/demo.toml")
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    default=Path("data_manifests/demo.csv"),
    show_default=True,
)
@click.option(
    "--videos", type=click.Path(path_type=Path), default=Path("data/demo"), show_default=True
)
def demo_command(manifest: Path, videos: Path) -> None:
    """Render the demo clips and their manifest.

    Clips that are there already are kept. They are cut from photographs that scikit-image and
    scikit-learn ship. Their scores follow a formula: they are not people's, and show that the
    machinery works, nothing about memory.
    """
    from memfeat.cli.progress import step_progress
    from memfeat.datasets.demo import DEMO, render_demo

    with step_progress("clips", sum(DEMO.clips.values())) as progress:
        render_demo(manifest, videos, on_clip=progress.advance)
    click.echo(manifest)
