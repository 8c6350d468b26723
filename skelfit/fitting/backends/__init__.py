"""The backend of the fit: kernels, their tables, and the device."""
