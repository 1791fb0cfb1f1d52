"""Content-Type of a file by the end of its name: the same on every machine."""

from __future__ import annotations

import functools
import mimetypes
import os

# What the Web serves, named here because Python's own table differs from version to version.
_TYPES = {
    ".3gp": "video/3gpp",
    ".7z": "application/x-7z-compressed",
    ".aac": "audio/aac",
    ".apng": "image/apng",
    ".atom": "application/atom+xml",
    ".avi": "video/x-msvideo",
    ".avif": "image/avif",
    ".bin": "application/octet-stream",
    ".bmp": "image/bmp",
    ".bz2": "application/x-bzip2",
    ".css": "text/css",
    ".csv": "text/csv",
    ".doc": "application/msword",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".eot": "application/vnd.ms-fontobject",
    ".epub": "application/epub+zip",
    ".flac": "audio/flac",
    ".gif": "image/gif",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".gz": "application/gzip",
    ".heic": "image/heic",
    ".htm": "text/html",
    ".html": "text/html",
    ".ico": "image/vnd.microsoft.icon",
    ".ics": "text/calendar",
    ".jar": "application/java-archive",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonld": "application/ld+json",
    ".jxl": "image/jxl",
    ".log": "text/plain",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mid": "audio/midi",
    ".mjs": "text/javascript",
    ".mkv": "video/matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".mpd": "application/dash+xml",
    ".mpeg": "video/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".rss": "application/rss+xml",
    ".rtf": "application/rtf",
    ".svg": "image/svg+xml",
    ".tar": "application/x-tar",
    ".tgz": "application/gzip",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".ts": "video/mp2t",
    ".ttf": "font/ttf",
    ".txt": "text/plain",
    ".vtt": "text/vtt",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xhtml": "application/xhtml+xml",
    ".xls": "application/vnd.ms-excel",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xml": "text/xml",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zip": "application/zip",
    ".zst": "application/zstd",
}
_TEXT_TYPES = frozenset({"application/javascript", "application/json", "application/xml", "image/svg+xml"})


def content_type_of(name: str | os.PathLike[str], mime_types: str = "") -> str:
    """Return the Content-Type of a file by its name; text gets ``; charset=utf-8``.

    Args:
        name: of the file, with or without its folder; only what stands behind the last dot counts.
        mime_types: ``"ext=type,ext=type"``, over the built-in table and used as they are.

    Returns:
        ``"application/octet-stream"`` when the type is not known.
    """
    return _type_of_suffix(os.path.splitext(name)[1].lower(), mime_types)


@functools.lru_cache(maxsize=1024)
def _type_of_suffix(suffix: str, mime_types: str) -> str:
    for pair in mime_types.split(","):
        extension, equals, given = pair.strip().partition("=")
        if suffix and equals and "." + extension.lower().lstrip(".") == suffix:
            return given
    found = _TYPES.get(suffix) or _standard_types().get(suffix, "application/octet-stream")
    return f"{found}; charset=utf-8" if found.startswith("text/") or found in _TEXT_TYPES else found


@functools.cache
def _standard_types() -> dict[str, str]:
    """Python's own table, without what the files of this machine add to it."""
    return mimetypes.MimeTypes(filenames=()).types_map[True]
