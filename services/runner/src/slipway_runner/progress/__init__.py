"""Where a load stands: from what backends and the kernel say to one fraction."""
