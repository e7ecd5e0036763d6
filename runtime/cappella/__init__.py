"""A local-model ensemble runtime: a panel of models on vLLM, a judge, one endpoint."""

__version__ = "0.1.0"
