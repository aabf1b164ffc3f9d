"""The pipeline on Kubeflow Pipelines: compiled, and each step's container."""
