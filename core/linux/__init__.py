"""Linux system calls that Python has no words for, each an effect where it changes something.

The only ctypes of the project. Public: drivers use it instead of ctypes of their own.
"""
