# SPDX-License-Identifier: Apache-2.0
"""Configurations from the rules of other software."""
