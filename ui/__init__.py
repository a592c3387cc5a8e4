"""The web page: a Gradio client of the service's HTTP API. It imports nothing of the service."""
