"""Forms and uploads: multipart/form-data (RFC 7578), urlencoded forms, files that grow by offset.

Nothing in here knows a message or a connection: bytes come in, parts and fields come out.
"""
