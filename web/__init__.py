"""The web: pages, API, uploads and reports. It never decodes an image and never loads a model."""
