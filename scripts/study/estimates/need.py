"""What one job takes."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Need:
    """What one job is expected to take, without a margin."""

    memory: float
    """Of the machine at its peak, in bytes, Python and its libraries included."""
    seconds: float
    """Of wall time."""
    disk: float
    """Of all that it keeps, in bytes."""
    gpu_memory: float = 0.0
    """Of the GPU at its peak, in bytes; 0 for jobs that use none."""

    @property
    def uses_gpu(self) -> bool:
        """Whether the job runs on a GPU."""
        return self.gpu_memory > 0
