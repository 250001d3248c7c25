"""A small process that sleeps and then becomes another program: ``waiter.py SECONDS PROGRAM ARG…``.

Run as a script, with next to nothing imported. It leaves its parent, writes its pid to stdout and
goes on only when it reads a byte: at the end of file, who was to record the pid has been killed.
"""

import os
import sys
import time


def main(seconds: str, *command: str) -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    os.write(1, b"%d\n" % os.getpid())
    if not os.read(0, 1):
        os._exit(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    time.sleep(float(seconds))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
