"""How the server is run: options of `hybridstitch serve`, each also an environment variable HYBRIDSTITCH_<NAME>."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
MIB = 1 << 20


class ServeSettings(BaseSettings):
    """See the module.

    Attributes:
        api_key: what clients have to send; None lets everybody in.
        host, port: where to listen.
        max_wait_seconds: a request that would wait longer is refused with 429.
        max_waiting: requests that may wait.
        timeout_seconds: a request that sets no `timeout` is given up after it.
        stuck_seconds: a worker that goes on so long after it was told to stop is ended.
        drain_seconds: after SIGTERM, for what was admitted.
        max_images, max_steps: of a request.
        max_body_mib: of a request, pictures included; max_json_kib: without pictures.
        max_pixels: of a picture to edit.
        target_seconds: with a recipe: from request to picture; the server chooses speeds that keep it.
        floor: the closeness that it never goes below for that.
        remember: a folder in which pictures are remembered; None remembers none.
        remember_most: pictures there; the oldest go first.
        log_prompts: write prompts into the log.
        metadata: write into PNGs how they were drawn.
    """

    model_config = SettingsConfigDict(env_prefix="HYBRIDSTITCH_", extra="ignore", frozen=True)

    api_key: SecretStr | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_wait_seconds: float = Field(default=60, gt=0)
    max_waiting: int = Field(default=256, ge=1)
    timeout_seconds: float = Field(default=600, gt=0)
    stuck_seconds: float = Field(default=30, gt=0)
    drain_seconds: float = Field(default=30, ge=0)
    max_images: int = Field(default=10, ge=1, le=10)
    max_steps: int = Field(default=200, ge=1)
    max_body_mib: int = Field(default=64, ge=1)
    max_json_kib: int = Field(default=256, ge=1)
    max_pixels: int = Field(default=1 << 24, ge=1)
    target_seconds: float | None = Field(default=None, gt=0)
    floor: float = Field(default=0.9, gt=0, le=1)
    remember: Path | None = None
    remember_most: int = Field(default=1000, ge=1, le=20_000)
    log_prompts: bool = False
    metadata: bool = True
