"""Reports, the downloads that are made from a batch.

Each format is one module, and ``registry`` lists them. To add a format, write a module and add it to the registry. The
call, the OpenAPI document, the links of a batch and the buttons on its page are made from the registry.
"""
