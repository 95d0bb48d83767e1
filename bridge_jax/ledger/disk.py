"""Whether a file lies on a network disk, where SQLite's WAL must not be used.

The WAL's index is memory shared by the processes of one machine: on a disk that several machines
mount, each would have its own, and they would overwrite each other's pages
(https://sqlite.org/wal.html). The rollback journal needs only file locks.
"""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs"),
    *("glusterfs", "orangefs", "pvfs2", "wekafs", "ocfs2", "gfs2", "virtiofs", "vboxsf"),
    *("fuse.sshfs", "fuse.gcsfuse", "fuse.s3fs", "fuse.glusterfs", "fuse.juicefs", "fuse.ceph"),
}


def on_network(path: Path) -> bool:
    """Returns whether `path` is on a disk that other machines may mount; False where unknown."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return False
    path = path.resolve()
    kind, depth = "", -1
    for line in lines:
        _, mounted, of_kind, *_ = line.split(" ")
        # Blanks and the like are written in octal, all else as it is.
        place = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), mounted))
        # The last of several on one place hides the others.
        if len(place.parts) >= depth and path.is_relative_to(place):
            kind, depth = of_kind, len(place.parts)
    return kind in _NETWORK
