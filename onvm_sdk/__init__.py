
from onvm_sdk.nf import NativeKernel, NetworkFunction

__all__ = ["NativeKernel", "NetworkFunction"]
