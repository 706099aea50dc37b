"""Pass the C function and its state to onvm."""

from onvm_sdk import NativeKernel

from {{ cookiecutter.package }} import _kernel


def make_kernel(port: int, reason: int) -> NativeKernel:
    """Create the state, and return it with the address of the function."""
    ffi, lib = _kernel.ffi, _kernel.lib
    state = ffi.new("struct kernel_state *", {"port": port, "reason": reason})
    function = ffi.cast("uintptr_t", ffi.addressof(lib, "kernel_burst"))
    return NativeKernel(int(function), int(ffi.cast("uintptr_t", state)), keep=state)
