"""Line graphs built by kernels of their own, on NVIDIA GPUs."""
