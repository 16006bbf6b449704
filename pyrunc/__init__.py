"""pyrunc, an OCI low-level container runtime. Version numbers only: importing this must cost nothing."""

__version__ = "0.1.0"
# The OCI runtime specification followed, and the runc whose command line, outputs and error texts are.
SPEC_VERSION = "1.3.0"
RUNC_LEVEL = "1.5.1"
