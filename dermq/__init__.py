"""The domain of dermq, shared by every program: the words, the rules and the places things are kept."""

__version__ = "0.1.0"
