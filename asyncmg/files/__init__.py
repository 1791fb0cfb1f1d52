"""Files as replies: which file a path means, which part of it, and its bytes. Imports messages and what is beside it.

Nothing in here knows a connection: what is to be replied comes out as a :class:`asyncmg.files.reply.FileReply`.
"""
