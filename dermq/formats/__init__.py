"""The image formats that dermq takes."""
