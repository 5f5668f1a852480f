"""The error tree of the project.

    SvpError
    ├── ConfigError        a profile or command-line value is wrong; names the file, the key and what would be right
    ├── PresetError        a style preset cannot be used: file, key, expected, found
    ├── WeightsError       shipped or trained weights are missing, damaged (hash) or of another architecture
    ├── MediaError         an input file or stream cannot be read as sound or picture
    ├── StreamError        a stage was fed out of order or after its end
    ├── EngineError        the model failed while serving one session
    └── CapacityError      the server is full; carries `retry_after_s`

Each message says what, where and what would be right. Catch the narrowest; one session's error ends that session only.
"""

from __future__ import annotations


class SvpError(Exception):
    """Root of every error that this project raises on purpose."""


class ConfigError(SvpError):
    """A configuration value is unknown, missing or out of range."""


class PresetError(SvpError):
    """A style preset is unknown, malformed or belongs to another style prior."""


class WeightsError(SvpError):
    """Model weights are missing, damaged or do not fit the code."""


class MediaError(SvpError):
    """A media file or stream could not be decoded or encoded."""


class StreamError(SvpError):
    """A streaming stage was used against its contract."""


class EngineError(SvpError):
    """The model failed for one session."""


class CapacityError(SvpError):
    """No room for another session now."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
