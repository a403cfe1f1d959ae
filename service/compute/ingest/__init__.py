"""PyTorch checkpoints to safetensors: by a process of its own that may do next to nothing.

    device process                                     converter, one a checkpoint
    convert.py ── the checkpoint as a file, ─────────▶ converter.py: confined (confinement.py,
               ◀─ progress, then what was found ────── landlock.py), then reads the pickle
    checks it all, hashes the file                     (reading.py, statedict.py) and copies the
                                                       tensors into a file (writing.py)

A checkpoint is a pickle, which is a program. What holds where:

- everywhere: `torch.load(weights_only=True)`, which builds nothing but what is on its short list; a
  clean environment; an audit hook that refuses sockets, processes, ctypes and writing to files;
  limits of time (CPU and wall), of file size and of open files, and of memory;
- Linux: the kernel ends the converter with its parent; a network namespace of its own with nothing
  in it, where the machine allows an unprivileged one (containers often do not); Landlock, from
  kernel 5.13: no file opened but Python's own for reading and the checkpoint, from 6.7 no TCP;
- macOS: no memory limit (its kernel does not know one); only the audit hook guards the network.

The pickle is read with every storage on torch's `meta` device: no claim of it costs memory, and
what it says of a storage must be what the archive's directory says. Tensors are copied from a map
of the file, piece by piece. Checkpoints of before torch 1.6 cannot be read that way: they are
loaded whole, within a memory limit of their own size.
"""
