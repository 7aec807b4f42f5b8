"""What runs the machine: processes, random numbers, devices, files written whole."""
