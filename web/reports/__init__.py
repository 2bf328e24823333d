"""Reports, the downloads that are made from a batch.

``registry`` lists the formats, each of which is one module. A new format is a new module and its entry there: the call,
the OpenAPI document, the links of a batch and the buttons of its page follow.
"""
