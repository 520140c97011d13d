"""The science of FADRM Server: paths and tensors in, events out. Usable alone, without the service."""

__version__ = "0.1.0"  # of the whole: server, workers, pages
