"""The science of FADRM Server: paths and tensors in, events out. Usable alone, without the service."""
