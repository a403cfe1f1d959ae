"""PyTorch checkpoints that are not converted."""

from dataclasses import dataclass

from service.errors.tree import Invalid, TooLarge


@dataclass(eq=False)
class BadCheckpoint(Invalid):
    """A PyTorch checkpoint cannot be converted."""

    file: str
    reason: str
    slug = "bad-checkpoint"

    def __str__(self) -> str:
        return f"checkpoint {self.file} cannot be converted: {self.reason}"


@dataclass(eq=False)
class UnsafeCheckpoint(Invalid):
    """A PyTorch checkpoint needs more than tensors: loading it would import and run code.

    Nothing of it was run. Only what `torch.load(weights_only=True)` allows is read.
    """

    file: str
    globals: list[str]
    slug = "unsafe-checkpoint"

    def __str__(self) -> str:
        return (
            f"checkpoint {self.file} would run {', '.join(self.globals)} when it is loaded, and "
            "was not; save the weights alone, with torch.save(model.state_dict(), FILE)"
        )


@dataclass(eq=False)
class ConversionOverLimit(TooLarge):
    """Converting a PyTorch checkpoint takes more than a converter may use."""

    file: str
    limit: str
    slug = "conversion-over-limit"

    def __str__(self) -> str:
        return (
            f"converting {self.file} takes more than {self.limit}; convert it yourself and push "
            "safetensors"
        )
