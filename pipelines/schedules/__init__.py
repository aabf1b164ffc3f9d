"""Runs on a schedule: on Kubeflow Pipelines (recurring runs), or by a process on this machine."""
