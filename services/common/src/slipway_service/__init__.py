"""What both services are built on: lifecycle, errors, watch, metrics, file formats."""

import os

# Before anything imports grpc. Its fork handlers would make children that run under other threads print warnings and,
# with some event loops, exit wrongly; the services start processes by vfork and exec only, which needs none of them.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
# Core writes to standard error past our logging: its INFO lines of every peer that goes away, and a failed bind, which
# we report ourselves.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
