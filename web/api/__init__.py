"""The HTTP API: JSON under ``/api/v1``, with an OpenAPI document that is generated from the code."""
