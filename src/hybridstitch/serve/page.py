"""`GET /`: one page that holds everything itself and asks nobody but this server."""

from importlib.resources import files


def page() -> str:
    """Its HTML."""
    return files("hybridstitch.serve").joinpath("page.html").read_text(encoding="utf-8")
