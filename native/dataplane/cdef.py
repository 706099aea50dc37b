# SPDX-License-Identifier: Apache-2.0
"""Reduce a C header to the declarations that cffi reads: no preprocessor lines, no comments."""

import re
import sys

source = open(sys.argv[1], encoding="utf-8").read()
source = re.sub(r"/\*.*?\*/", "", source, flags=re.S)
lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
open(sys.argv[2], "w", encoding="utf-8").write("\n".join(lines) + "\n")
