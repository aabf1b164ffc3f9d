"""Which packages there are; all else stands in pyproject.toml, where setuptools cannot find them by itself."""

from setuptools import find_namespace_packages, setup

ROOMS = ["pipelines", "components", "modules"]
found = find_namespace_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)])

setup(packages=["stillhouse", *(f"stillhouse.{package}" for package in found)])
