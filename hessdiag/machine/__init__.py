"""The machine: memory, devices, processes, arithmetic, and what a measurement costs on them."""
