"""Whether this machine has a C++ compiler, by the rule that memfeat tells its users."""

import os
import shutil

import pytest

COMPILER = os.environ.get("CXX") or next(
    filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None
)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
