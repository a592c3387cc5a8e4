"""The web page: a Gradio client of the HTTP API. Of the package it uses two small modules, for CSV and for settings."""
