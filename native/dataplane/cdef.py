# SPDX-License-Identifier: Apache-2.0
"""Reduce a C header to the declarations that cffi reads: no preprocessor lines, no comments."""

import re
import sys
from pathlib import Path

source = Path(sys.argv[1]).read_text(encoding="utf-8")
source = re.sub(r"/\*.*?\*/", "", source, flags=re.S)
lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
Path(sys.argv[2]).write_text("\n".join(lines) + "\n", encoding="utf-8")
