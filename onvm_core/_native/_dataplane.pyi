# A cffi module has no types: its binding module gives them.
from typing import Any

ffi: Any
lib: Any
