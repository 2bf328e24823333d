"""The web: pages, API, uploads and reports. Never decodes an image into pixels and never loads a model."""
