"""The `slipway` command."""

import os

# gRPC's core writes to standard error ("Got goaway"), where the command has an error of its own to tell, or a display.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
