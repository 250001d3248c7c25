"""A union file system in user space: read-only layers beneath one that is written, over FUSE.

``tree`` knows what is where, ``marks`` how a layer says that a name is gone, ``upper`` changes
the writable layer, ``copyup`` brings files there, ``calls`` is what FUSE asks for, ``server`` the
process that serves it (:mod:`stowage.linux.serving`), ``driver`` what its drivers share.
"""
