"""The pages. They show what the API tells and act by calling it, so that none does what the API cannot.

A page is a module with a view, a template of the view's name, and an entry in ``routes``.
"""
