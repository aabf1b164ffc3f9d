import blobs
import object_store
import pytest
from kubeflow_api import serving

from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.kubeflow.compile import as_yaml, compile_pipeline

IMAGE = "registry.example/stillhouse:1.0"


@pytest.fixture(scope="session")
def settings():
    """The settings of the blobs task, on a volume."""
    raw = blobs.settings()
    raw["data"]["path"], raw["push"]["path"] = "/data/blobs", "/data/serving"
    raw["kubeflow"] = {"volumes": [{"claim": "data", "mount": "/data"}]}
    return parse_settings(raw, "blobs.yaml")


@pytest.fixture(scope="session")
def documents(settings, tmp_path_factory):
    """The compiled pipeline of the blobs task; tests must leave it as it is."""
    folder = tmp_path_factory.mktemp("task")
    blobs.write_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return compile_pipeline(settings, IMAGE)


@pytest.fixture(scope="session")
def text(documents):
    """The file of the compiled pipeline."""
    return as_yaml(documents)


@pytest.fixture
def store():
    """An object store of a cluster, empty."""
    with object_store.serving() as found:
        yield found


@pytest.fixture
def api():
    """A fresh API server."""
    with serving() as found:
        yield found
