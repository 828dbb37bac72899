"""What `MemoryModule` promises on any backend; what the backend itself must do stands one folder above."""
