"""pyrunc, an OCI low-level container runtime. Version numbers only: importing this must cost nothing."""

__version__ = "0.1.0"
# The version of the OCI runtime specification that is implemented, and the version of runc whose command line, output
# and error texts pyrunc follows.
SPEC_VERSION = "1.3.0"
RUNC_LEVEL = "1.5.1"
