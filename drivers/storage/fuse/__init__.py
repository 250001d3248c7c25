"""Snapshots as directories of changes, shown by a union file system in user space (FUSE).

::

    storage/fuse/
      <id>/fs/                    what the snapshot changed; the upper layer while it is active
      <id>/work/                  what is half made; an active snapshot has one once it was mounted
      <id>/server.log             what the processes said that served it
      <id>/server-<pid>-<start>   one that serves it now

Marks are those of the kernel's overlay file system, so a layer of this driver could be mounted by
that: a whiteout is a character device 0:0, an opaque directory has ``trusted.overlay.opaque``.
``trusted.overlay.stowage.inode`` keeps the inode number of what was copied up.

Each mount is served by a process of its own (:mod:`stowage.linux.serving`) that ends with the last
reference to it. It serves on one thread: under Python's lock several would wait for each other.

What it can do, and how:

* ``hardlinks_kept``: copying up a file takes all its names along. A file's names in a lower layer
  are found by one walk of that layer, when the first file with several names is looked at.
* ``dir_rename``: a parent's directory is copied up whole, then renamed, so nothing of the upper
  layer hangs on names of lower ones (and a large directory takes its time).
* ``fresh_read_descriptor``, ``stable_inodes``: what is open for reading when a file is copied up
  reads the copy from then on; numbers stay.
* ``acl_enforced``: by the kernel, from the ACLs that the backing file system keeps.
* ``exclusive_upper``: the server holds a lock on the work directory.
* Not there, for libfuse 2 passes neither on: O_TMPFILE (EOPNOTSUPP) and the ioctls that files have
  (FICLONE, FS_IOC_SETFLAGS); ``renameat2`` knows RENAME_NOREPLACE, not the rest (EINVAL).
  mmap(2) of one file under two of its names is not coherent.
* ``host_root`` is not claimed: the server takes lower layers for unchanging.
"""

from .driver import FuseDriver as FuseDriver

__all__ = ["FuseDriver"]
