"""The pages for people. They act by calling the API, so no page does anything that the API cannot do.

A page is a module with a view, a template with the view's name, and an entry in ``routes``.
"""
