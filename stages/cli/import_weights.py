"""`weakmask import`: weights that the authors published, as the weights file of a stage.

weakmask import res50_cam.pth --from irn-cam -o data/classifier.safetensors
weakmask import resnet50-0676ba61.pth --from torchvision -o resnet50.safetensors
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.core.resume import write_atomically
from pipeline.core.weights import save_weights
from pipeline.data.index import Index
from pipeline.errors import UserError
from pipeline.published import REPOSITORIES, Repository, read_tensors, translate
from stages._command import DATASET, Parameters, artifact, read_parameters, write_empty_curve


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Choice(list(REPOSITORIES)),
    help="Source of the file; torchvision and wrn38d are ImageNet weights of a backbone.",
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write."
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def import_weights(file: Path, source: str, output: Path, force: bool) -> None:
    """Convert weights that a method's authors published.

    FILE is the one they published; no code in it is run. The network is the one that params.yaml
    describes, for the classes of data/dataset in their order; every tensor has to fit. ImageNet
    weights have to fit classifier.backbone.
    """
    if output.exists() and not force:
        raise UserError(f"-o {output}: exists; add --force to overwrite it")
    parameters, repository = read_parameters(), REPOSITORIES[source]
    tensors = read_tensors(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    click.echo(f"{file}: SHA-256 {digest}")
    if repository.stage is None:
        write_atomically(output, save(as_backbone(tensors, repository, parameters, file)))
        click.echo(f"wrote {output}; next: set classifier.backbone.weights to it")
        return
    network, header = as_network(tensors, repository, parameters, file)
    save_weights(output, network, repository.stage, **header, published=[source, digest])
    click.echo(f"wrote {output}")
    if output == artifact(repository.stage, ".safetensors"):
        write_empty_curve(repository.stage)
        click.echo(f"next: dvc commit --force {repository.stage}, then dvc repro")


def as_backbone(
    tensors: Mapping[str, Tensor], repository: Repository, parameters: Parameters, file: Path
) -> dict[str, Tensor]:
    """Return published ImageNet weights under timm's names; raise UserError if they do not fit the
    classifier's backbone.
    """
    from pipeline.nets.backbones import create_backbone, load_body

    renamed, name = translate(tensors, repository, {}), parameters.classifier.backbone.name
    load_body(create_backbone(name, "none", dilated=False), renamed, name, str(file))
    return renamed


def as_network(
    tensors: Mapping[str, Tensor], repository: Repository, parameters: Parameters, file: Path
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of the repository's stage with published weights, and its header; raise
    UserError if they do not fit.
    """
    # importing the networks takes seconds, which other commands need not spend
    from stages import classifier, instance, irnet

    stage, classes = str(repository.stage), Index.load(DATASET).classes
    section = getattr(parameters, stage)
    backbone = section.backbone.model_copy(update={"weights": "none"})
    section = section.model_copy(update={"backbone": backbone})
    builders: dict[str, Callable[..., tuple[nn.Module, dict[str, Any]]]] = {
        "classifier": classifier.new_network,
        "irnet": lambda section, _: irnet.new_network(section),
        "instance": instance.new_network,
    }
    network, header = builders[stage](section, classes)
    try:
        network.load_state_dict(translate(tensors, repository, network.state_dict()))
    except RuntimeError as error:
        method = getattr(section, "method", "IRNet")
        raise UserError(
            f"{file}: does not fit section {stage} of params.yaml, {method} on {backbone.name} for "
            f"{len(classes)} classes; set the method's preset and data set: {error}"
        ) from error
    return network, header
