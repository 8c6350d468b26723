"""Where the fit runs: kernels, their tables, and the device."""
